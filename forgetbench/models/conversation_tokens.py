"""Tokenise a rendered conversation, keep texts apart from control tokens, and locate the replies among the tokens.

A chat template mixes control tokens with the texts of a conversation. Marks in the string keep the two apart while the
template and the processor work on it. The name of a control token inside a text is written as a number between two
marks, and marks stand at the beginning and end of each reply. The marks are Unicode noncharacters, which no text may
hold. The processor inserts its picture tokens and then calls the tokenizer. `ConversationTokenizer` takes the place of
the tokenizer: it removes the marks and converts their places to token positions.
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
"""Marks before a reply, after its end token, and after the text that the template writes behind the end token."""
_MARKS = re.compile(f"{_NAME}([0-9]+){_NAME_END}|([{REPLY}{REPLY_END}{AFTER_END}])")
NONCHARACTERS = re.compile("[\ufdd0-\ufdef]")


@dataclass(frozen=True)
class Reply:
    """Token positions of a reply."""

    start: int
    stop: int
    """Position after its end token."""
    after: int
    """Position after the text that the template writes behind the end token."""


@dataclass(frozen=True)
class _UnmarkedText:
    """A string without its marks, and the information that the marks carried."""

    text: str
    names: tuple[tuple[int, int], ...]
    """Spans in which a control token's name is text."""
    cuts: tuple[int, ...]
    """For each reply in turn: its start, its end, and the end of the text that follows it."""
    shifts: tuple[tuple[int, int], ...]
    """(place in the marked string, number of characters by which later places move left in this string)."""

    def place(self, marked: int) -> int:
        """The place in this string of a place in the marked string."""
        return marked - next((shift for start, shift in reversed(self.shifts) if start <= marked), 0)


@dataclass(frozen=True)
class _Tokens:
    ids: list[int]
    offsets: list[tuple[int, int]]


class _MarkedEncoding(BatchEncoding):
    """The tokens of a marked string; `char_to_token` takes places in the marked string, as processors do."""

    read: _UnmarkedText
    tokens_read: _Tokens

    def char_to_token(self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0) -> Any:
        """The position of the token that holds a character; None if no token does."""
        place = self.read.place(batch_or_char_index if char_index is None else char_index)
        offsets = self.tokens_read.offsets
        return next((i for i, (start, stop) in enumerate(offsets) if start <= place < stop), None)


class ConversationTokenizer:
    """Replaces a processor's tokenizer while conversations are encoded; all other attributes are the tokenizer's."""

    def __init__(self, tokenizer: Any, placeholders: Iterable[str] = ()) -> None:
        """Wrap a fast tokenizer.

        Args:
            tokenizer: any PreTrainedTokenizerFast.
            placeholders: further strings that a processor replaces, such as its picture placeholder.
        """
        self._wrapped = tokenizer
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._names = sorted({*special, *filter(None, placeholders)}, key=lambda name: (-len(name), name))
        self._name = re.compile("|".join(map(re.escape, self._names)) or "(?!)")
        self.replies: tuple[Reply, ...] = ()
        """The replies in the last tokenised string."""

    def __getattr__(self, name: str) -> Any:
        """Return the tokenizer's attribute."""
        return getattr(self._wrapped, name)

    def __len__(self) -> int:
        """Size of the vocabulary."""
        return len(self._wrapped)

    def protect(self, text: str) -> str:
        """Mark the names of control tokens in a text as text.

        Raises:
            ValueError: the text holds a noncharacter.
        """
        if noncharacter := NONCHARACTERS.search(text):
            raise ValueError(f"its text holds the noncharacter U+{ord(noncharacter[0]):04X}; take it out")
        return self._name.sub(lambda match: f"{_NAME}{self._names.index(match[0])}{_NAME_END}", text)

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Tokenise as the tokenizer does; `text` is a string, or a list of a single string, that may hold marks."""
        rendered = text if isinstance(text, str) else text[0]
        unmarked = self._without_marks(rendered)
        self.replies = ()
        if unmarked.text == rendered:
            plain: BatchEncoding = self._wrapped(text, *args, **kwargs)
            return plain
        tokens = self._tokenise(unmarked, kwargs.get("add_special_tokens", True))
        self.replies = tuple(_replies(tokens, unmarked.cuts))
        batch = {"input_ids": [tokens.ids], "attention_mask": [[1] * len(tokens.ids)]}
        if kwargs.get("return_token_type_ids") or "token_type_ids" in self._wrapped.model_input_names:
            batch["token_type_ids"] = [[0] * len(tokens.ids)]
        data = batch if not isinstance(text, str) else {key: value[0] for key, value in batch.items()}
        encoding = _MarkedEncoding(data, tensor_type=kwargs.get("return_tensors"))
        encoding.read, encoding.tokens_read = unmarked, tokens
        return encoding

    def ids(self, text: str) -> list[int]:
        """Token ids of a string that may hold marks, without special tokens added."""
        token_ids: list[int] = self([text], add_special_tokens=False)["input_ids"][0]
        return token_ids

    def _without_marks(self, rendered: str) -> _UnmarkedText:
        text, done = "", 0
        names, cuts, shifts = list[tuple[int, int]](), list[int](), list[tuple[int, int]]()
        for match in _MARKS.finditer(rendered):
            text += rendered[done : match.start()]
            done = match.end()
            if match[1] is None:
                cuts.append(len(text))
            else:
                name = self._names[int(match[1])]
                names.append((len(text), len(text) + len(name)))
                text += name
            shifts.append((done, done - len(text)))
        return _UnmarkedText(text + rendered[done:], tuple(names), tuple(cuts), tuple(shifts))

    def _tokenise(self, unmarked: _UnmarkedText, add_special_tokens: bool) -> _Tokens:
        """Tokenise a string; in pieces if a control token's name is text or a token crosses the start of a reply.

        A generated reply never shares a token with the text before it.
        """
        starts = unmarked.cuts[::3]
        if unmarked.names:
            tokens = self._tokenise_pieces(unmarked, starts)
        else:
            tokens = self._tokenise_plain(unmarked.text, 0, is_text=False)
            if split_starts := [start for start in starts if any(a < start < b for a, b in tokens.offsets)]:
                tokens = self._tokenise_pieces(unmarked, split_starts)
        first, last = self._special_ids if add_special_tokens else ([], [])
        end = len(unmarked.text)
        offsets = [(0, 0)] * len(first) + tokens.offsets + [(end, end)] * len(last)
        return _Tokens([*first, *tokens.ids, *last], offsets)

    def _tokenise_pieces(self, unmarked: _UnmarkedText, starts: Sequence[int]) -> _Tokens:
        """Tokenise the string in pieces, split at the template's control tokens and at the starts of replies."""
        control_spans = [match.span() for match in self._name.finditer(unmarked.text)]
        control_spans = [
            span for span in control_spans if not any(a < span[1] and span[0] < b for a, b in unmarked.names)
        ]
        borders = sorted({0, len(unmarked.text), *starts, *(place for span in control_spans for place in span)})
        ids, offsets = list[int](), list[tuple[int, int]]()
        stop_of_control = dict(control_spans)
        after_control = True
        for start, stop in pairwise(borders):
            if stop_of_control.get(start) == stop:
                piece = self._tokenise_piece(unmarked.text[start:stop], start, is_text=False, is_first=True)
            else:
                is_text = any(a < stop and start < b for a, b in unmarked.names)
                is_first = start == 0 or (after_control and self._restarts_after_control)
                piece = self._tokenise_piece(unmarked.text[start:stop], start, is_text, is_first)
            after_control = start in stop_of_control
            ids += piece.ids
            offsets += piece.offsets
        return _Tokens(ids, offsets)

    def _tokenise_piece(self, text: str, start: int, is_text: bool, is_first: bool) -> _Tokens:
        """Tokenise a piece; a line break before it keeps the tokenizer from marking a string's beginning there."""
        if is_first:
            return self._tokenise_plain(text, start, is_text)
        line = self._tokenise_plain("\n", 0, is_text=False).ids
        tokens = self._tokenise_plain("\n" + text, start - 1, is_text)
        if tokens.ids[: len(line)] != line:
            return self._tokenise_plain(text, start, is_text)
        return _Tokens(tokens.ids[len(line) :], tokens.offsets[len(line) :])

    def _tokenise_plain(self, text: str, start: int, is_text: bool) -> _Tokens:
        encoded = self._wrapped(
            text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=is_text, verbose=False
        )
        return _Tokens(list(encoded["input_ids"]), [(a + start, b + start) for a, b in encoded["offset_mapping"]])

    @cached_property
    def _restarts_after_control(self) -> bool:
        """Whether text after a control token is tokenised as at the beginning of a string."""
        control = next(
            (name for name in self._names if len(self._tokenise_plain(name, 0, is_text=False).ids) == 1), None
        )
        if control is None:
            return True
        return (
            self._tokenise_plain(f"{control}a", 0, is_text=False).ids[1:]
            == self._tokenise_plain("a", 0, is_text=False).ids
        )

    @cached_property
    def _special_ids(self) -> tuple[list[int], list[int]]:
        """The special token ids that the tokenizer adds before and after a string."""
        text_ids, all_ids = self._tokenise_plain("a", 0, is_text=False).ids, list(self._wrapped("a")["input_ids"])
        for n in range(len(all_ids) - len(text_ids) + 1):
            if all_ids[n : n + len(text_ids)] == text_ids:
                return all_ids[:n], all_ids[n + len(text_ids) :]
        return [], []


def _replies(tokens: _Tokens, cuts: Sequence[int]) -> Iterator[Reply]:
    """The token positions of each reply: tokens that start and end inside its cuts."""
    n = len(tokens.ids)
    for start, *ends in zip(cuts[::3], cuts[1::3], cuts[2::3], strict=True):
        first = next((i for i in range(n) if tokens.offsets[i][0] >= start), n)
        stop, after = (next((i + 1 for i in range(n - 1, -1, -1) if tokens.offsets[i][1] <= end), 0) for end in ends)
        yield Reply(first, max(first, stop), max(first, after))
