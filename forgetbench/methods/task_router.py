"""A router over LoRA experts that picks an expert per item, from the item's prompt.

Shapes: B items, T tokens, D hidden size, E experts, K known tasks, n items of a task and N of all tasks.
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
"""Shrinkage of correlations towards 0, because there are fewer items than dimensions."""
FLOOR = 1e-6
"""Added to each dimension's variance, in units of the average variance, so that constant dimensions do not dominate."""


class TaskRouter(nn.Module):
    """Picks each item's expert by the base's hidden states, averaged over the prompt's tokens.

    Linear discriminant analysis (Fisher 1936) with equal priors picks the known task with the largest W_e h + b_e,
    where W_e = C^-1 m_e, b_e = -m_e C^-1 m_e / 2, and m_e is the task's mean state. C is the covariance within tasks,
    with correlations shrunk by SHRINKAGE (Friedman 1989). While no task is known, all experts are off.
    """

    def __init__(self, experts: int, width: int, layer: int) -> None:
        """Create a router without tasks.

        Args:
            experts: E, one expert per task.
            width: D.
            layer: layer whose hidden states are read, as in `models.hidden`.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(experts, width), requires_grad=False)
        """W (E, D)."""
        self.bias = nn.Parameter(torch.zeros(experts), requires_grad=False)
        """b (E)."""
        self.known = nn.Parameter(torch.zeros(experts), requires_grad=False)
        """(E): 1 for known tasks, else 0."""
        self.selection, self._layer = ExpertSelection(), layer
        self._decided_BE: Tensor | None = None

    def states(self, model: Any, run: Callable[[], Any], mask_BT: Tensor) -> Tensor:
        """The base's mean hidden states (B, D) of B prompts.

        Args:
            model: in evaluation mode; its experts are switched off and stay off.
            run: makes a forward pass in which the prompts come first.
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
        """Fit the router on the first tasks; only these are known afterwards.

        Args:
            tasks: for each task, hidden states (n, D) of training items.
        """
        weight_KD, bias_K = discriminants([states_ND.double() for states_ND in tasks])
        for parameter, value in ((self.weight, weight_KD), (self.bias, bias_K), (self.known, torch.ones(len(tasks)))):
            parameter.zero_()
            parameter[: len(tasks)].copy_(value)

    def pick(self, states_BD: Tensor) -> Tensor:
        """The expert (B) of each item, among the experts of known tasks."""
        # No matrix product: under autocast it would round to bf16.
        scores_BE = (states_BD[:, None] * self.weight).sum(-1) + self.bias
        return scores_BE.masked_fill(self.known == 0, -math.inf).argmax(-1)

    def set_expert(self, expert: int) -> None:
        """Use the same expert for all items in the following passes."""
        self.selection.gates = F.one_hot(torch.tensor(expert), len(self.known)).to(self.weight)

    def decide(self, model: Any, run: Callable[[], Any], mask_BT: Tensor) -> None:
        """Pick each item's expert from its prompt, and use it in the following passes.

        Args:
            model: in evaluation mode.
            run: makes a forward pass over B prompts.
            mask_BT: 0 at padding.
        """
        self._decided_BE = self.selection.gates = None
        if self.known.any():
            picked_B = self.pick(self.states(model, run, mask_BT))
            self._decided_BE = self.selection.gates = F.one_hot(picked_B, len(self.known)).to(self.weight)

    def select(self, rows: Sequence[int]) -> None:
        """Set, for the following passes, which item of the last `decide` each row belongs to."""
        if self._decided_BE is not None:
            self.selection.gates = self._decided_BE[list(rows)]


def task_router(model: Any) -> TaskRouter | None:
    """The task router of a model; None if it has none."""
    return next((module for module in model.modules() if isinstance(module, TaskRouter)), None)


def discriminants(tasks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Weights (K, D) and biases (K) of linear discriminant analysis, in the precision of the states.

    With x = (h - centre) / sd, the residuals R (N, D) of all items from their task's mean and s = SHRINKAGE, C is
    (1 - s) R^T R / N + s I; its inverse takes no more than N x N, by Woodbury's identity.

    Args:
        tasks: states (n, D) of each task.
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
