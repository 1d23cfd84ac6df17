"""Sort every parameter of any supported family into vision, projector or language, and choose what trains.

One set of three expressions covers most families of transformers 5.23 (LLaVA, Qwen-VL, InternVL, PaliGemma, Gemma3,
Idefics3, SmolVLM, Mllama, MiniCPM-V, GLM-4V, ...; docs/models.md has the table). Judgement calls: `image_newline`,
Qwen3-VL's deepstack mergers, MiniCPM's vit_merger and GLM's downsample count as projector. Modules of parts are told
apart in `forgetbench/models/modules.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetbench.core.errors import UserError
from forgetbench.core.part_words import MODULES, PartWord, merge_words, part_word
from forgetbench.core.records import PARTS
from forgetbench.models.modules import layer_of, module_of, stack_of

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


@dataclass(frozen=True)
class PartCount:
    """Parameters of one part, or of what one word covers."""

    part: str
    total: int
    trainable: int


@dataclass(frozen=True)
class TrainableAudit:
    """What really trains, read from the model after it was prepared."""

    parts: tuple[PartCount, ...]
    names: tuple[str, ...]
    words: tuple[PartCount, ...] = ()
    """What recipes name, where that is finer than parts."""

    @property
    def label(self) -> str:
        """What trains, joined by '+', e.g. `projector+language` or `language.attention`."""
        return "+".join(count.part for count in self.words or self.parts if count.trainable)

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


def covers(word: PartWord, name: str) -> bool:
    """Whether a word covers the parameter of a live name; adapters belong where their layer does."""
    if part_of(name) != word.part:
        return False
    if word.layers:
        layer = layer_of(name)
        if layer is None or not word.layers[0] <= layer <= word.layers[1]:
            return False
    return word.module is None or module_of(name, word.part) in word.modules


def word_of(name: str, words: Iterable[str]) -> str | None:
    """The word among some that covers a parameter; None if none does."""
    return next((word for word in words if covers(part_word(word), name)), None)


def choose_trainable(model: nn.Module, words: Iterable[str], last_layers: int | None = None) -> None:
    """Freeze everything, then free what the words cover.

    Args:
        model: any supported model.
        words: parts, or modules and layers of them.
        last_layers: of `language`, free only the last k layers (not embeddings, final norm or head).

    Raises:
        UserError: a word covers nothing here.
    """
    wanted = [part_word(word) for word in words]
    n_layers = language_layers(model)
    if last_layers is not None and last_layers > n_layers:
        raise UserError(f"recipe.language_last_layers={last_layers}, but the language model has {n_layers} layers.")
    names = [name for name, _ in model.named_parameters()]
    for word in wanted:
        _check_covers(model, word, [name for name in names if part_of(name) == word.part])
    for name, parameter in model.named_parameters():  # tied tensors are one, under the embeddings' name
        free = any(covers(word, name) for word in wanted)
        if free and last_layers is not None and part_of(name) == "language":
            layer = layer_of(name)
            free = layer is not None and layer >= n_layers - last_layers
        parameter.requires_grad_(free and parameter.is_floating_point())  # packed 4-bit weights stay frozen


def _check_covers(model: nn.Module, word: PartWord, names: Sequence[str]) -> None:
    """Refuse a word that this model has nothing for; whole parts are looked at when it is known what trains."""
    if word.layers:
        _check_layers(word, names)
    if word.module is None:
        return
    if unknown := [name for name in names if module_of(name, word.part) is None]:
        raise UserError(
            f"recipe.parts: '{word}': of this model's {word.part} part, '{unknown[0]}' belongs to no known module, so "
            f"what '{word}' covers is open; train {word.part}, or add the name to forgetbench/models/modules.py."
        )
    if any(covers(word, name) for name in names):
        return
    tied = dict(model.named_parameters(remove_duplicate=False)).keys() - set(names)
    if any(covers(word, name) for name in tied):
        raise UserError(
            f"recipe.parts: '{word}': this model's head is the same tensor as its embeddings; "
            f"{word.part}.embeddings trains both."
        )
    raise UserError(
        f"recipe.parts: '{word}': this model has no such module; its {word.part} part has {_listed(word, names)}."
    )


def _check_layers(word: PartWord, names: Sequence[str]) -> None:
    assert word.layers
    found = {layer for name in names if (layer := layer_of(name)) is not None}
    if len({stack_of(name) for name in names} - {None}) > 1:
        raise UserError(
            f"recipe.parts: '{word}': this model's {word.part} part has several stacks of layers; name modules instead."
        )
    if word.layers[1] >= len(found):
        raise UserError(
            f"recipe.parts: '{word}': this model's {word.part} part has {len(found)} layers, from 0 to "
            f"{len(found) - 1}."
        )


def _listed(word: PartWord, names: Sequence[str]) -> str:
    """Modules of a part that are there, as words."""
    made = [PartWord(word.part, module) for module in MODULES[word.part]]
    return ", ".join(str(one) for one in made if any(covers(one, name) for name in names))


def language_layers(model: nn.Module) -> int:
    """Number of transformer layers of the language model."""
    names = (name for name, _ in model.named_parameters() if part_of(name) == "language")
    return max((layer for name in names if (layer := layer_of(name)) is not None), default=-1) + 1


def linear_layers(model: nn.Module, word: str, suffixes: Iterable[str] = ()) -> list[str]:
    """Full names of the linear layers that a word covers, all or those with one of the given last names.

    Anchored at the part: bare suffixes such as `up_proj` would also hit Qwen2.5-VL's vision tower. The output head
    is left out, as is usual for adapters.
    """
    from torch import nn

    wanted, place = set(suffixes), part_word(word)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name != "lm_head"
        and covers(place, f"{name}.weight")
        and (not wanted or name.rpartition(".")[2] in wanted)
    ]


def audit(model: nn.Module, words: Iterable[str] = PARTS) -> TrainableAudit:
    """Count parameters and trainable parameters by part, and list the trainable names.

    Args:
        model: any supported model.
        words: what recipes train; they are counted too where they are finer than parts.
    """
    named = merge_words(words)
    finer = named if set(named) - set(PARTS) else []
    total, trainable = dict.fromkeys((*PARTS, *finer), 0), dict.fromkeys((*PARTS, *finer), 0)
    names = []
    for name, parameter in model.named_parameters():
        counted = {part_of(name), *(word for word in finer if covers(part_word(word), name))}
        size = parameter.numel() * (1 if parameter.is_floating_point() else 2)  # 4-bit: two to a byte
        for word in counted:
            total[word] += size
            trainable[word] += parameter.numel() if parameter.requires_grad else 0
        if parameter.requires_grad:
            names.append(name)
    made = {word: PartCount(word, total[word], trainable[word]) for word in total}
    return TrainableAudit(tuple(made[part] for part in PARTS), tuple(names), tuple(made[word] for word in finer))


def module_counts(model: nn.Module) -> list[PartCount]:
    """Parameters by module, in the order of parts, which they sum up to; no word covers `<part>.(unnamed)`."""
    sizes: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        module = f"{part}.{module_of(name, part) or '(unnamed)'}"
        sizes[module] = sizes.get(module, 0) + parameter.numel() * (1 if parameter.is_floating_point() else 2)
    places = [f"{part}.{module}" for part in PARTS for module in (*MODULES[part], "(unnamed)")]
    return [PartCount(place, sizes[place], 0) for place in places if place in sizes]
