"""Linear layers with several LoRA experts, and the gates that weigh the experts.

Shapes: B items, T tokens, D inputs of a layer, O outputs, E experts, R rank of an expert, N = E R.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgetbench.core.errors import UserError
from forgetbench.models.parts import part_of

if TYPE_CHECKING:
    from forgetbench.methods.lora import LoRA


class ExpertLinear(nn.Module):
    """y = base(x) + scale sum_e g_e B_e A_e x, with gates g that a subclass computes.

    As in LoRA, A starts Kaiming-uniform and B at zero, so that before training y is exactly base(x).
    """

    def __init__(self, base_layer: nn.Linear, experts: int, rank: int, scale: float, dropout: float) -> None:
        """Wrap a layer and freeze its weights.

        Args:
            base_layer: D inputs, O outputs.
            experts: E.
            rank: R.
            scale: factor of the sum.
            dropout: dropout rate of the experts' inputs.
        """
        super().__init__()
        weight_OD = base_layer.weight
        self.base_layer = base_layer.requires_grad_(False)
        self.lora_A = nn.ParameterList(_kaiming_uniform(rank, weight_OD) for _ in range(experts))
        """E times (R, D)."""
        self.lora_B = nn.ParameterList(weight_OD.new_zeros(len(weight_OD), rank) for _ in range(experts))
        """E times (O, R)."""
        self.dropout = nn.Dropout(dropout)
        self._rank, self._scale = rank, scale

    @property
    def weight(self) -> Tensor:
        """The wrapped layer's weight: some model families read the dtype of a layer's weight."""
        return self.base_layer.weight

    def gates(self, x_D: Tensor) -> Tensor | None:
        """The experts' weights for these inputs (..., E); None if all experts are off."""
        raise NotImplementedError

    def forward(self, x_D: Tensor) -> Tensor:
        """Apply the layer to inputs of any leading shape; a single pair of matrix products computes all experts."""
        y_O: Tensor = self.base_layer(x_D)
        gates_E = self.gates(x_D)
        if gates_E is None:
            return y_O
        a_ND, b_ON = torch.cat(tuple(self.lora_A)), torch.cat(tuple(self.lora_B), dim=1)
        inner_N = F.linear(self.dropout(x_D), a_ND) * gates_E.repeat_interleave(self._rank, dim=-1)
        return y_O + self._scale * F.linear(inner_N, b_ON)


class TokenRoutedLinear(ExpertLinear):
    """Gates are softmax(W x) of the layer's input x, per token."""

    def __init__(self, base_layer: nn.Linear, experts: int, rank: int, scale: float, dropout: float) -> None:
        """As for ExpertLinear."""
        super().__init__(base_layer, experts, rank, scale, dropout)
        self.router = _kaiming_uniform(experts, base_layer.weight)
        """W (E, D), without a bias."""

    def gates(self, x_D: Tensor) -> Tensor:
        """The gates per token (..., E): positive, with sum 1."""
        return F.linear(x_D, self.router).softmax(-1)


class ExpertSelection:
    """The gates that all item-routed layers of a model share."""

    gates: Tensor | None = None
    """(E) for all items, or (B, E); None turns every expert off."""


class ItemRoutedLinear(ExpertLinear):
    """All tokens of an item have the item's gates, which `selection` holds."""

    selection: ExpertSelection

    def gates(self, x_D: Tensor) -> Tensor | None:
        """(E), or (B, 1, E) for inputs (B, T, D)."""
        gates = self.selection.gates
        if gates is None or gates.ndim == 1:
            return gates
        if len(x_D) != len(gates):
            raise UserError("A layer with experts sees tokens without their items; leave it out of method.targets.")
        return gates.reshape(len(gates), *[1] * (x_D.ndim - 2), -1)


def insert_experts(model: Any, method: LoRA, experts: int, kind: Callable[..., ExpertLinear]) -> None:
    """Replace the layers that a method adapts by layers with experts.

    Args:
        model: any supported model.
        method: determines the layers and the experts' rank, scale and dropout.
        experts: E.
        kind: class of the new layers.
    """
    scale = method.alpha / (method.rank**0.5 if method.rank_stabilised else method.rank)
    for name in method.adapted_layers(model):
        layer = kind(model.get_submodule(name), experts, method.rank, scale, method.dropout)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)


def expert_parts(model: Any) -> set[str]:
    """Parts with experts; experts depend on the input, so they cannot be merged into weights."""
    return {part_of(f"{name}.") for name, module in model.named_modules() if isinstance(module, ExpertLinear)}


def _kaiming_uniform(rows: int, like_OD: Tensor) -> nn.Parameter:
    """(rows, D), drawn like A in LoRA and like torch's weights of linear layers."""
    values = torch.empty(rows, like_OD.shape[1])  # in main memory: the same numbers on every device
    nn.init.kaiming_uniform_(values, a=math.sqrt(5))
    return nn.Parameter(values.to(like_OD))
