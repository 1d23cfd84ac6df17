"""Digest, gather and distribute tensors, which are plain or sharded over processes (DTensor)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def tensor_bytes(tensor: Tensor) -> bytes:
    """The raw bytes of a tensor."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def tensors_digest(tensors: Mapping[str, Tensor], settings: Any = None) -> str:
    """sha256 over the names, dtypes, shapes and bytes of tensors, and over `settings`."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def fingerprint(tensor: Tensor) -> bytes:
    """sha256 of a tensor's bytes."""
    return hashlib.sha256(tensor_bytes(tensor)).digest()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor; a sharded tensor is gathered, which all processes must do in the same order."""
    if not isinstance(tensor, DTensor):
        return tensor
    # Rows that are kept in main memory are sent from where the processes talk to each other.
    sent: DTensor = tensor.to(tensor.device_mesh.device_type)  # type: ignore[assignment]
    return sent.full_tensor()


def local_slice(tensor: Tensor) -> Tensor:
    """This process's shard of a sharded tensor (a view), or the plain tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def total(numbers: Tensor, of: Tensor) -> Tensor:
    """Sum `numbers` in place over the processes that hold shards of `of`; all processes must call it."""
    if isinstance(of, DTensor):
        dist.all_reduce(numbers, group=of.device_mesh.get_group())
    return numbers


def placed_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Move a full tensor to the device of `like`, and shard it like `like`; a sharded tensor is returned unchanged."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    if isinstance(tensor, DTensor):
        return tensor
    # Every process has the full tensor, so nothing is sent between processes.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def put(target: Tensor, value: Tensor) -> None:
    """Overwrite a plain or sharded tensor with a full tensor."""
    target.copy_(placed_like(value, target))
