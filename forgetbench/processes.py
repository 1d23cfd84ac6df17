"""The processes of one command: as many as torchrun started, else one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from forgetbench.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


@dataclass(frozen=True)
class Crew:
    """Processes that score together: each takes whole batches, one of them keeps what all have made."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process reads and writes files for all."""
        return self.rank == 0

    def agree(self, value: T) -> T:
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


def set_threads(threads: int | None) -> None:
    """Fix the CPU threads; the same seed gives the same bytes at the same number of threads."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def join_crew() -> Crew:
    """Join the other processes of this command, if there are any.

    Raises:
        UserError: fewer processes joined than were started.
    """
    if _started() == 1:
        return Crew()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    _all_joined(state.num_processes)
    return Crew(state.process_index, state.num_processes)


def start_processes(micro_batch: int) -> Accelerator:
    """Join the other processes of a training run, if there are any.

    Args:
        micro_batch: instances per forward pass over all processes.

    Raises:
        UserError: the micro-batch cannot be shared evenly, or fewer processes joined than were started.
    """
    _started()
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    # Text-only batches leave the vision tower without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    # Not accelerate's own mixed precision: its state is one per process, so a sweep could not change it.
    accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available(), kwargs_handlers=[unused])
    joined = accelerator.num_processes
    _all_joined(joined)
    if micro_batch % joined:
        raise UserError(
            f"recipe.batch_size / recipe.gradient_accumulation = {micro_batch} cannot be shared by {joined} processes; "
            f"make it a multiple of {joined}."
        )
    return accelerator


def alone(what: str) -> None:
    """Refuse the processes of a `torchrun`, which would each do the whole work and write the same files."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            f"`{what}` runs in one process; start it without torchrun (`finetune` and `eval-matrix` take several)."
        )


def _started() -> int:
    """How many processes were started, by what torchrun tells each."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if started > 1 and missing:
        raise UserError(
            f"WORLD_SIZE={started} is set, but {', '.join(missing)} is not: start several processes with torchrun, "
            "or unset WORLD_SIZE."
        )
    return started


def _all_joined(joined: int) -> None:
    started = _started()
    if started != joined:
        raise UserError(f"{started} processes were started but {joined} joined; start them with torchrun.")
