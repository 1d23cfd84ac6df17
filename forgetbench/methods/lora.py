"""LoRA (Hu et al. 2021, arXiv:2106.09685), rsLoRA and DoRA, through peft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forgetbench.core.errors import UserError
from forgetbench.core.part_words import word_problems
from forgetbench.methods.base import Method

if TYPE_CHECKING:
    from peft import LoraConfig

_MAX_RANK = 2**16


@dataclass
class LoRA(Method):
    """Low-rank adapters on chosen parts; the weights of these parts stay frozen.

    B starts at zero, so before the first step the model is exactly the base model. rsLoRA is `rank_stabilised`
    (Kalajdzievski 2023, arXiv:2312.03732), DoRA is `weight_decomposed` (Liu et al. 2024, arXiv:2402.09353).

    Words of `recipe.parts` that are not in `parts` train in full. For example, `parts: [language]` with
    `recipe.parts: [language, projector]` is LoRA on the language model with a fully trained projector. With
    `language.attention` in both, the linear layers of attention get adapters and all other weights stay frozen.
    """

    name: str = "lora"
    rank: int = 8
    alpha: int = 16
    """The update is scaled by alpha / rank, or by alpha / sqrt(rank) if `rank_stabilised`."""
    dropout: float = 0.0
    parts: list[str] = field(default_factory=lambda: ["language"])
    """Parts, modules or layers that get adapters, in the words of `recipe.parts`."""
    targets: Any = None
    """Word -> last names of its linear layers, such as {language: [q_proj, v_proj]}; by default all linear layers."""
    rank_stabilised: bool = False
    """Keep the size of the update as the rank grows."""
    weight_decomposed: bool = False
    """Also train the length of each row of the adapted matrix; the adapters then change only its direction."""

    def problems(self) -> Mapping[str, str]:
        """Settings that peft would refuse later, or accept without a warning."""
        problems = {}
        if not 1 <= self.rank <= _MAX_RANK:
            problems["rank"] = f"{self.rank} is no rank; give a number from 1 to {_MAX_RANK}."
        if not 0 <= self.dropout < 1:
            problems["dropout"] = f"{self.dropout} is not a probability below 1."
        if not self.parts:
            problems["parts"] = "empty, so no adapter; list parts, such as [language], or use method=plain."
        if part_problems := list(word_problems(self.parts)):
            problems["parts"] = part_problems[0]
        if self.targets is not None and not (
            isinstance(self.targets, Mapping) and set(self.targets) <= set(self.parts)
        ):
            problems["targets"] = f"{self.targets} must map some of method.parts {self.parts} to lists of layer names."
        return problems

    def adapted_parts(self) -> Sequence[str]:
        """The words whose weights get adapters."""
        return self.parts

    def against_sharding(self) -> str:
        """DoRA computes lengths of rows in the forward pass, which was not tested with sharding."""
        return "weight_decomposed was not tried on slices of tensors" if self.weight_decomposed else ""

    def attach(self, model: Any, stages: int) -> None:
        """Insert adapters that change nothing until they are trained."""
        from peft import inject_adapter_in_model

        # Injection keeps the parameter names; peft's wrapper would add a prefix.
        inject_adapter_in_model(self.peft_config(self.adapted_layers(model)), model)

    def adapted_layers(self, model: Any) -> list[str]:
        """Full names of the layers that get adapters.

        Raises:
            UserError: a word covers no linear layer, or no linear layer with a name given in `targets`.
        """
        from forgetbench.models.parts import linear_layers

        names = []
        for part in self.parts:
            last_names = set((self.targets or {}).get(part, ()))
            layers = linear_layers(model, part, last_names)
            if not last_names and not layers:
                raise UserError(f"method.parts: '{part}' has no linear layer that could get an adapter; leave it out.")
            if missing := last_names - {name.rpartition(".")[2] for name in layers}:
                available = sorted({name.rpartition(".")[2] for name in linear_layers(model, part)})
                raise UserError(
                    f"method.targets.{part}: no linear layer is named {', '.join(sorted(missing))}; "
                    f"there are {', '.join(available)}."
                )
            names += layers
        return names

    def peft_config(self, layers: list[str]) -> LoraConfig:
        """The configuration of peft for adapters on these layers."""
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
