"""The processes of one command: as many as torchrun or accelerate started, else one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from forgetbench.core.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

_UNSUPPORTED_FLAGS = {
    "ACCELERATE_USE_FSDP": "leave out --use_fsdp (distributed_type: FSDP) and give sharding=fsdp2 to forgetbench",
    "ACCELERATE_USE_DEEPSPEED": "leave out --use_deepspeed; sharding=fsdp2 slices the model, its gradients and moments",
}
_COMMANDS = (
    "torchrun --nproc_per_node N -m forgetbench, or accelerate launch --multi_gpu --num_processes N -m forgetbench"
)

_WATCH_S = 0.5


@dataclass(frozen=True)
class ProcessGroup:
    """Processes that score together: each takes whole batches, and the main one stores all results."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process reads and writes files for all."""
        return self.rank == 0

    def broadcast(self, value: T) -> T:
        """The main process's value, in every process."""
        if self.size == 1:
            return value
        from accelerate.utils import broadcast_object_list

        shared = [value]
        broadcast_object_list(shared)
        return shared[0]

    def gather(self, values: Sequence[T]) -> list[T]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return list(values)
        from accelerate.utils import gather_object

        return list(gather_object(list(values)))


@cache
def end_with_parent() -> None:
    """Send this process SIGTERM when its parent is gone; training then stops after its step."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


_threads_before: list[int] = []
"""CPU threads of this process before a command fixed them."""


def set_threads(threads: int | None) -> None:
    """Fix the CPU threads; the same seed gives the same bytes at the same number of threads."""
    import torch

    if threads is not None:
        _threads_before.append(torch.get_num_threads())
        torch.set_num_threads(threads)


def restore_threads() -> None:
    """Give a program that called a command its CPU threads back."""
    if _threads_before:
        import torch

        torch.set_num_threads(_threads_before[0])
        _threads_before.clear()


def join_process_group() -> ProcessGroup:
    """Join the other processes of this command, if there are any.

    Raises:
        UserError: fewer processes joined than were started.
    """
    if processes_started() == 1:
        return ProcessGroup()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    _check_all_joined(state.num_processes)
    return ProcessGroup(state.process_index, state.num_processes)


def leave_process_group() -> None:
    """Leave the process group, if there is one; its waiting threads would abort a process that ends."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def start_processes() -> Accelerator:
    """Join the other processes of a training run, if there are any.

    Raises:
        UserError: fewer processes joined than were started, or accelerate is set up to share the model in its own way.
    """
    processes_started()
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    # Text-only batches leave the vision tower without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    for flag, instead in _UNSUPPORTED_FLAGS.items():
        if os.environ.get(flag, "false").lower() == "true":
            raise UserError(f"accelerate's configuration sets {flag}: {instead}.")
    # Without accelerate's mixed precision: its state is per process, so a sweep could not change it.
    accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available(), kwargs_handlers=[unused])
    _check_all_joined(accelerator.num_processes)
    return accelerator


def sharing_problem(micro_batch: int, processes: int) -> str:
    """Why processes cannot share a micro-batch: some would wait for ever for one without instances; empty if they can.

    Args:
        micro_batch: instances per forward pass over all processes.
        processes: how many share them.
    """
    if micro_batch % processes == 0:
        return ""
    return (
        f"batch_size / gradient_accumulation = {micro_batch} cannot be shared by {processes} processes; make it a "
        f"multiple of {processes}."
    )


def require_single_process(what: str) -> None:
    """Refuse the processes of a `torchrun`, which would each do the whole work and write the same files."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            f"`{what}` runs in one process; start it without torchrun (`finetune` and `eval-matrix` take several)."
        )


def processes_started() -> int:
    """How many processes were started, by what torchrun tells each.

    Raises:
        UserError: there are signs of several processes, which could not find each other.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if started > 1 and missing:
        raise UserError(
            f"WORLD_SIZE={started} is set, but {', '.join(missing)} is not: start several processes with {_COMMANDS}; "
            "or unset WORLD_SIZE."
        )
    # For several processes accelerate's simple launcher sets the address of the first, and then starts no other.
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ:
        raise UserError(f"`accelerate launch` started one process of several: start them with {_COMMANDS} (CPUs too).")
    return started


def _check_all_joined(joined: int) -> None:
    started = processes_started()
    if started != joined:
        raise UserError(f"{started} processes were started but {joined} joined; start them with {_COMMANDS}.")
