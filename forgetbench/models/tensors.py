"""Tensors of one process or sliced over several (DTensor): digests, and what is whole of a slice."""

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


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered where it is sliced: then every process must ask, in the same order."""
    if not isinstance(tensor, DTensor):
        return tensor
    # Rows that are kept in main memory are sent from where the processes talk to each other.
    sent: DTensor = tensor.to(tensor.device_mesh.device_type)  # type: ignore[assignment]
    return sent.full_tensor()


def own_slice(tensor: Tensor) -> Tensor:
    """This process's rows of a sliced tensor, in the same memory; else the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def total(numbers: Tensor, of: Tensor) -> Tensor:
    """Sum of plain numbers over the slices of a tensor, in place; every process must ask."""
    if isinstance(of, DTensor):
        dist.all_reduce(numbers, group=of.device_mesh.get_group())
    return numbers


def placed_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of another, and sliced as it is; a slice of it stays as it is."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    if isinstance(tensor, DTensor):
        return tensor
    # Every process has all of it, so none needs to be sent any.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def put(target: Tensor, value: Tensor) -> None:
    """Overwrite a tensor, whole or sliced, with a whole one."""
    target.copy_(placed_like(value, target))
