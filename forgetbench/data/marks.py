"""Put pictures at the marks in an item's turns: `<image>`, a numbered `<image 2>`, or an empty picture part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from forgetbench.core.records import ImageRef, Part, Speaker, Turn

_MARK = re.compile(r"<image(?: ([1-9]\d*))?>")


@dataclass(frozen=True)
class Mark:
    """A place in a turn for one of the item's pictures."""

    number: int | None = None
    """Number of the picture, from 1; None: the next picture that has no place yet."""

    def __str__(self) -> str:
        return f"<image {self.number}>" if self.number else "<image>"


Piece = Part | Mark
"""A part of a turn, or a place for a picture."""


@dataclass(frozen=True)
class RawTurn:
    """A turn whose marks are not yet replaced by pictures."""

    speaker: Speaker
    pieces: tuple[Piece, ...]
    has_loss: bool = True

    @property
    def text(self) -> str:
        """The turn's text, each picture as its mark."""
        return "".join(str(Mark()) if isinstance(piece, ImageRef) else str(piece) for piece in self.pieces)


def read_marks(turn: RawTurn) -> RawTurn:
    """Split a turn's texts at their marks.

    A numbered mark in the assistant's turn refers to a picture shown before, and stays text.
    """
    if not any(isinstance(piece, str) and "<image" in piece for piece in turn.pieces):
        return turn
    return replace(turn, pieces=tuple(part for piece in turn.pieces for part in _split_at_marks(piece, turn.speaker)))


def _split_at_marks(piece: Piece, speaker: Speaker) -> Iterator[Piece]:
    if not isinstance(piece, str):
        yield piece
        return
    end = 0
    for match in _MARK.finditer(piece):
        number = int(match[1]) if match[1] else None
        if number is not None and speaker is Speaker.assistant:
            continue
        yield piece[end : match.start()]
        yield Mark(number)
        end = match.end()
    yield piece[end:]


def place(turns: Sequence[RawTurn], pictures: Sequence[ImageRef]) -> tuple[Turn, ...]:
    """Put every picture at its mark; without any mark, all pictures start the user's first turn.

    Args:
        turns: at least one turn of the user. Pictures that they already hold stay in place.
        pictures: pictures without a place, in the order of plain marks or of the marks' numbers.

    Raises:
        ValueError: marks and pictures do not match.
    """
    marks = [piece for turn in turns for piece in turn.pieces if isinstance(piece, Mark)]
    if marks:
        return tuple(_fill_marks(turns, _picture_order(marks, pictures)))
    if not pictures:
        return tuple(_fill_marks(turns, iter(())))
    if n_placed := sum(isinstance(piece, ImageRef) for turn in turns for piece in turn.pieces):
        raise ValueError(
            f"its turns hold {_count(n_placed, 'picture')} and no mark, so the {len(pictures)} beside them have no "
            "place"
        )
    first = next(place for place, turn in enumerate(turns) if turn.speaker is Speaker.user)
    first_turn = replace(turns[first], pieces=(*pictures, *turns[first].pieces))
    return tuple(_fill_marks((*turns[:first], first_turn, *turns[first + 1 :]), iter(())))


def _picture_order(marks: Sequence[Mark], pictures: Sequence[ImageRef]) -> Iterator[ImageRef]:
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


def _fill_marks(turns: Sequence[RawTurn], at: Iterator[ImageRef]) -> Iterator[Turn]:
    for turn in turns:
        parts = [next(at) if isinstance(piece, Mark) else piece for piece in turn.pieces]
        joined = tuple(_merge_texts(parts)) if len(parts) > 1 else tuple(parts)
        yield Turn(turn.speaker, joined or ("",), turn.has_loss)


def _merge_texts(parts: Sequence[Part]) -> Iterator[Part]:
    """Join adjacent texts, and drop empty texts."""
    for is_text, group in groupby(parts, key=lambda part: isinstance(part, str)):
        if not is_text:
            yield from group
        elif text := "".join(map(str, group)):
            yield text


def _count(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'s' * (n > 1)}"
