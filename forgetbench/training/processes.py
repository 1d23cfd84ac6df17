"""The processes of one run: as many as torchrun started, else one."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from forgetbench.errors import UserError


def start_processes(micro_batch: int) -> Accelerator:
    """Join the other processes of this run, if there are any.

    Args:
        micro_batch: instances per forward pass over all processes.

    Raises:
        UserError: the micro-batch cannot be shared evenly, or fewer processes joined than were started.
    """
    # Text-only batches leave the vision tower without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    # Not accelerate's own mixed precision: its state is one per process, so a sweep could not change it.
    accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available(), kwargs_handlers=[unused])
    started, joined = int(os.environ.get("WORLD_SIZE", "1")), accelerator.num_processes
    if started != joined:
        raise UserError(f"{started} processes were started but {joined} joined; start them with torchrun.")
    if micro_batch % joined:
        raise UserError(
            f"recipe.batch_size / recipe.gradient_accumulation = {micro_batch} cannot be shared by {joined} processes; "
            f"make it a multiple of {joined}."
        )
    return accelerator
