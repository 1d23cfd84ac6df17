"""Read conversations from rows. Their fields tell the layout: LLaVA, LLaMA-Factory, OpenAI, TRL or ms-swift."""

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
"""Fields that hold all turns; the first field present is read."""
_PAIRS = {"prompt": "completion", "query": "response"}
"""Field of the question -> field of the answer, as TRL and ms-swift name them."""
_ROLES = {
    "human": Speaker.user,
    "user": Speaker.user,
    "gpt": Speaker.assistant,
    "assistant": Speaker.assistant,
    "system": Speaker.system,
}
_FLAGS = ("loss_weight", "weight", "loss", "loss_scale")
"""Fields that say whether a turn is trained on: LLaMA-Factory's, OpenAI's, and two of ms-swift."""
_PICTURE_PARTS = ("image", "image_url")
_PICTURES = ("image", "image_url", "url", "path", "base64", "value")
"""Fields of a picture part that may hold the picture; a part without one is a mark."""
_UNREAD = ("videos", "video", "audios", "audio", "tools")
_UNREAD_IN_TURNS = ("tool_calls", "function_call", "reasoning_content", "thinking")
_BOX_MARKS = ("<ref-object>", "<bbox>")
"""Tags that ms-swift fills in from a record's `objects`."""
_IMG_TAG = re.compile(r"<img>[^<>\n]+</img>")
"""A picture in the notation of Qwen-VL and early versions of ms-swift."""
_LAYOUT_NAMES = {
    "from/value": "LLaVA, ShareGPT",
    "role/content": "OpenAI, TRL, LLaMA-Factory, ms-swift",
    "parts with text": "OpenAI, TRL",
    "parts with value": "LLaMA-Factory v1",
}
"""Fields of the turns -> programs that write this layout."""


class NoItemError(ValueError):
    """A record whose turns do not end in a reply; the message says why."""


@dataclass(frozen=True)
class Conversation:
    """The last reply of a record, and all turns before it."""

    layout: str
    """For people: the fields of the layout, and the programs that write it."""
    before: tuple[RawTurn, ...]
    """An optional system turn, then user and assistant alternating; the user is last."""
    reply: str


def is_conversation(row: Row) -> bool:
    """Whether a row holds turns. A row with `question` and `answer` is an item, not a conversation.

    Neither is a row with `prompt` or `query` beside an `answer`: it would be unclear which text is the answer.
    """
    if row.get("answer") is not None and (row.get("question") is not None or _list_field(row) is None):
        return False
    return _list_field(row) is not None or _pair_field(row) is not None


def _list_field(row: Row) -> str | None:
    return next((name for name in _LISTS if row.get(name) is not None), None)


def _pair_field(row: Row) -> str | None:
    return next(
        (name for name, answer_name in _PAIRS.items() if row.get(name) is not None and answer_name in row), None
    )


def read_conversation(row: Row, picture: Callable[[object], ImageRef], has_marks: bool) -> Conversation:
    """Read the turns of a row that `is_conversation`.

    Args:
        row: a record.
        picture: reads the picture in a part of a turn.
        has_marks: whether `<image>` in a text is a place for a picture.

    Raises:
        NoItemError: the turns do not end in a reply.
        ValueError: a turn can be neither trained on nor scored; says what to do.
    """
    _check_fields(row)
    layout, raw_turns = _stored_turns(row)
    turns = [_read_turn(turn, number, picture) for number, turn in enumerate(raw_turns, start=1)]
    _check_texts(row, turns, has_marks)
    _check_order(turns)
    turns = [*_system_turn(row, turns), *turns]
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


def _stored_turns(row: Row) -> tuple[str, Sequence[Row]]:
    """The layout's name, and the row's turns as stored; the `system` field is not read here."""
    if name := _list_field(row):
        turns = _turn_dicts(row[name], name)
        return f"{name}: {_turn_layout(turns)}", turns
    question_name = _pair_field(row)
    assert question_name
    answer_name = _PAIRS[question_name]
    turns = [*_history(row if question_name == "query" else {}), *_pair_turns(row, question_name, "user")]
    turns += _pair_turns(row, answer_name, "assistant") if row[answer_name] is not None else ()
    return f"{question_name}/{answer_name} ({'TRL' if question_name == 'prompt' else 'ms-swift'})", turns


def _pair_turns(row: Row, name: str, role: str) -> Sequence[Row]:
    """The turns of one field of a pair, which holds a text or (TRL) a list of turns."""
    return [{"role": role, "content": row[name]}] if isinstance(row[name], str) else _turn_dicts(row[name], name)


def _history(row: Row) -> Iterator[Row]:
    for pair in row.get("history") or ():
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"`history` must hold pairs of a question and its answer, not {pair!r}")
        yield from ({"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True))


def _turn_dicts(value: object, name: str) -> Sequence[Row]:
    if isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):
        # A list of structs as older versions of `datasets` store it: a struct of lists.
        value = [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise ValueError(f"`{name}` must be a list of turns, each with a speaker and a text")
    return value


def _turn_layout(turns: Sequence[Row]) -> str:
    parts = [part for turn in turns if isinstance(turn.get("content"), list) for part in turn["content"]]
    if parts:
        holds_value = any(isinstance(part, dict) and part.get("value") is not None for part in parts)
        style = "parts with value" if holds_value else "parts with text"
    else:
        style = "from/value" if any(turn.get("from") is not None for turn in turns) else "role/content"
    return f"{style} ({_LAYOUT_NAMES[style]})"


def _read_turn(turn: Row, number: int, picture: Callable[[object], ImageRef]) -> RawTurn:
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
        pieces = tuple(_read_part(part, number, picture) for part in content)
    else:
        raise ValueError(f"turn {number} has no text: its `content` (or `value`) is {content!r}")
    return RawTurn(speaker, pieces, _read_loss_flag(turn, number) if speaker is Speaker.assistant else True)


def _speaker(turn: Row, number: int) -> Speaker:
    role = next((turn[name] for name in ("role", "from") if turn.get(name) is not None), None)
    speaker = _ROLES.get(str(role).strip().casefold())
    if speaker is None:
        raise ValueError(
            f"turn {number} is said by {role!r}; known are user (human), assistant (gpt) and system. "
            "Rename the role, or leave such records out"
        )
    return speaker


def _read_loss_flag(turn: Row, number: int) -> bool:
    flags = {name: turn[name] for name in _FLAGS if turn.get(name) is not None}
    for name, value in flags.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise ValueError(f"turn {number} has `{name}: {value}`; a turn is trained on (1) or not (0)")
    return all(flags.values())


def _read_part(part: object, number: int, picture: Callable[[object], ImageRef]) -> Piece:
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
    picture_value = next((part[name] for name in _PICTURES if part.get(name) is not None), None)
    if isinstance(picture_value, Mapping) and "url" in picture_value:
        picture_value = picture_value["url"]
    if picture_value is not None:
        return picture(picture_value)
    index = part.get("index")
    return Mark(index + 1 if isinstance(index, int) else None)


def _system_turn(row: Row, turns: Sequence[RawTurn]) -> Iterator[RawTurn]:
    """The system turn of the `system` field, unless the turns begin with the same text."""
    text = row.get("system")
    if not text:
        return
    if not isinstance(text, str):
        raise ValueError(f"`system` must be a text, not {text!r}")
    system_texts = [turn.text for turn in turns if turn.speaker is Speaker.system]
    if system_texts not in ([], [text]):
        raise ValueError("its field `system` and its system turn differ; keep one of them")
    if not system_texts:
        yield RawTurn(Speaker.system, (text,))


def _check_order(turns: Sequence[RawTurn]) -> None:
    """Refuse turns in which user and assistant do not alternate, or that do not end in a reply."""
    speakers = [turn.speaker for turn in turns]
    if Speaker.system in speakers[1:] and speakers[:2] != [Speaker.system] * 2:
        raise ValueError("it has a system turn inside the conversation; only the first turn may be one")
    if not turns:
        raise NoItemError("it has no turns")
    if speakers[-1] is not Speaker.assistant:
        raise NoItemError(f"its last turn is the {speakers[-1]}'s, so nothing is answered")
    if speakers[speakers[0] is Speaker.system] is Speaker.assistant:
        raise NoItemError("it begins with the assistant")
    for number, (speaker, next_speaker) in enumerate(pairwise(speakers), start=1):
        if speaker is next_speaker:
            raise NoItemError(f"turns {number} and {number + 1} are both the {speaker}'s")


def _check_fields(row: Row) -> None:
    """Refuse a row with videos, audio or tools, or with a preference label."""
    for name in _UNREAD:
        if row.get(name) and row[name] != "[]":
            raise ValueError(f"it has `{name}`, but only texts and pictures are read; leave such records out")
    if isinstance(row.get("label"), bool):
        raise ValueError(
            "its `label` says whether people liked its last reply; keep the records that were liked, without that field"
        )


def _check_texts(row: Row, turns: Sequence[RawTurn], has_marks: bool) -> None:
    """Refuse texts that name picture files, or that take names and boxes from the field `objects`."""
    if row.get("objects") and any(mark in turn.text for turn in turns for mark in _BOX_MARKS):
        raise ValueError(
            f"its texts leave {' or '.join(_BOX_MARKS)} to `objects`; write names and boxes into the texts"
        )
    if has_marks and not (row.get("image") or row.get("images")) and any(_IMG_TAG.search(turn.text) for turn in turns):
        raise ValueError(
            "its texts name pictures as <img>FILE</img>; write <image> in their place, and the files into `images`"
        )


def _check_pictures(turns: Sequence[RawTurn]) -> None:
    """Refuse pictures outside the user's turns."""
    with_pictures = [turn for turn in turns if not all(isinstance(piece, str) for piece in turn.pieces)]
    if turns[-1] in with_pictures:
        raise ValueError("its last reply holds a picture or a mark <image>, and a reply is text; take it out")
    if other_speakers := [turn.speaker for turn in with_pictures if turn.speaker is not Speaker.user]:
        raise ValueError(
            f"a turn of the {other_speakers[0]}'s holds a picture or a mark <image>, and pictures are read in the "
            "user's turns only; move it there"
        )
