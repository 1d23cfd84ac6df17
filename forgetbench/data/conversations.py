"""Conversations in a row: the layouts of LLaVA, LLaMA-Factory, OpenAI, TRL and ms-swift, found by their fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from forgetbench.core.records import ImageRef, Speaker
from forgetbench.data.marks import Mark, Piece, RawTurn, read_marks

Row = dict[str, Any]
_LISTS = ("messages", "conversations")
"""Fields that hold all turns; the first of them counts."""
_PAIRS = {"prompt": "completion", "query": "response"}
"""Fields that hold what is asked and what is answered: TRL's, and ms-swift's."""
_ROLES = {
    "human": Speaker.user,
    "user": Speaker.user,
    "gpt": Speaker.assistant,
    "assistant": Speaker.assistant,
    "system": Speaker.system,
}
_FLAGS = ("loss_weight", "weight", "loss", "loss_scale")
"""Whether a turn is trained on: LLaMA-Factory's, OpenAI's, and two of ms-swift."""
_PICTURE_PARTS = ("image", "image_url")
_PICTURES = ("image", "image_url", "url", "path", "base64", "value")
"""Where such a part holds its picture; one that holds none is a mark."""
_UNREAD = ("videos", "video", "audios", "audio", "tools")
_UNREAD_IN_TURNS = ("tool_calls", "function_call", "reasoning_content", "thinking")
_BOXES = ("<ref-object>", "<bbox>")
"""What ms-swift fills from a record's `objects`."""
_NAMED = re.compile(r"<img>[^<>\n]+</img>")
"""A picture as Qwen-VL and early versions of ms-swift write it."""
_USERS = {
    "from/value": "LLaVA, ShareGPT",
    "role/content": "OpenAI, TRL, LLaMA-Factory, ms-swift",
    "parts with text": "OpenAI, TRL",
    "parts with value": "LLaMA-Factory v1",
}
"""How turns are laid out -> whose layout that is."""


class NoItemError(ValueError):
    """A record's turns ask for no reply; says why."""


@dataclass(frozen=True)
class Conversation:
    """What a record says: a reply, and all turns before it."""

    layout: str
    """For people: the fields it was found by, and who writes them."""
    before: tuple[RawTurn, ...]
    """Perhaps a system turn, then user and assistant in turns, the user last."""
    reply: str


def is_conversation(row: Row) -> bool:
    """Whether a row holds turns; one that has a `question` and an `answer` is an item as it is.

    A `prompt` or `query` beside an `answer` is none either: which of two texts would be the answer is not guessed.
    """
    if row.get("answer") is not None and (row.get("question") is not None or _list(row) is None):
        return False
    return _list(row) is not None or _pair(row) is not None


def _list(row: Row) -> str | None:
    return next((name for name in _LISTS if row.get(name) is not None), None)


def _pair(row: Row) -> str | None:
    return next((name for name, other in _PAIRS.items() if row.get(name) is not None and other in row), None)


def read_conversation(row: Row, picture: Callable[[object], ImageRef], has_marks: bool) -> Conversation:
    """The turns of a row that `is_conversation`.

    Args:
        row: one record.
        picture: reads a picture that a part of a turn holds.
        has_marks: whether `<image>` in a text is a place for a picture.

    Raises:
        NoItemError: its turns ask for no reply.
        ValueError: a turn is none that is trained or scored here; says what to do.
    """
    _check_fields(row)
    layout, given = _given(row)
    turns = [_turn(turn, number, picture) for number, turn in enumerate(given, start=1)]
    _check_texts(row, turns, has_marks)
    _check_order(turns)
    turns = [*_system(row, turns), *turns]
    if has_marks:
        turns = list(map(read_marks, turns))
    _check_pictures(turns)
    *before, last = turns
    if not last.text.strip():
        raise NoItemError("its last reply is empty")
    if not last.has_loss:
        raise ValueError(
            "its last reply is not to be trained on, but that is the one that is asked for; "
            "drop that flag, or end the record before the question"
        )
    return Conversation(layout, tuple(before), last.text)


def _given(row: Row) -> tuple[str, Sequence[Row]]:
    """The layout's name, and the turns of a row as they are stored, without the `system` field."""
    if name := _list(row):
        turns = _listed(row[name], name)
        return f"{name}: {_style(turns)}", turns
    asked = _pair(row)
    assert asked
    answered = _PAIRS[asked]
    turns = [*_history(row if asked == "query" else {}), *_side(row, asked, "user")]
    turns += _side(row, answered, "assistant") if row[answered] is not None else ()
    return f"{asked}/{answered} ({'TRL' if asked == 'prompt' else 'ms-swift'})", turns


def _side(row: Row, name: str, role: str) -> Sequence[Row]:
    """One side of a pair: a text, or TRL's list of turns."""
    return [{"role": role, "content": row[name]}] if isinstance(row[name], str) else _listed(row[name], name)


def _history(row: Row) -> Iterator[Row]:
    for pair in row.get("history") or ():
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"`history` must hold pairs of a question and its answer, not {pair!r}")
        yield from ({"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True))


def _listed(value: object, name: str) -> Sequence[Row]:
    if isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):
        # A list of structs as older versions of `datasets` store it: a struct of lists.
        value = [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise ValueError(f"`{name}` must be a list of turns, each with a speaker and a text")
    return value


def _style(turns: Sequence[Row]) -> str:
    parts = [part for turn in turns if isinstance(turn.get("content"), list) for part in turn["content"]]
    if parts:
        holds_value = any(isinstance(part, dict) and part.get("value") is not None for part in parts)
        style = "parts with value" if holds_value else "parts with text"
    else:
        style = "from/value" if any(turn.get("from") is not None for turn in turns) else "role/content"
    return f"{style} ({_USERS[style]})"


def _turn(turn: Row, number: int, picture: Callable[[object], ImageRef]) -> RawTurn:
    for name in _UNREAD_IN_TURNS:
        if turn.get(name):
            raise ValueError(
                f"turn {number} has `{name}`, but only texts and pictures are read; leave such records out"
            )
    speaker = _speaker(turn, number)
    content = next((turn[name] for name in ("content", "value") if turn.get(name) is not None), None)
    if isinstance(content, str):
        pieces: tuple[Piece, ...] = (content,)
    elif isinstance(content, list):
        pieces = tuple(_piece(part, number, picture) for part in content)
    else:
        raise ValueError(f"turn {number} has no text: its `content` (or `value`) is {content!r}")
    return RawTurn(speaker, pieces, _has_loss(turn, number) if speaker is Speaker.assistant else True)


def _speaker(turn: Row, number: int) -> Speaker:
    role = next((turn[name] for name in ("role", "from") if turn.get(name) is not None), None)
    speaker = _ROLES.get(str(role).strip().casefold())
    if speaker is None:
        raise ValueError(
            f"turn {number} is said by {role!r}; known are user (human), assistant (gpt) and system. "
            "Rename the role, or leave such records out"
        )
    return speaker


def _has_loss(turn: Row, number: int) -> bool:
    flags = {name: turn[name] for name in _FLAGS if turn.get(name) is not None}
    for name, value in flags.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise ValueError(f"turn {number} has `{name}: {value}`; a turn is trained on (1) or not (0)")
    return all(flags.values())


def _piece(part: object, number: int, picture: Callable[[object], ImageRef]) -> Piece:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in ("text", *_PICTURE_PARTS):
        raise ValueError(
            f"turn {number} has a part {kind or part!r}; parts of type text, image and image_url are read. "
            "Leave such records out"
        )
    if kind == "text":
        text = next((part[name] for name in ("text", "value") if part.get(name) is not None), None)
        if not isinstance(text, str):
            raise ValueError(f"turn {number} has a part without text")
        return text
    held = next((part[name] for name in _PICTURES if part.get(name) is not None), None)
    if isinstance(held, Mapping) and "url" in held:
        held = held["url"]
    if held is not None:
        return picture(held)
    place = part.get("index")
    return Mark(place + 1 if isinstance(place, int) else None)


def _system(row: Row, turns: Sequence[RawTurn]) -> Iterator[RawTurn]:
    """The turn that a `system` field makes, unless the turns begin with the same one."""
    text = row.get("system")
    if not text:
        return
    if not isinstance(text, str):
        raise ValueError(f"`system` must be a text, not {text!r}")
    own = [turn.text for turn in turns if turn.speaker is Speaker.system]
    if own not in ([], [text]):
        raise ValueError("its field `system` and its system turn differ; keep one of them")
    if not own:
        yield RawTurn(Speaker.system, (text,))


def _check_order(turns: Sequence[RawTurn]) -> None:
    """Refuse what is no conversation of user and assistant that ends in a reply."""
    speakers = [turn.speaker for turn in turns]
    if Speaker.system in speakers[1:] and speakers[:2] != [Speaker.system] * 2:
        raise ValueError("it has a system turn inside the conversation; only the first turn may be one")
    if not turns:
        raise NoItemError("it has no turns")
    if speakers[-1] is not Speaker.assistant:
        raise NoItemError(f"its last turn is the {speakers[-1]}'s, so nothing is answered")
    if speakers[speakers[0] is Speaker.system] is Speaker.assistant:
        raise NoItemError("it begins with the assistant")
    for number, (one, other) in enumerate(pairwise(speakers), start=1):
        if one is other:
            raise NoItemError(f"turns {number} and {number + 1} are both the {one}'s")


def _check_fields(row: Row) -> None:
    """Refuse a row that holds what is neither text nor picture, or a reply that nobody wants."""
    for name in _UNREAD:
        if row.get(name) and row[name] != "[]":
            raise ValueError(f"it has `{name}`, but only texts and pictures are read; leave such records out")
    if isinstance(row.get("label"), bool):
        raise ValueError(
            "its `label` says whether people liked its last reply; keep the records that were liked, without that field"
        )


def _check_texts(row: Row, turns: Sequence[RawTurn], has_marks: bool) -> None:
    """Refuse texts that name their pictures, or leave something to another field."""
    if row.get("objects") and any(mark in turn.text for turn in turns for mark in _BOXES):
        raise ValueError(f"its texts leave {' or '.join(_BOXES)} to `objects`; write names and boxes into the texts")
    if has_marks and not (row.get("image") or row.get("images")) and any(_NAMED.search(turn.text) for turn in turns):
        raise ValueError(
            "its texts name pictures as <img>FILE</img>; write <image> in their place, and the files into `images`"
        )


def _check_pictures(turns: Sequence[RawTurn]) -> None:
    """Refuse a picture that anyone but the user shows."""
    shown = [turn for turn in turns if not all(isinstance(piece, str) for piece in turn.pieces)]
    if turns[-1] in shown:
        raise ValueError("its last reply holds a picture or a mark <image>, and a reply is text; take it out")
    if others := [turn.speaker for turn in shown if turn.speaker is not Speaker.user]:
        raise ValueError(
            f"a turn of the {others[0]}'s holds a picture or a mark <image>, and pictures are read in the user's turns "
            "only; move it there"
        )
