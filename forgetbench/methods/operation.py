"""What is done to a trained checkpoint afterwards: new weights from the base's and the trained ones, without a step.

`forgetbench finetune method=<name> run=outputs/<run>` writes each result as a variant of the checkpoint, which
`eval-matrix` scores like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forgetbench.methods.base import Method, Passes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Trained:
    """A trained checkpoint, as an operation sees it.

    Adapters are merged: tensors are those of the model's own parameters, by live name, fp32, on the model's device.
    """

    model: Any
    """On the base weights; an operation may move it and need not move it back."""
    base: Mapping[str, Tensor]
    """w0 of every tensor that training changed."""
    tuned: Mapping[str, Tensor]
    """w of the same tensors."""
    others: Sequence[Mapping[str, Tensor]]
    """w of further runs of the same base, for operations that merge several; each may hold other tensors."""
    others_base: Mapping[str, Tensor]
    """w0 of every tensor of `others`."""
    passes: Passes
    """Forward passes; its data are the run's own training data."""


@dataclass
class Operation(Method):
    """A method that takes no steps: subclasses yield variants."""

    checkpoints: list[int] = field(default_factory=list)
    """Steps of the checkpoints to work on; none: the run's last."""

    def settings(self) -> Sequence[str]:
        """What tells the variants of one checkpoint apart, such as `0.5`; empty where there is only one."""
        return [""]

    def reads_data(self) -> bool:
        """Whether it makes forward passes over the run's training data."""
        return False

    def merges(self) -> Sequence[str]:
        """Folders of further runs of the same base, whose last checkpoints come as `Trained.others`."""
        return ()

    def variants(self, trained: Trained) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """Yield (setting, changed tensors by live name), in the order of `settings`."""
        raise NotImplementedError
