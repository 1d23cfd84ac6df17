"""MDGD-GM: gradient masking (arXiv:2502.11740), reconstructed: only the most important entries are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgetbench.methods.base import Batch, TrainingContext
from forgetbench.methods.mdgd import MDGD, collect, project

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class MDGDGM(MDGD):
    """Scores every entry by |g~| over a few batches, then trains the top share of each tensor on g_t.

    The other entries stay unchanged, bit for bit, and the optimiser has state only for the chosen entries. At the
    starting weights there is no drift, so g~ is g_t and the score is the size of the task gradient.
    """

    name: str = "mdgd_gm"
    density: float = 0.1
    """rho: share of each tensor's entries that are trained."""
    batches: int = 8
    """K: number of optimiser steps whose batches the score is summed over; no step is taken."""

    def copies(self) -> float:
        """The base weights, and a byte per weight for the choice of entries."""
        return 1.25

    def problems(self) -> Mapping[str, str]:
        """Values out of range."""
        problems = dict(super().problems())
        if not 0 < self.density <= 1:
            problems["density"] = f"{self.density} is not a share; give a number above 0, up to 1."
        if self.batches < 1:
            problems["batches"] = f"{self.batches} is too small; give 1 or more."
        return problems

    def begin(self, context: TrainingContext) -> None:
        """Score and choose entries; create the compact tensors that the optimiser updates."""
        from torch import nn

        super().begin(context)
        self._chosen = {name: _top_places(score, self.density) for name, score in self._scores(context).items()}
        self._compact = {
            name: nn.Parameter(parameter.detach().flatten()[self._chosen[name]])
            for name, parameter in context.trainable.items()
        }
        self.drift.close()

    def optimised(self, context: TrainingContext) -> Mapping[str, nn.Parameter]:
        """The compact tensors of the parameters that the stage trains."""
        return {name: self._compact[name] for name in context.trainable}

    def penalty(self, context: TrainingContext, batch: Batch, outputs: Any) -> None:
        """No penalty: after scoring, only the task's gradient is used."""

    def edit_gradients(self, context: TrainingContext) -> None:
        """Copy the chosen entries' gradients to the compact tensors, and free the full gradients."""
        for name, parameter in context.trainable.items():
            if parameter.grad is not None:
                self._compact[name].grad = parameter.grad.flatten()[self._chosen[name]]
                parameter.grad = None

    def edit_weights(self, context: TrainingContext) -> None:
        """Copy the compact tensors back to the chosen entries."""
        for name, parameter in context.trainable.items():
            parameter.data.view(-1)[self._chosen[name]] = self._compact[name].detach()

    def state(self) -> dict[str, Tensor]:
        """The places of the chosen entries."""
        return self._chosen

    def load_state(self, context: TrainingContext, state: Mapping[str, Tensor]) -> None:
        """Restore the choice of entries, with the restored weights."""
        device = next(iter(context.trainable.values())).device
        self._chosen = {name: chosen.to(device) for name, chosen in state.items()}
        for name, parameter in context.trainable.items():
            self._compact[name].data.copy_(parameter.detach().flatten()[self._chosen[name]])

    def _scores(self, context: TrainingContext) -> dict[str, Tensor]:
        """Sum of |g~| over the batches, by name."""
        import torch

        passes = context.passes
        scores = {name: torch.zeros_like(parameter) for name, parameter in context.trainable.items()}
        for batches in passes.upcoming(self.batches):
            task: dict[str, Tensor] = {}
            drift: dict[str, Tensor] = {}
            for batch in batches:
                outputs = passes.forward(batch)
                collect(drift, self.drift.loss(batch), context)
                collect(task, passes.loss(batch, outputs) / batch.answers, context, last=True)
            task = {name: passes.total(value) for name, value in task.items()}
            drift = {name: passes.total(value) for name, value in drift.items()}
            project(task, drift, self.when, self.scope, self.strength)
            for name, gradient in task.items():
                scores[name] += gradient.abs()
        return scores


def _top_places(score: Tensor, density: float) -> Tensor:
    """Places of the highest scores of a flattened tensor, ascending; at least one."""
    count = max(1, round(density * score.numel()))
    return score.flatten().topk(count).indices.sort().values
