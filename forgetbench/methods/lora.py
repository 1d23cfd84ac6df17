"""LoRA (Hu et al. 2021, arXiv:2106.09685), through peft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forgetbench.errors import UserError
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
    targets: Any = None
    """Part -> last names of its linear layers, e.g. {language: [q_proj, v_proj]}; a part left out: all of them."""

    def problems(self) -> Mapping[str, str]:
        """Settings that peft would refuse later, or take without a word."""
        found = {}
        if self.rank < 1:
            found["rank"] = f"{self.rank} is too small; give 1 or more."
        if not 0 <= self.dropout < 1:
            found["dropout"] = f"{self.dropout} is not a probability below 1."
        if not self.parts:
            found["parts"] = "empty, so no adapter; list parts, such as [language], or use method=plain."
        if self.targets is not None and not (
            isinstance(self.targets, Mapping) and set(self.targets) <= set(self.parts)
        ):
            found["targets"] = f"{self.targets} must map some of method.parts {self.parts} to lists of layer names."
        return found

    def adapted_parts(self) -> Sequence[str]:
        """The parts that got adapters."""
        return self.parts

    def attach(self, model: Any) -> None:
        """Insert adapters that change nothing until they are trained (B starts at zero)."""
        from peft import LoraConfig, inject_adapter_in_model

        from forgetbench.models.parts import linear_layers

        names = []
        for part in self.parts:
            wanted = set((self.targets or {}).get(part, ()))
            found = linear_layers(model, part, wanted)
            if missing := wanted - {name.rpartition(".")[2] for name in found}:
                known = sorted({name.rpartition(".")[2] for name in linear_layers(model, part)})
                raise UserError(
                    f"method.targets.{part}: no linear layer is named {', '.join(sorted(missing))}; "
                    f"there are {', '.join(known)}."
                )
            names += found
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=names, bias="none"
        )
        # Injection keeps the parameters' own names, where peft's wrapper would prefix them.
        inject_adapter_in_model(config, model)
