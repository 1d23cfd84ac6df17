"""The base class of operations after training, which compute new weights from base and trained weights.

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
    """A trained checkpoint, as input of an operation.

    Adapters are merged. Tensors are fp32, on the model's device, by parameter name in the loaded model.
    """

    model: Any
    """The model with the base weights; an operation may change its weights and need not restore them."""
    base: Mapping[str, Tensor]
    """w0 of every tensor that training changed."""
    tuned: Mapping[str, Tensor]
    """w of the same tensors."""
    others: Sequence[Mapping[str, Tensor]]
    """w of further runs of the same base, for operations that merge runs; runs may have changed different tensors."""
    others_base: Mapping[str, Tensor]
    """w0 of every tensor in `others`."""
    passes: Passes
    """Forward passes over the run's training data."""


@dataclass
class Operation(Method):
    """A method without training steps; subclasses yield variants of a checkpoint."""

    checkpoints: list[int] = field(default_factory=list)
    """Steps of the checkpoints to process; if empty, the run's last checkpoint."""

    def settings(self) -> Sequence[str]:
        """The names of a checkpoint's variants, such as `0.5`; an empty name if there is only one variant."""
        return [""]

    def reads_data(self) -> bool:
        """Whether the operation makes forward passes over the run's training data."""
        return False

    def merges(self) -> Sequence[str]:
        """Folders of further runs of the same base; their last checkpoints are given as `Trained.others`."""
        return ()

    def variants(self, trained: Trained) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """Yield (setting, changed tensors by name), in the order of `settings`."""
        raise NotImplementedError
