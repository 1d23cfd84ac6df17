"""The answer part of a reply, without the thought before it and special tokens around it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from forgetbench.core.records import THOUGHT_MARKS

Marks = Sequence[Sequence[str]]
"""Pairs of texts that a thought stands between, such as ("<think>", "</think>")."""

# Spellings of special tokens: "<|im_end|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>", "[EOS]".
_SPECIAL = (
    r"(?:<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?s>|\[(?:EOS|BOS|PAD|UNK|SEP|CLS|/?INST)\]"
    r"|<(?:bos|eos|pad|unk|eot|eod|eoa|eom|end_of_turn|end_of_text|end_of_utterance|endoftext|im_end|sep|cls)>)"
)
_LONGEST = 50
_AT_END = re.compile(rf"{_SPECIAL}\Z", re.IGNORECASE)
_TURN = r"(?:<\|im_start\|>|<\|start\|>|<start_of_turn>|<\|start_header_id\|>)\s*(?:assistant|model)\b"
_AT_START = re.compile(rf"(?:(?:{_TURN}|{_SPECIAL})\s*)+", re.IGNORECASE)


def answer_part(text: str, marks: Marks = THOUGHT_MARKS, whole: Collection[str] = ()) -> str | None:
    """The text of a reply after its thought, without special tokens at its ends.

    Args:
        text: what the model wrote.
        marks: begin and end marks of thoughts; the begin mark may be missing, as templates write it into the prompt.
        whole: texts that are returned unchanged: the item's options and references.

    Returns:
        None if a thought begins and never ends.
    """
    rest = _after_thought(text, marks)
    if rest is None:
        return None
    rest = rest.strip()
    if rest in whole:
        return rest
    if start := _AT_START.match(rest):
        rest = rest[start.end() :]
    while end := _AT_END.search(rest, max(0, len(rest) - _LONGEST)):
        rest = rest[: end.start()].rstrip()
    return rest


def _after_thought(text: str, marks: Marks) -> str | None:
    for opening, closing in marks:
        last = text.rfind(closing)
        if last >= 0:
            text = text[last + len(closing) :]
        if opening in text:
            return None
    return text
