"""Swap a checkpoint's weights in place: the base is loaded once per process.

A checkpoint's tensors stay fp32 even if the base is held in bf16, which would lose small steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from forgetbench.core.errors import UserError


class WeightSwap:
    """Keeps the base values of every tensor a checkpoint changes, and moves between checkpoints."""

    def __init__(self, model: Any) -> None:
        """Take the model on its base weights, adapters attached."""
        self._live: dict[str, Tensor] = dict(model.named_parameters())
        self._base: dict[str, Tensor] = {}
        self._changed: list[str] = []

    @property
    def base_values(self) -> dict[str, Tensor]:
        """Base values in fp32 of the tensors that the present checkpoint changed, by live name."""
        return {name: self._base[name].float() for name in self._changed}

    @torch.no_grad()
    def to(self, delta: Mapping[str, Tensor]) -> None:
        """Put the model at base + delta, from any checkpoint.

        Args:
            delta: changed tensors by live name, full values; empty for the base.

        Raises:
            UserError: the delta belongs to another model, or holds values that are not finite.
        """
        for name, value in delta.items():
            if name not in self._live or self._live[name].shape != value.shape:
                raise UserError(
                    f"The checkpoint's tensor '{name}' {tuple(value.shape)} does not fit this model; "
                    "was the run made from another one?"
                )
            if not torch.isfinite(value).all():
                raise UserError(
                    f"The checkpoint's tensor '{name}' holds values that are not finite: training diverged before it. "
                    "Score the checkpoints before it (matrix.steps=[...]), and train again at a lower rate."
                )
        for name, value in self._base.items():
            self._live[name].data = value
        for name, value in delta.items():
            live = self._live[name]
            self._base.setdefault(name, live.data)
            live.data = value.to(live.device, torch.float32, copy=True)
        self._changed = list(delta)
