"""Digests of tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def tensor_bytes(tensor: Tensor) -> bytes:
    """A tensor's raw bytes."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def tensors_digest(tensors: Mapping[str, Tensor], settings: Any = None) -> str:
    """sha256 over names, types, shapes and bytes, and over settings that are not in the tensors."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def fingerprint(tensor: Tensor) -> bytes:
    """Digest of a tensor's bits."""
    return hashlib.sha256(tensor_bytes(tensor)).digest()
