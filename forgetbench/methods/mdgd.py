"""MDGD: modality-decoupled gradient descent (arXiv:2502.11740), reconstructed.

The paper's abstract says that gradients of visual representation learning are disentangled from task alignment; notes
on it say that the part of the task gradient along the visual drift direction is removed. No formulas and no code were
published: when, scope, strength and layer are choices, and settings here.

    g~ = g_t - <g_t, g_v> / (||g_v||^2 + eps) g_v  (+ strength * g_v)      g_t = grad L_task, g_v = grad L_v
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from forgetbench.core.errors import UserError
from forgetbench.core.records import Precision
from forgetbench.methods.base import Batch, Method, TrainingContext

if TYPE_CHECKING:
    from torch import Tensor

    from forgetbench.methods.drift import VisualDrift

EPSILON = 1e-30
"""Below any gradient that is not 0: squared norms of 1e-8 must not be taken for rounding."""
GIB = 1 << 30


class When(StrEnum):
    """When the drift direction is taken out of the task gradient."""

    always = "always"
    conflict = "conflict"
    """Only where the task's step would raise the drift: <g_t, g_v> < 0."""


class Scope(StrEnum):
    """What counts as one gradient."""

    tensor = "tensor"
    all = "all"
    """All trainable tensors end to end."""


@dataclass
class MDGD(Method):
    """Removes from the task gradient what lies along the gradient of visual drift; full fine-tuning only.

    One forward pass serves both losses. The base's hidden states are cached once per picture as memory allows, and
    computed from a copy of the trainable tensors otherwise.
    """

    name: str = "mdgd"
    when: When = When.always
    scope: Scope = Scope.tensor
    strength: float = 0.0
    """lambda: also descend on the drift itself."""
    layer: int | None = None
    """Whose hidden states are compared: 0 enters the first language layer, k leaves the k-th; null is the last."""
    precision: Precision | None = Precision.fp32
    """Of the forward pass; null takes the recipe's. In bf16 small drifts drown in rounding and count as none."""
    cache_gb: float = 2.0
    """Memory for the base's hidden states; it changes no result."""

    def copies(self) -> float:
        """The base for the drift, and a second gradient."""
        return 2.0

    def problems(self) -> Mapping[str, str]:
        """Settings outside their range."""
        found = {}
        if self.strength < 0:
            found["strength"] = f"{self.strength} would reward drift; give 0 or more."
        if self.cache_gb < 0:
            found["cache_gb"] = f"{self.cache_gb} is negative; give 0 or more."
        return found

    def against_sharding(self) -> str:
        """The base is not among the slices."""
        return "its drift is measured by a pass with other weights, which slices do not take"

    def forward_precision(self) -> Precision | None:
        """Live and reference pass must not differ by rounding alone."""
        return self.precision

    def begin(self, context: TrainingContext) -> None:
        """Look at the base's hidden states."""
        from forgetbench.methods.drift import VisualDrift

        if any(".lora_" in name for name in context.trainable):
            raise UserError(f"method={self.name} needs the gradients of the model's own weights; it has no LoRA form.")
        self.drift: VisualDrift = VisualDrift(context, self.layer, int(self.cache_gb * GIB))
        """Of the run at hand, from the base on."""
        self._gradients: dict[str, Tensor] = {}

    def penalty(self, context: TrainingContext, batch: Batch, outputs: Any) -> None:
        """Collect the drift's gradient from the pass that the task's will be taken from, too."""
        collect(self._gradients, self.drift.loss(batch), context)

    def edit_gradients(self, context: TrainingContext) -> None:
        """Project the task's gradients."""
        task = {name: one.grad for name, one in context.trainable.items() if one.grad is not None}
        drift = {name: context.passes.total(value) for name, value in self._gradients.items()}
        self._gradients = {}
        project(task, drift, self.when, self.scope, self.strength)


def collect(into: dict[str, Tensor], loss: Tensor | None, context: TrainingContext, last: bool = False) -> None:
    """Add the gradients of a loss to those of earlier micro-batches; the pass's graph stays unless it is the last."""
    import torch

    # Where every process must take part in sums, a tensor without drift has a gradient of zeros.
    for name, parameter in context.trainable.items():
        if name not in into:
            into[name] = torch.zeros_like(parameter)
    if loss is None or not loss.requires_grad or not loss.detach():
        return
    found = torch.autograd.grad(loss, list(context.trainable.values()), retain_graph=not last, allow_unused=True)
    for name, gradient in zip(context.trainable, found, strict=True):
        if gradient is not None:
            into[name] += gradient


def project(task: Mapping[str, Tensor], drift: Mapping[str, Tensor], when: When, scope: Scope, strength: float) -> None:
    """Take the drift direction out of the task's gradients, in place.

    Args:
        task: g_t by name.
        drift: g_v by name; a name may be missing.
        when: whether to leave gradients alone that lower the drift anyway.
        scope: one projection per tensor, or one over all.
        strength: share of g_v to add.
    """
    names = [name for name in task if name in drift]
    groups = [[name] for name in names] if scope is Scope.tensor else [names]
    for group in groups:
        along = sum(_dot(task[name], drift[name]) for name in group)
        length = sum(_dot(drift[name], drift[name]) for name in group)
        removed = 0.0 if when is When.conflict and along >= 0 else along / (length + EPSILON)
        for name in group:
            task[name].add_(drift[name], alpha=strength - removed)


def _dot(a: Tensor, b: Tensor) -> float:
    """Inner product in float64: the rest must be orthogonal to 1e-6."""
    return float(a.flatten().double() @ b.flatten().double())
