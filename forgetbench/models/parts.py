"""Assign every parameter of any supported family to vision, projector or language, and choose which parameters train.

Three regular expressions cover most families of transformers 5.23 (LLaVA, Qwen-VL, InternVL, PaliGemma, Gemma3,
Idefics3, SmolVLM, Mllama, MiniCPM-V, GLM-4V, ...; docs/models.md has the table). By choice, `image_newline`, Qwen3-VL's
deepstack mergers, MiniCPM's vit_merger and GLM's downsample belong to the projector.
`forgetbench/models/modules.py` divides parts into modules.
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
    """Number of parameters of a part, or of the modules and layers that a word covers."""

    part: str
    total: int
    trainable: int


@dataclass(frozen=True)
class TrainableAudit:
    """The parameters that train, read from the prepared model."""

    parts: tuple[PartCount, ...]
    names: tuple[str, ...]
    words: tuple[PartCount, ...] = ()
    """Counts by the words of the recipes, if these are finer than parts."""

    @property
    def label(self) -> str:
        """The trained parts or words, joined by '+', such as `projector+language` or `language.attention`."""
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
    """The part of a parameter, by its name in the loaded model (names in stored files differ).

    Raises:
        UserError: the model's family is not supported.
    """
    for part, pattern in _PATTERNS.items():
        if pattern.match(name):
            return part
    raise UserError(
        f"Parameter '{name}' belongs to no known part; add the model's prefix to forgetbench/models/parts.py."
    )


def covers(word: PartWord, name: str) -> bool:
    """Whether a word covers a parameter, by its name in the loaded model; an adapter belongs to its layer's part."""
    if part_of(name) != word.part:
        return False
    if word.layers:
        layer = layer_of(name)
        if layer is None or not word.layers[0] <= layer <= word.layers[1]:
            return False
    return word.module is None or module_of(name, word.part) in word.modules


def word_of(name: str, words: Iterable[str]) -> str | None:
    """The first of the words that covers a parameter; None if none does."""
    return next((word for word in words if covers(part_word(word), name)), None)


def choose_trainable(model: nn.Module, words: Iterable[str], last_layers: int | None = None) -> None:
    """Freeze all parameters, then unfreeze the parameters that the words cover.

    Args:
        model: any supported model.
        words: parts, or modules and layers of parts.
        last_layers: of `language`, unfreeze only the last k layers (not embeddings, final norm or head).

    Raises:
        UserError: a word covers no parameter of this model.
    """
    wanted = [part_word(word) for word in words]
    n_layers = language_layers(model)
    if last_layers is not None and last_layers > n_layers:
        raise UserError(f"recipe.language_last_layers={last_layers}, but the language model has {n_layers} layers.")
    names = [name for name, _ in model.named_parameters()]
    for word in wanted:
        _check_covers(model, word, [name for name in names if part_of(name) == word.part])
    for name, parameter in model.named_parameters():  # tied tensors appear once, under the embeddings' name
        trains = any(covers(word, name) for word in wanted)
        if trains and last_layers is not None and part_of(name) == "language":
            layer = layer_of(name)
            trains = layer is not None and layer >= n_layers - last_layers
        parameter.requires_grad_(trains and parameter.is_floating_point())  # packed 4-bit weights stay frozen


def _check_covers(model: nn.Module, word: PartWord, names: Sequence[str]) -> None:
    """Refuse a word that covers no parameter of this model; whole parts are checked later, when training is set up."""
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
        f"recipe.parts: '{word}': this model has no such module; its {word.part} part has "
        f"{_modules_present(word, names)}."
    )


def _check_layers(word: PartWord, names: Sequence[str]) -> None:
    assert word.layers
    layers = {layer for name in names if (layer := layer_of(name)) is not None}
    if len({stack_of(name) for name in names} - {None}) > 1:
        raise UserError(
            f"recipe.parts: '{word}': this model's {word.part} part has several stacks of layers; name modules instead."
        )
    if word.layers[1] >= len(layers):
        raise UserError(
            f"recipe.parts: '{word}': this model's {word.part} part has {len(layers)} layers, from 0 to "
            f"{len(layers) - 1}."
        )


def _modules_present(word: PartWord, names: Sequence[str]) -> str:
    """The modules that a part of this model has, as words."""
    module_words = [PartWord(word.part, module) for module in MODULES[word.part]]
    return ", ".join(
        str(word_of_module) for word_of_module in module_words if any(covers(word_of_module, name) for name in names)
    )


def language_layers(model: nn.Module) -> int:
    """Number of transformer layers of the language model."""
    names = (name for name, _ in model.named_parameters() if part_of(name) == "language")
    return max((layer for name in names if (layer := layer_of(name)) is not None), default=-1) + 1


def linear_layers(model: nn.Module, word: str, suffixes: Iterable[str] = ()) -> list[str]:
    """Full names of the linear layers that a word covers, optionally only those with a last name in `suffixes`.

    Matching includes the part, because suffixes such as `up_proj` also occur in Qwen2.5-VL's vision tower. The output
    head is left out, as is usual for adapters.
    """
    from torch import nn

    last_names, parsed = set(suffixes), part_word(word)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name != "lm_head"
        and covers(parsed, f"{name}.weight")
        and (not last_names or name.rpartition(".")[2] in last_names)
    ]


def audit(model: nn.Module, words: Iterable[str] = PARTS) -> TrainableAudit:
    """Count parameters and trainable parameters by part, and list the trainable names.

    Args:
        model: any supported model.
        words: the words of the recipes; those finer than parts are counted, too.
    """
    recipe_words = merge_words(words)
    finer = recipe_words if set(recipe_words) - set(PARTS) else []
    total, trainable = dict.fromkeys((*PARTS, *finer), 0), dict.fromkeys((*PARTS, *finer), 0)
    names = []
    for name, parameter in model.named_parameters():
        words_of_parameter = {part_of(name), *(word for word in finer if covers(part_word(word), name))}
        size = parameter.numel() * (1 if parameter.is_floating_point() else 2)  # 4-bit: two to a byte
        for word in words_of_parameter:
            total[word] += size
            trainable[word] += parameter.numel() if parameter.requires_grad else 0
        if parameter.requires_grad:
            names.append(name)
    counts = {word: PartCount(word, total[word], trainable[word]) for word in total}
    return TrainableAudit(tuple(counts[part] for part in PARTS), tuple(names), tuple(counts[word] for word in finer))


def module_counts(model: nn.Module) -> list[PartCount]:
    """Number of parameters by module, in the order of parts; `<part>.(unnamed)` counts those of no known module."""
    sizes: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        module = f"{part}.{module_of(name, part) or '(unnamed)'}"
        sizes[module] = sizes.get(module, 0) + parameter.numel() * (1 if parameter.is_floating_point() else 2)
    labels = [f"{part}.{module}" for part in PARTS for module in (*MODULES[part], "(unnamed)")]
    return [PartCount(label, sizes[label], 0) for label in labels if label in sizes]
