"""LoRA (Hu et al. 2021, arXiv:2106.09685), through peft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from forgetbench.methods.base import Method


@dataclass
class LoRA(Method):
    """Low-rank adapters on chosen parts; the parts' own weights stay frozen.

    Parts in `recipe.parts` that are not listed here train in full, so that `parts: [language]` with
    `recipe.parts: [language, projector]` is LoRA on the language model and a fully trained projector.
    """

    name: str = "lora"
    rank: int = 8
    alpha: int = 16
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    parts: list[str] = field(default_factory=lambda: ["language"])
    """Parts that get adapters."""
    targets: dict[str, list[str]] = field(default_factory=dict)
    """Part -> last names of its linear layers, e.g. {language: [q_proj, v_proj]}; a part left out: all of them."""

    def adapted_parts(self) -> Sequence[str]:
        """The parts that got adapters."""
        return self.parts

    def attach(self, model: Any) -> None:
        """Insert adapters that change nothing until they are trained (B starts at zero)."""
        from peft import LoraConfig, inject_adapter_in_model

        from forgetbench.models.parts import linear_layers

        names = [name for part in self.parts for name in linear_layers(model, part, self.targets.get(part, ()))]
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=names, bias="none"
        )
        # Injection keeps the parameters' own names, where peft's wrapper would prefix them.
        inject_adapter_in_model(config, model)
