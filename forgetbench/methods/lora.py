"""LoRA (Hu et al. 2021, arXiv:2106.09685) and two variants of it, through peft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forgetbench.core.errors import UserError
from forgetbench.core.part_words import word_problems
from forgetbench.methods.base import Method

if TYPE_CHECKING:
    from peft import LoraConfig

_MOST_RANK = 2**16


@dataclass
class LoRA(Method):
    """Low-rank adapters on chosen parts; the parts' own weights stay frozen.

    Before the first step every variant is the base model to the bit, as B starts at zero. rsLoRA is `rank_stabilised`
    (Kalajdzievski 2023, arXiv:2312.03732), DoRA is `weight_decomposed` (Liu et al. 2024, arXiv:2402.09353).

    Words of `recipe.parts` that are not listed here train in full, so that `parts: [language]` with
    `recipe.parts: [language, projector]` is LoRA on the language model and a fully trained projector; with
    `language.attention` in both places, the linear layers of attention get adapters and the rest stays frozen.
    """

    name: str = "lora"
    rank: int = 8
    alpha: int = 16
    """The update is scaled by alpha / rank, or by alpha / sqrt(rank) if `rank_stabilised`."""
    dropout: float = 0.0
    parts: list[str] = field(default_factory=lambda: ["language"])
    """What gets adapters: parts, or modules and layers of them, in the words of `recipe.parts`."""
    targets: Any = None
    """Word -> last names of its linear layers, e.g. {language: [q_proj, v_proj]}; a word left out: all of them."""
    rank_stabilised: bool = False
    """Keep the update's size as the rank grows."""
    weight_decomposed: bool = False
    """Train the length of each row of the adapted matrix besides; the adapters then turn its direction only."""

    def problems(self) -> Mapping[str, str]:
        """Settings that peft would refuse later, or take without a word."""
        found = {}
        if not 1 <= self.rank <= _MOST_RANK:
            found["rank"] = f"{self.rank} is no rank; give a number from 1 to {_MOST_RANK}."
        if not 0 <= self.dropout < 1:
            found["dropout"] = f"{self.dropout} is not a probability below 1."
        if not self.parts:
            found["parts"] = "empty, so no adapter; list parts, such as [language], or use method=plain."
        if wrong := list(word_problems(self.parts)):
            found["parts"] = wrong[0]
        if self.targets is not None and not (
            isinstance(self.targets, Mapping) and set(self.targets) <= set(self.parts)
        ):
            found["targets"] = f"{self.targets} must map some of method.parts {self.parts} to lists of layer names."
        return found

    def adapted_parts(self) -> Sequence[str]:
        """The words of what got adapters."""
        return self.parts

    def against_sharding(self) -> str:
        """Lengths of rows are taken in the forward pass, which was not tried."""
        return "weight_decomposed was not tried on slices of tensors" if self.weight_decomposed else ""

    def attach(self, model: Any, stages: int) -> None:
        """Insert adapters that change nothing until they are trained."""
        from peft import inject_adapter_in_model

        # Injection keeps the parameters' own names, where peft's wrapper would prefix them.
        inject_adapter_in_model(self.peft_config(self.adapted_layers(model)), model)

    def adapted_layers(self, model: Any) -> list[str]:
        """Full names of the layers that get adapters.

        Raises:
            UserError: a word has no linear layer, or none of a name given in `targets`.
        """
        from forgetbench.models.parts import linear_layers

        names = []
        for part in self.parts:
            wanted = set((self.targets or {}).get(part, ()))
            found = linear_layers(model, part, wanted)
            if not wanted and not found:
                raise UserError(f"method.parts: '{part}' has no linear layer that could get an adapter; leave it out.")
            if missing := wanted - {name.rpartition(".")[2] for name in found}:
                known = sorted({name.rpartition(".")[2] for name in linear_layers(model, part)})
                raise UserError(
                    f"method.targets.{part}: no linear layer is named {', '.join(sorted(missing))}; "
                    f"there are {', '.join(known)}."
                )
            names += found
        return names

    def peft_config(self, layers: list[str]) -> LoraConfig:
        """The settings in peft's words, for these layers."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=layers,
            bias="none",
            use_rslora=self.rank_stabilised,
            use_dora=self.weight_decomposed,
        )
