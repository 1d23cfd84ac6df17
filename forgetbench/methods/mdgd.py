"""MDGD: modality-decoupled gradient descent (arXiv:2502.11740), reconstructed.

According to the paper's abstract, gradients of visual representation learning are disentangled from task alignment.
According to notes on the paper, the component of the task gradient along the visual drift direction is removed. No
formulas and no code were published; when, scope, strength and layer are our choices, and settings here.

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
"""Smaller than any non-zero squared norm: norms of 1e-8 must not count as rounding errors."""
GIB = 1 << 30


class When(StrEnum):
    """When the drift direction is removed from the task gradient."""

    always = "always"
    conflict = "conflict"
    """Only if the task's step would increase the drift: <g_t, g_v> < 0."""


class Scope(StrEnum):
    """The vectors that are projected."""

    tensor = "tensor"
    all = "all"
    """All trainable tensors, concatenated."""


@dataclass
class MDGD(Method):
    """Removes the component of the task gradient along the gradient of visual drift; full fine-tuning only.

    A single forward pass serves both losses. The base's hidden states are cached per picture if memory allows, else
    computed from a copy of the trainable tensors.
    """

    name: str = "mdgd"
    when: When = When.always
    scope: Scope = Scope.tensor
    strength: float = 0.0
    """lambda: weight of gradient descent on the drift."""
    layer: int | None = None
    """Layer whose hidden states are compared: 0 is the first language layer's input, k the k-th layer's output; null
    is the last."""
    precision: Precision | None = Precision.fp32
    """Precision of the forward pass; null takes the recipe's. In bf16 small drifts are lost in rounding and ignored."""
    cache_gb: float = 2.0
    """Memory for the base's hidden states; it changes no result."""

    def copies(self) -> float:
        """The base weights, and the drift's gradient."""
        return 2.0

    def problems(self) -> Mapping[str, str]:
        """Values out of range."""
        problems = {}
        if self.strength < 0:
            problems["strength"] = f"{self.strength} would reward drift; give 0 or more."
        if self.cache_gb < 0:
            problems["cache_gb"] = f"{self.cache_gb} is negative; give 0 or more."
        return problems

    def against_sharding(self) -> str:
        """The base weights are not sharded."""
        return "its drift is measured by a pass with other weights, which slices do not take"

    def forward_precision(self) -> Precision | None:
        """The configured precision; in bf16, rounding alone makes current and base states differ."""
        return self.precision

    def begin(self, context: TrainingContext) -> None:
        """Start measuring the drift from the base's hidden states."""
        from forgetbench.methods.drift import VisualDrift

        if any(".lora_" in name for name in context.trainable):
            raise UserError(f"method={self.name} needs the gradients of the model's own weights; it has no LoRA form.")
        self.drift: VisualDrift = VisualDrift(context, self.layer, int(self.cache_gb * GIB))
        """The drift of this run from the base."""
        self._gradients: dict[str, Tensor] = {}

    def penalty(self, context: TrainingContext, batch: Batch, outputs: Any) -> None:
        """Accumulate the drift's gradient, from the same forward pass as the task's."""
        collect(self._gradients, self.drift.loss(batch), context)

    def edit_gradients(self, context: TrainingContext) -> None:
        """Project the task's gradients."""
        task = {name: parameter.grad for name, parameter in context.trainable.items() if parameter.grad is not None}
        drift = {name: context.passes.total(value) for name, value in self._gradients.items()}
        self._gradients = {}
        project(task, drift, self.when, self.scope, self.strength)


def collect(sums: dict[str, Tensor], loss: Tensor | None, context: TrainingContext, last: bool = False) -> None:
    """Add the gradients of a loss to `sums`; the graph is kept unless this is its last use."""
    import torch

    # All processes must take part in sums, so a tensor without drift has a gradient of zeros.
    for name, parameter in context.trainable.items():
        if name not in sums:
            sums[name] = torch.zeros_like(parameter)
    if loss is None or not loss.requires_grad or not loss.detach():
        return
    gradients = torch.autograd.grad(loss, list(context.trainable.values()), retain_graph=not last, allow_unused=True)
    for name, gradient in zip(context.trainable, gradients, strict=True):
        if gradient is not None:
            sums[name] += gradient


def project(task: Mapping[str, Tensor], drift: Mapping[str, Tensor], when: When, scope: Scope, strength: float) -> None:
    """Remove the drift direction from the task's gradients, in place.

    Args:
        task: g_t by name.
        drift: g_v by name; a name may be missing.
        when: whether to leave gradients unchanged that already lower the drift.
        scope: a projection per tensor, or a single projection over all tensors.
        strength: share of g_v to add.
    """
    names = [name for name in task if name in drift]
    groups = [[name] for name in names] if scope is Scope.tensor else [names]
    for group in groups:
        along = sum(_dot(task[name], drift[name]) for name in group)
        squared_norm = sum(_dot(drift[name], drift[name]) for name in group)
        removed = 0.0 if when is When.conflict and along >= 0 else along / (squared_norm + EPSILON)
        for name in group:
            task[name].add_(drift[name], alpha=strength - removed)


def _dot(a: Tensor, b: Tensor) -> float:
    """Inner product in float64: the result must be orthogonal to 1e-6."""
    return float(a.flatten().double() @ b.flatten().double())
