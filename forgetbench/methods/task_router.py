"""A router over LoRA experts that decides once per item, from its prompt alone.

Shapes: B items, T tokens, D hidden size, E experts, K known tasks, n items of one task and N of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgetbench.methods.experts import ExpertSelection
from forgetbench.models.hidden import hidden_states

SHRINKAGE = 0.1
"""Of correlations towards 0: there are fewer items than dimensions."""
FLOOR = 1e-6
"""Added to a dimension's variance, in units of the average one: a dimension that is constant must not decide alone."""


class TaskRouter(nn.Module):
    """Picks each item's expert by the base's hidden states, averaged over its prompt's tokens.

    Linear discriminant analysis (Fisher 1936) with equal priors: the known task with the largest
    W_e h + b_e, W_e = C^-1 m_e, b_e = -m_e C^-1 m_e / 2, m_e a task's mean state. C is the covariance within tasks, its
    correlations shrunk by SHRINKAGE (Friedman 1989). While no task is known, every expert is off.
    """

    def __init__(self, experts: int, width: int, layer: int) -> None:
        """Know no task.

        Args:
            experts: E, one per task.
            width: D.
            layer: whose output is looked at, as in `models.hidden`.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(experts, width), requires_grad=False)
        """W (E, D)."""
        self.bias = nn.Parameter(torch.zeros(experts), requires_grad=False)
        """b (E)."""
        self.known = nn.Parameter(torch.zeros(experts), requires_grad=False)
        """(E): 1 for tasks seen so far, else 0."""
        self.selection, self._layer = ExpertSelection(), layer
        self._decided_BE: Tensor | None = None

    def states(self, model: Any, run: Callable[[], Any], mask_BT: Tensor) -> Tensor:
        """What the base makes of B prompts (B, D).

        Args:
            model: in evaluation mode; its experts are switched off, and stay so.
            run: makes one forward pass of it, in which the prompts come first.
            mask_BT: 0 at padding.
        """
        self.selection.gates = None
        with hidden_states(model, [self._layer]) as found_BTD:
            run()
        states_BTD = found_BTD[self._layer][:, : mask_BT.shape[1]].float()
        mask_BT = mask_BT.to(states_BTD.device)
        return states_BTD.masked_fill(mask_BT[..., None] == 0, 0).sum(1) / mask_BT.sum(1, keepdim=True)

    @torch.no_grad()
    def fit(self, tasks: Sequence[Tensor]) -> None:
        """Know the first tasks, and no others.

        Args:
            tasks: hidden states (n, D) of some training items of each.
        """
        weight_KD, bias_K = discriminants([states_ND.double() for states_ND in tasks])
        for parameter, value in ((self.weight, weight_KD), (self.bias, bias_K), (self.known, torch.ones(len(tasks)))):
            parameter.zero_()
            parameter[: len(tasks)].copy_(value)

    def pick(self, states_BD: Tensor) -> Tensor:
        """The expert (B) of each item, of the known ones."""
        # No matrix product: under autocast it would round to bf16.
        scores_BE = (states_BD[:, None] * self.weight).sum(-1) + self.bias
        return scores_BE.masked_fill(self.known == 0, -math.inf).argmax(-1)

    def set_expert(self, expert: int) -> None:
        """Use one expert for all items from now on."""
        self.selection.gates = F.one_hot(torch.tensor(expert), len(self.known)).to(self.weight)

    def decide(self, model: Any, run: Callable[[], Any], mask_BT: Tensor) -> None:
        """Use for each item the expert that its prompt asks for, from now on.

        Args:
            model: in evaluation mode.
            run: makes one forward pass of it over B prompts.
            mask_BT: 0 at padding.
        """
        self._decided_BE = self.selection.gates = None
        if self.known.any():
            picked_B = self.pick(self.states(model, run, mask_BT))
            self._decided_BE = self.selection.gates = F.one_hot(picked_B, len(self.known)).to(self.weight)

    def select(self, rows: Sequence[int]) -> None:
        """Say which of the decided items the rows of the coming passes belong to."""
        if self._decided_BE is not None:
            self.selection.gates = self._decided_BE[list(rows)]


def task_router(model: Any) -> TaskRouter | None:
    """What picks an expert per item; None in models without."""
    return next((one for one in model.modules() if isinstance(one, TaskRouter)), None)


def discriminants(tasks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Weights (K, D) and biases (K) of linear discriminant analysis, in the precision of the states.

    With x = (h - centre) / sd, the residuals R (N, D) of all items from their task's mean and s = SHRINKAGE, C is
    (1 - s) R^T R / N + s I; its inverse takes no more than N x N, by Woodbury's identity.

    Args:
        tasks: states (n, D) of each.
    """
    means_KD = torch.stack([states_ND.mean(0) for states_ND in tasks])
    residuals_ND = torch.cat([states_ND - mean_D for states_ND, mean_D in zip(tasks, means_KD, strict=True)])
    variance_D = residuals_ND.square().mean(0)
    average = variance_D.mean()
    sd_D = (variance_D + FLOOR * average).sqrt() if average else torch.ones_like(variance_D)
    centre_D = means_KD.mean(0)
    m_KD, r_ND = (means_KD - centre_D) / sd_D, residuals_ND / sd_D
    ridge = len(r_ND) * SHRINKAGE / (1 - SHRINKAGE)
    inner_NN = r_ND @ r_ND.T + ridge * torch.eye(len(r_ND), dtype=r_ND.dtype, device=r_ND.device)
    solved_KD = (m_KD - torch.linalg.solve(inner_NN, r_ND @ m_KD.T).T @ r_ND) / SHRINKAGE
    weight_KD = solved_KD / sd_D
    return weight_KD, -(solved_KD * m_KD).sum(-1) / 2 - weight_KD @ centre_D
