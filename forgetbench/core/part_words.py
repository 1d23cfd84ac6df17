"""The words for what trains: a part, a module of it, some of its layers. Text alone: no model is needed.

    language                              all of the part (also vision, projector)
    language.attention                    a module of it
    language.layers_12_to_23              layers of it, counted from 0, both ends included
    language.layers_12_to_23.attention    a module within layers

`forgetbench/models/parts.py` says which parameters of a model a word covers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations

from forgetbench.core.errors import UserError
from forgetbench.core.options import nearest
from forgetbench.core.records import PARTS

_TOWER = ("attention", "mlp", "mlp_gate_up", "mlp_down", "norms", "embeddings", "other")
MODULES = {
    "vision": _TOWER,
    "projector": ("attention", "mlp", "norms", "other"),
    "language": (*_TOWER[:-1], "head", "other"),
}
"""Modules of each part. `mlp` is `mlp_gate_up` and `mlp_down` together, or a projector's own layers; `other` is what
the others leave: routers, scales, convolutions, a pooling head, separators of pictures."""
MLP = ("mlp_gate_up", "mlp_down")
_OUTSIDE_LAYERS = ("embeddings", "head")
_LAYERS = re.compile(r"layers_(0|[1-9]\d{0,5})_to_(0|[1-9]\d{0,5})")
WORDS = tuple(name for part in PARTS for name in (part, *(f"{part}.{module}" for module in MODULES[part])))
"""Every word without layers."""


@dataclass(frozen=True)
class PartWord:
    """A parsed word."""

    part: str
    module: str | None = None
    """None for all modules."""
    layers: tuple[int, int] | None = None
    """First and last layer; None for all, and for what is in none."""

    def __str__(self) -> str:
        """The word itself."""
        layers = f"layers_{self.layers[0]}_to_{self.layers[1]}" if self.layers else None
        return ".".join(name for name in (self.part, layers, self.module) if name)

    @property
    def modules(self) -> frozenset[str]:
        """Modules that it covers; `mlp` as its two parts."""
        if self.module == "mlp" and self.part != "projector":
            return frozenset(MLP)
        if self.module:
            return frozenset((self.module,))
        part_modules = MODULES[self.part] if self.part == "projector" else set(MODULES[self.part]) - {"mlp"}
        return frozenset(part_modules) - (frozenset(_OUTSIDE_LAYERS) if self.layers else frozenset())

    def overlaps(self, other: PartWord) -> bool:
        """Whether some parameter could belong to both."""
        if self.part != other.part or not self.modules & other.modules:
            return False
        if self.layers and other.layers:
            return self.layers[0] <= other.layers[1] and other.layers[0] <= self.layers[1]
        return True

    def contains(self, other: PartWord) -> bool:
        """Whether everything that the other covers is covered here too."""
        if self.part != other.part or not other.modules <= self.modules:
            return False
        if self.layers is None:
            return True
        return bool(other.layers and self.layers[0] <= other.layers[0] and other.layers[1] <= self.layers[1])

    @property
    def order(self) -> tuple[int, tuple[int, int], int]:
        """Where it stands in a list of words: by part, layers and module."""
        modules = MODULES[self.part]
        return PARTS.index(self.part), self.layers or (-1, -1), modules.index(self.module) if self.module else -1


@cache
def part_word(text: str) -> PartWord:
    """Read a word.

    Raises:
        UserError: there is no such word; the message names what was probably meant, and what there is.
    """
    part, *rest = text.split(".")
    if part not in PARTS or not all(rest):
        raise _unknown(text)
    layers = None
    if rest and rest[0].startswith("layers"):
        layers = _layers(text, part, rest.pop(0))
    if len(rest) > 1 or not set(rest) <= set(MODULES[part]):
        raise _unknown(text)
    module = rest[0] if rest else None
    if layers and module in _OUTSIDE_LAYERS:
        raise UserError(f"'{text}': the {module} of the {part} part are in no layer; write {part}.{module}.")
    return PartWord(part, module, layers)


def _layers(text: str, part: str, given: str) -> tuple[int, int]:
    match = _LAYERS.fullmatch(given)
    if part == "projector":
        raise UserError(f"'{text}': a projector has no numbered layers; write projector, or projector.mlp.")
    if not match:
        raise UserError(
            f"'{text}': layers are written as in {part}.layers_0_to_11: counted from 0, both ends included."
        )
    first, last = int(match[1]), int(match[2])
    if first > last:
        raise UserError(f"'{text}' ends before it begins; write {part}.layers_{last}_to_{first}.")
    return first, last


def _unknown(text: str) -> UserError:
    part = text.partition(".")[0]
    known = [word for word in WORDS if word.startswith(f"{part}.")] if part in PARTS else PARTS
    close = nearest(text, WORDS, ()).strip()
    listed = f"there are {', '.join(known)}" if part in PARTS else f"the parts are {', '.join(PARTS)}"
    more = f", and {part}.layers_A_to_B" if part in PARTS and part != "projector" else ""
    further = "" if part in PARTS else " and modules of them, such as language.attention"
    return UserError(f"there is no part '{text}'; {listed}{more}{further}.{' ' if close else ''}{close}")


def parts_of(words: Iterable[str]) -> list[str]:
    """The parts of words, each once, in the given order; invalid words are skipped."""
    heads = (word.partition(".")[0] for word in words)
    return [part for part in dict.fromkeys(heads) if part in PARTS]


def word_problems(words: Iterable[str]) -> Iterator[str]:
    """What is wrong with a list of words: an invalid word, or two words that cover the same parameter."""
    try:
        listed = [part_word(word) for word in dict.fromkeys(words)]
    except UserError as error:
        yield str(error)
        return
    for first, second in combinations(listed, 2):
        if first.overlaps(second):
            yield f"'{first}' and '{second}' cover some of the same weights; name each once."


def merge_words(words: Iterable[str]) -> list[str]:
    """Words of several stages in their order, without those that another word contains."""
    listed = sorted({part_word(word) for word in words}, key=lambda word: word.order)
    return [str(word) for word in listed if not any(other != word and other.contains(word) for other in listed)]


def is_word(text: str) -> bool:
    """Whether a text is a word for what trains."""
    return not any(word_problems([text]))
