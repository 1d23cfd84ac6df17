"""Put an item's pictures where its turns have their marks: `<image>`, a numbered `<image 2>`, or a part without one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from forgetbench.core.records import ImageRef, Part, Speaker, Turn

_MARK = re.compile(r"<image(?: ([1-9]\d*))?>")


@dataclass(frozen=True)
class Mark:
    """A place for one of the item's pictures."""

    number: int | None = None
    """Which picture, from 1, wherever it is named; None: the next one that was not placed."""

    def __str__(self) -> str:
        return f"<image {self.number}>" if self.number else "<image>"


Piece = Part | Mark
"""A part of a turn, or a place for a picture."""


@dataclass(frozen=True)
class RawTurn:
    """A turn whose pictures are yet to be placed."""

    speaker: Speaker
    pieces: tuple[Piece, ...]
    has_loss: bool = True

    @property
    def text(self) -> str:
        """What is said, each picture as its mark."""
        return "".join(str(Mark()) if isinstance(piece, ImageRef) else str(piece) for piece in self.pieces)


def read_marks(turn: RawTurn) -> RawTurn:
    """The turn with the marks in its texts made places for pictures.

    A numbered mark that the assistant writes names a picture that was shown before, and stays text.
    """
    if not any(isinstance(piece, str) and "<image" in piece for piece in turn.pieces):
        return turn
    return replace(turn, pieces=tuple(piece for one in turn.pieces for piece in _split(one, turn.speaker)))


def _split(piece: Piece, speaker: Speaker) -> Iterator[Piece]:
    if not isinstance(piece, str):
        yield piece
        return
    end = 0
    for found in _MARK.finditer(piece):
        number = int(found[1]) if found[1] else None
        if number is not None and speaker is Speaker.assistant:
            continue
        yield piece[end : found.start()]
        yield Mark(number)
        end = found.end()
    yield piece[end:]


def place(turns: Sequence[RawTurn], pictures: Sequence[ImageRef]) -> tuple[Turn, ...]:
    """The turns with every picture at its mark; without any mark, all come first in the user's first turn.

    Args:
        turns: with at least one of the user's. Pictures that they hold already stay where they are.
        pictures: those that have no place yet, in the order of plain marks and of numbers.

    Raises:
        ValueError: marks and pictures do not go together.
    """
    marks = [piece for turn in turns for piece in turn.pieces if isinstance(piece, Mark)]
    if marks:
        return tuple(_turns(turns, _at(marks, pictures)))
    if not pictures:
        return tuple(_turns(turns, iter(())))
    if own := sum(isinstance(piece, ImageRef) for turn in turns for piece in turn.pieces):
        raise ValueError(
            f"its turns hold {_count(own, 'picture')} and no mark, so the {len(pictures)} beside them have no place"
        )
    first = next(place for place, turn in enumerate(turns) if turn.speaker is Speaker.user)
    led = replace(turns[first], pieces=(*pictures, *turns[first].pieces))
    return tuple(_turns((*turns[:first], led, *turns[first + 1 :]), iter(())))


def _at(marks: Sequence[Mark], pictures: Sequence[ImageRef]) -> Iterator[ImageRef]:
    """The picture of each mark."""
    numbers = {mark.number for mark in marks}
    if numbers == {None}:
        if len(marks) != len(pictures):
            raise ValueError(
                f"{_count(len(marks), 'mark')} <image>, but {_count(len(pictures), 'picture')}; there must be as many"
            )
        return iter(pictures)
    if None in numbers:
        raise ValueError("it has marks with a number (<image 1>) and without (<image>); number all of them, or none")
    if numbers != set(range(1, len(pictures) + 1)):
        named = ", ".join(str(Mark(number)) for number in sorted(filter(None, numbers)))
        raise ValueError(
            f"it names {named}, but has {_count(len(pictures), 'picture')}; each must be named, and no other"
        )
    return (pictures[mark.number - 1] for mark in marks if mark.number)


def _turns(turns: Sequence[RawTurn], at: Iterator[ImageRef]) -> Iterator[Turn]:
    for turn in turns:
        parts = [next(at) if isinstance(piece, Mark) else piece for piece in turn.pieces]
        joined = tuple(_joined(parts)) if len(parts) > 1 else tuple(parts)
        yield Turn(turn.speaker, joined or ("",), turn.has_loss)


def _joined(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts, texts beside each other as one and empty ones left out."""
    for is_text, group in groupby(parts, key=lambda part: isinstance(part, str)):
        if not is_text:
            yield from group
        elif text := "".join(map(str, group)):
            yield text


def _count(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'s' * (n > 1)}"
