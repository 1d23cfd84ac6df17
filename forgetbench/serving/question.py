"""An item as it is sent, and what a server has to say of it before its answer counts."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any

from cachetools import LRUCache, cachedmethod

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef, Sample
from forgetbench.data.collate import Encoder
from forgetbench.data.pictures import decode_image, read_image

_CACHE_BYTES = 1 << 28
_SHOWN = 8
"""Tokens on either side of a difference that a message shows."""


class MismatchError(UserError):
    """The server reads another prompt than the one that is meant."""


class UntoldError(UserError):
    """The server does not tell a log-probability."""


@dataclass(frozen=True)
class Question:
    """One item up to where the model replies."""

    sample: Sample
    sent_ids: Sequence[int]
    """Token ids with one placeholder for each picture."""
    whole_ids: Sequence[int]
    """Token ids as the model reads them."""
    show: Callable[[ImageRef], str]
    """Gives a picture as a data URI."""

    @cached_property
    def pictures(self) -> Sequence[str]:
        """As data URIs, in the order in which they are read; made when they are needed."""
        return tuple(map(self.show, self.sample.images))


@dataclass(frozen=True)
class Reply:
    """What a server wrote."""

    ids: Sequence[int] | None
    """Token ids; None where it tells only the text."""
    text: str
    is_cut_off: bool
    """Whether it ended at the cap."""


@dataclass(frozen=True)
class Abilities:
    """What a server turned out to do when it was tried."""

    takes_ids: bool = False
    """Prompts as token ids beside pictures; then the log-probability of any token is returned."""
    returns_ids: bool = False
    """The token ids of prompts and replies."""
    top_logprobs: int = 0
    """Likeliest tokens whose log-probabilities are returned; 0: none."""
    prompt_logprobs: bool = False
    """Log-probabilities of a reply that is given."""
    extensions: bool = False
    """Whether vLLM's own fields of a request are taken."""
    sampling: bool = False
    """Whether `top_k` and `repetition_penalty` are taken, of which a server may have defaults from a model's files."""

    def lacking(self, candidates: Collection[Sequence[Sequence[int]]]) -> str:
        """What a dataset needs and the server lacks; empty where it has all.

        Args:
            candidates: token ids of what items may be answered with, by item.
        """
        if self.takes_ids or not candidates:
            return ""
        if not self.top_logprobs:
            return "log-probabilities (`logprobs` and `top_logprobs` of /v1/chat/completions)"
        if any(len(ids) > 1 for one in candidates for ids in one) and not self.prompt_logprobs:
            return "log-probabilities of options of several tokens (`prompt_logprobs`)"
        return ""


class Questions:
    """Makes questions; a picture that many items show is encoded once.

    `question` is for one thread: encoding keeps a state. All else is for any thread.
    """

    def __init__(self, encoder: Encoder, max_pixels: int | None) -> None:
        """Use an encoder.

        Args:
            encoder: of the model.
            max_pixels: pictures with more are shrunk here, as they are for the encoder.
        """
        self._encoder, self._max_pixels = encoder, max_pixels
        self._uris: LRUCache[ImageRef, str] = LRUCache(_CACHE_BYTES, getsizeof=len)
        self._lock, self._reading, self._tokenising = Lock(), Lock(), Lock()

    def question(self, sample: Sample, whole_ids: Sequence[int]) -> Question:
        """An item as it is sent.

        Args:
            sample: the item.
            whole_ids: its token ids as the model reads them.
        """
        with self._tokenising:
            sent = self._encoder.sent_ids(sample)
        return Question(sample, sent, whole_ids, self._uri)

    def text(self, ids: Sequence[int]) -> str:
        """What token ids stand for."""
        with self._tokenising:  # to encode changes settings of the tokenizer, which must not be read then
            return str(self._encoder.tokenizer.decode(list(ids), skip_special_tokens=False))

    def piece(self, token: int) -> str:
        """A token as the vocabulary writes it."""
        with self._tokenising:
            return str(self._encoder.tokenizer.convert_ids_to_tokens(token))

    def check(self, question: Question, further: Sequence[int], answer: dict[str, Any]) -> str:
        """Hold what the server read against what is meant.

        Args:
            question: what was sent.
            further: token ids of the reply that was sent along.
            answer: the server's.

        Returns:
            What was compared: `token ids`, `number of tokens`, or `nothing`.

        Raises:
            MismatchError: they differ; names the item.
        """
        meant = [*question.whole_ids, *further]
        read = answer.get("prompt_token_ids")
        if read is not None:
            if list(read) != meant:
                raise MismatchError(self._difference(question, meant, list(read)))
            return "token ids"
        count = (answer.get("usage") or {}).get("prompt_tokens")
        if count is None:
            return "nothing"
        if count != len(meant):
            raise MismatchError(
                f"Item '{question.sample.id}': the server reads {count} tokens of prompt, and {len(meant)} are meant. "
                f"{_CAUSES}"
            )
        return "number of tokens"

    @cachedmethod(lambda self: self._uris, lock=lambda self: self._lock)
    def _uri(self, image: ImageRef) -> str:
        with self._reading:  # files and tables that hold pictures stay open, for one reader at a time
            held = replace(image, data=read_image(image))
        stream = io.BytesIO()
        # Of what is decoded here, without loss: two decoders need not agree on a JPEG, nor on its orientation.
        decode_image(held, self._max_pixels).save(stream, "PNG", compress_level=1)
        return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"

    def _difference(self, question: Question, meant: Sequence[int], read: Sequence[int]) -> str:
        differing = (k for k, (a, b) in enumerate(zip(meant, read, strict=False)) if a != b)
        place = next(differing, min(len(meant), len(read)))
        around = slice(max(0, place - _SHOWN), place + _SHOWN)
        return (
            f"Item '{question.sample.id}': the server reads another prompt than is meant, from token {place} on "
            f"({len(read)} tokens, and {len(meant)} are meant). It reads {self.text(read[around])!r}, meant is "
            f"{self.text(meant[around])!r}. {_CAUSES}"
        )


def number(value: Any, question: Question) -> float:
    """A log-probability that a server tells.

    Raises:
        UserError: it is none; names the item.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(
            f"Item '{question.sample.id}': the server gives {value} for a log-probability. It may have run out of the "
            "range of its numbers: serve the model in another precision (bfloat16, float32)."
        )
    return float(value)


@contextmanager
def reading_answer(question: Question) -> Iterator[None]:
    """Refuse an answer that lacks what it must hold.

    Raises:
        UserError: names the item.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"Item '{question.sample.id}': the server's answer does not hold what was asked for "
            f"({type(error).__name__}: {error}). Is it another protocol's, or a version with another layout?"
        ) from error


_CAUSES = (
    "Its chat template, its system prompt or the size that it brings pictures to is another one: start it with the "
    "files of the model that is scored, and with the same settings (docs/serving.md)."
)
