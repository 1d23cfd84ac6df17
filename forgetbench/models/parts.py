"""Sort every parameter of any supported family into vision, projector or language, and choose what trains.

One set of three expressions covers most families of transformers 5.23 (LLaVA, Qwen-VL, InternVL, PaliGemma, Gemma3,
Idefics3, SmolVLM, Mllama, MiniCPM-V, GLM-4V, ...; docs/models.md has the table). Judgement calls: `image_newline`,
Qwen3-VL's deepstack mergers, MiniCPM's vit_merger and GLM's downsample count as projector.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetbench.core.errors import UserError
from forgetbench.core.records import PARTS

if TYPE_CHECKING:
    from torch import nn

_PATTERNS = {
    "vision": re.compile(
        r"model\.(vision_tower|vision_model|visual)\.(?!merger\.|deepstack_merger_list\.|vit_merger\.|downsample\.)"
    ),
    "projector": re.compile(
        r"model\.(multi_modal_projector\.|connector\.|merger\.|image_newline$"
        r"|(visual|vision_tower)\.(merger|deepstack_merger_list|vit_merger|downsample)\.)"
    ),
    "language": re.compile(r"(model\.(language_model|text_model)\.|lm_head\.)"),
}
_LAYER = re.compile(r"model\.(?:language_model|text_model)\.layers\.(\d+)\.")


@dataclass(frozen=True)
class PartCount:
    """Parameters of one part."""

    part: str
    total: int
    trainable: int


@dataclass(frozen=True)
class TrainableAudit:
    """What really trains, read from the model after it was prepared."""

    parts: tuple[PartCount, ...]
    names: tuple[str, ...]

    @property
    def label(self) -> str:
        """Trained parts joined by '+', e.g. `projector+language`."""
        return "+".join(count.part for count in self.parts if count.trainable)

    @property
    def trainable(self) -> int:
        """Number of trainable parameters."""
        return sum(count.trainable for count in self.parts)

    @property
    def total(self) -> int:
        """Number of parameters."""
        return sum(count.total for count in self.parts)


def part_of(name: str) -> str:
    """The part a live parameter name belongs to (never a name as stored on disk: those differ).

    Raises:
        UserError: the model's family is not covered.
    """
    for part, pattern in _PATTERNS.items():
        if pattern.match(name):
            return part
    raise UserError(
        f"Parameter '{name}' belongs to no known part; add the model's prefix to forgetbench/models/parts.py."
    )


def choose_trainable(model: nn.Module, parts: Iterable[str], last_layers: int | None = None) -> None:
    """Freeze everything, then free the named parts.

    Args:
        model: any supported model.
        parts: some of `vision`, `projector`, `language`.
        last_layers: of `language`, free only the last k layers (not embeddings, final norm or head).
    """
    wanted = set(parts)
    n_layers = language_layers(model)
    if last_layers is not None and last_layers > n_layers:
        raise UserError(f"recipe.language_last_layers={last_layers}, but the language model has {n_layers} layers.")
    # Without removal of duplicates a tied head is seen under both names; tied tensors are one parameter.
    for name, parameter in model.named_parameters(remove_duplicate=False):
        free = part_of(name) in wanted
        if free and last_layers is not None and part_of(name) == "language":
            layer = _LAYER.match(name)
            free = layer is not None and int(layer[1]) >= n_layers - last_layers
        parameter.requires_grad_(free and parameter.is_floating_point())  # packed 4-bit weights stay frozen


def language_layers(model: nn.Module) -> int:
    """Number of transformer layers of the language model."""
    found = [int(match[1]) for name, _ in model.named_parameters() if (match := _LAYER.match(name))]
    return max(found, default=-1) + 1


def linear_layers(model: nn.Module, part: str, suffixes: Iterable[str] = ()) -> list[str]:
    """Full names of a part's linear layers, all or those with one of the given last names.

    Anchored at the part: bare suffixes such as `up_proj` would also hit Qwen2.5-VL's vision tower. The output head
    is left out, as is usual for adapters.
    """
    from torch import nn

    wanted = set(suffixes)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name != "lm_head"
        and part_of(name + ".") == part
        and (not wanted or name.rpartition(".")[2] in wanted)
    ]


def audit(model: nn.Module) -> TrainableAudit:
    """Count parameters and trainable parameters by part, and list the trainable names."""
    total = dict.fromkeys(PARTS, 0)
    trainable = dict.fromkeys(PARTS, 0)
    names = []
    for name, parameter in model.named_parameters():
        part = part_of(name)
        total[part] += parameter.numel() * (1 if parameter.is_floating_point() else 2)  # 4-bit: two to a byte
        if parameter.requires_grad:
            trainable[part] += parameter.numel()
            names.append(name)
    return TrainableAudit(tuple(PartCount(part, total[part], trainable[part]) for part in PARTS), tuple(names))
