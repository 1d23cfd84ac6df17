"""Tokenise a rendered conversation: texts stay texts, and it is known which tokens are replies.

A chat template mixes its own control tokens with what people wrote. Marks keep the two apart while the template and the
processor work on the string: a control token's name inside a text is written as a number between two marks, and marks
stand where a reply begins and ends. They are Unicode's noncharacters, which no text may hold. The processor writes its
picture tokens, then calls the tokenizer, which stands between: it takes the marks out, and finds them again as places
among the tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from transformers import BatchEncoding

_NAME, _NAME_END = "\ufdd0", "\ufdd1"
REPLY, REPLY_END, AFTER_END = "\ufdd2", "\ufdd3", "\ufdd4"
"""Stand before a reply, behind its end token, and behind what the template writes after that."""
_MARKS = re.compile(f"{_NAME}([0-9]+){_NAME_END}|([{REPLY}{REPLY_END}{AFTER_END}])")
NONCHARACTERS = re.compile("[\ufdd0-\ufdef]")


@dataclass(frozen=True)
class Reply:
    """Places of one reply among the tokens."""

    start: int
    stop: int
    """Behind its end token."""
    after: int
    """Behind what the template writes after the end token."""


@dataclass(frozen=True)
class _Text:
    """A string without marks, and what they said."""

    text: str
    names: tuple[tuple[int, int], ...]
    """Where a control token's name is text."""
    cuts: tuple[int, ...]
    """Beginning, end, and end of what follows of every reply, one after the other."""
    shifts: tuple[tuple[int, int], ...]
    """From which place of the marked string on a place is how many characters further left in this one."""

    def place(self, marked: int) -> int:
        """Where a character of the marked string is."""
        return marked - next((shift for start, shift in reversed(self.shifts) if start <= marked), 0)


@dataclass(frozen=True)
class _Tokens:
    ids: list[int]
    offsets: list[tuple[int, int]]


class _MarkedEncoding(BatchEncoding):
    """The tokens of one marked string, which processors ask by its own characters."""

    read: _Text
    tokens_read: _Tokens

    def char_to_token(self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0) -> Any:
        """The token that holds a character; None where it is in none."""
        place = self.read.place(batch_or_char_index if char_index is None else char_index)
        offsets = self.tokens_read.offsets
        return next((i for i, (start, stop) in enumerate(offsets) if start <= place < stop), None)


class ConversationTokenizer:
    """Stands in for a processor's tokenizer while conversations are encoded; all else is the tokenizer's own."""

    def __init__(self, tokenizer: Any, placeholders: Iterable[str] = ()) -> None:
        """Wrap a fast tokenizer.

        Args:
            tokenizer: any PreTrainedTokenizerFast.
            placeholders: further strings that a processor replaces, such as its name of a picture.
        """
        self._inner = tokenizer
        special = {one.content for one in tokenizer.added_tokens_decoder.values() if one.special}
        self._names = sorted({*special, *filter(None, placeholders)}, key=lambda name: (-len(name), name))
        self._name = re.compile("|".join(map(re.escape, self._names)) or "(?!)")
        self.replies: tuple[Reply, ...] = ()
        """Of the string that was tokenised last."""

    def __getattr__(self, name: str) -> Any:
        """Everything else is the tokenizer's."""
        return getattr(self._inner, name)

    def __len__(self) -> int:
        """Size of the vocabulary."""
        return len(self._inner)

    def protect(self, text: str) -> str:
        """A text with every control token's name in it marked as text.

        Raises:
            ValueError: it holds a noncharacter.
        """
        if found := NONCHARACTERS.search(text):
            raise ValueError(f"its text holds the noncharacter U+{ord(found[0]):04X}; take it out")
        return self._name.sub(lambda match: f"{_NAME}{self._names.index(match[0])}{_NAME_END}", text)

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> BatchEncoding:
        """As the tokenizer's own, for one string, or a list of one, that may hold marks."""
        rendered = text if isinstance(text, str) else text[0]
        read = self._without_marks(rendered)
        self.replies = ()
        if read.text == rendered:
            plain: BatchEncoding = self._inner(text, *args, **kwargs)
            return plain
        tokens = self._encoded(read, kwargs.get("add_special_tokens", True))
        self.replies = tuple(_replies(tokens, read.cuts))
        held = {"input_ids": [tokens.ids], "attention_mask": [[1] * len(tokens.ids)]}
        if kwargs.get("return_token_type_ids") or "token_type_ids" in self._inner.model_input_names:
            held["token_type_ids"] = [[0] * len(tokens.ids)]
        one = held if not isinstance(text, str) else {key: value[0] for key, value in held.items()}
        encoding = _MarkedEncoding(one, tensor_type=kwargs.get("return_tensors"))
        encoding.read, encoding.tokens_read = read, tokens
        return encoding

    def ids(self, text: str) -> list[int]:
        """Token ids of a string that may hold marks, without first and last tokens added."""
        found: list[int] = self([text], add_special_tokens=False)["input_ids"][0]
        return found

    def _without_marks(self, rendered: str) -> _Text:
        text, at = "", 0
        names, cuts, shifts = list[tuple[int, int]](), list[int](), list[tuple[int, int]]()
        for match in _MARKS.finditer(rendered):
            text += rendered[at : match.start()]
            at = match.end()
            if match[1] is None:
                cuts.append(len(text))
            else:
                name = self._names[int(match[1])]
                names.append((len(text), len(text) + len(name)))
                text += name
            shifts.append((at, at - len(text)))
        return _Text(text + rendered[at:], tuple(names), tuple(cuts), tuple(shifts))

    def _encoded(self, read: _Text, add_special_tokens: bool) -> _Tokens:
        """Tokenise at once; piece by piece where a name is text, or a token would reach into a reply.

        A model that wrote a reply wrote none of the tokens before it.
        """
        starts = read.cuts[::3]
        if read.names:
            found = self._in_pieces(read, starts)
        else:
            found = self._plain(read.text, 0, is_text=False)
            if across := [start for start in starts if any(a < start < b for a, b in found.offsets)]:
                found = self._in_pieces(read, across)
        first, last = self._added if add_special_tokens else ([], [])
        end = len(read.text)
        offsets = [(0, 0)] * len(first) + found.offsets + [(end, end)] * len(last)
        return _Tokens([*first, *found.ids, *last], offsets)

    def _in_pieces(self, read: _Text, starts: Sequence[int]) -> _Tokens:
        """Tokenise what lies between the template's control tokens, and from where replies begin, one by one."""
        template = [match.span() for match in self._name.finditer(read.text)]
        template = [one for one in template if not any(a < one[1] and one[0] < b for a, b in read.names)]
        borders = sorted({0, len(read.text), *starts, *(place for span in template for place in span)})
        ids, offsets = list[int](), list[tuple[int, int]]()
        controls = dict(template)
        after_control = True
        for start, stop in pairwise(borders):
            if controls.get(start) == stop:
                piece = self._piece(read.text[start:stop], start, is_text=False, is_first=True)
            else:
                is_text = any(a < stop and start < b for a, b in read.names)
                is_first = start == 0 or (after_control and self._begins_anew)
                piece = self._piece(read.text[start:stop], start, is_text, is_first)
            after_control = start in controls
            ids += piece.ids
            offsets += piece.offsets
        return _Tokens(ids, offsets)

    def _piece(self, text: str, start: int, is_text: bool, is_first: bool) -> _Tokens:
        """One piece; a tokenizer that marks the beginning of a string would take it for one, so a line goes before."""
        if is_first:
            return self._plain(text, start, is_text)
        line = self._plain("\n", 0, is_text=False).ids
        found = self._plain("\n" + text, start - 1, is_text)
        if found.ids[: len(line)] != line:
            return self._plain(text, start, is_text)
        return _Tokens(found.ids[len(line) :], found.offsets[len(line) :])

    def _plain(self, text: str, start: int, is_text: bool) -> _Tokens:
        found = self._inner(
            text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=is_text, verbose=False
        )
        return _Tokens(list(found["input_ids"]), [(a + start, b + start) for a, b in found["offset_mapping"]])

    @cached_property
    def _begins_anew(self) -> bool:
        """Whether text after a control token is tokenised as at a string's beginning."""
        control = next((name for name in self._names if len(self._plain(name, 0, is_text=False).ids) == 1), None)
        if control is None:
            return True
        return self._plain(f"{control}a", 0, is_text=False).ids[1:] == self._plain("a", 0, is_text=False).ids

    @cached_property
    def _added(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and behind a string."""
        bare, dressed = self._plain("a", 0, is_text=False).ids, list(self._inner("a")["input_ids"])
        for n in range(len(dressed) - len(bare) + 1):
            if dressed[n : n + len(bare)] == bare:
                return dressed[:n], dressed[n + len(bare) :]
        return [], []


def _replies(tokens: _Tokens, cuts: Sequence[int]) -> Iterator[Reply]:
    """Tokens of each reply: those that begin no earlier and end no later."""
    n = len(tokens.ids)
    for start, *ends in zip(cuts[::3], cuts[1::3], cuts[2::3], strict=True):
        first = next((i for i in range(n) if tokens.offsets[i][0] >= start), n)
        stop, after = (next((i + 1 for i in range(n - 1, -1, -1) if tokens.offsets[i][1] <= end), 0) for end in ends)
        yield Reply(first, max(first, stop), max(first, after))
