"""An item in the form that is sent to a server, and the check of the prompt that the server read."""

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
"""Tokens that a message shows on either side of a difference."""


class MismatchError(UserError):
    """The server reads another prompt than the intended one."""


class MissingLogprobError(UserError):
    """The server does not return a log-probability."""


@dataclass(frozen=True)
class Question:
    """One item up to the point where the model replies."""

    sample: Sample
    sent_ids: Sequence[int]
    """Token ids with one placeholder per picture."""
    expanded_ids: Sequence[int]
    """Token ids as the model reads them, pictures expanded."""
    show: Callable[[ImageRef], str]
    """Converts a picture to a data URI."""

    @cached_property
    def pictures(self) -> Sequence[str]:
        """Pictures as data URIs, in order; made when they are needed."""
        return tuple(map(self.show, self.sample.images))


@dataclass(frozen=True)
class Reply:
    """A reply of a server."""

    ids: Sequence[int] | None
    """Token ids; None if the server returns only the text."""
    text: str
    is_cut_off: bool
    """Whether the reply ended at the cap."""


@dataclass(frozen=True)
class Capabilities:
    """What a server can do, found out by requests."""

    accepts_token_ids: bool = False
    """Whether it takes prompts as token ids with pictures; then it returns the log-probability of any token."""
    returns_ids: bool = False
    """Whether it returns the token ids of prompts and replies."""
    top_logprobs: int = 0
    """Number of likeliest tokens whose log-probabilities it returns."""
    prompt_logprobs: bool = False
    """Whether it returns log-probabilities of a given reply."""
    extensions: bool = False
    """Whether it takes vLLM's additional request fields."""
    sampling: bool = False
    """Whether it takes `top_k` and `repetition_penalty`; a server may have other defaults from a model's files."""

    def missing_for(self, candidates: Collection[Sequence[Sequence[int]]]) -> str:
        """The capability that a dataset needs and the server lacks; empty if nothing is missing.

        Args:
            candidates: token ids of the candidates, by item.
        """
        if self.accepts_token_ids or not candidates:
            return ""
        if not self.top_logprobs:
            return "log-probabilities (`logprobs` and `top_logprobs` of /v1/chat/completions)"
        if any(len(ids) > 1 for options in candidates for ids in options) and not self.prompt_logprobs:
            return "log-probabilities of options of several tokens (`prompt_logprobs`)"
        return ""


class QuestionBuilder:
    """Makes questions; a picture that several items show is encoded once.

    `question` may be called from one thread only: encoding keeps a state. All other methods are thread-safe.
    """

    def __init__(self, encoder: Encoder, max_pixels: int | None) -> None:
        """Use an encoder.

        Args:
            encoder: of the model.
            max_pixels: larger pictures are shrunk here, as the encoder does.
        """
        self._encoder, self._max_pixels = encoder, max_pixels
        self._uris: LRUCache[ImageRef, str] = LRUCache(_CACHE_BYTES, getsizeof=len)
        self._lock, self._reading, self._tokenising = Lock(), Lock(), Lock()

    def question(self, sample: Sample, expanded_ids: Sequence[int]) -> Question:
        """The question of an item.

        Args:
            sample: the item.
            expanded_ids: token ids of its prompt as the model reads them, pictures expanded.
        """
        with self._tokenising:
            sent = self._encoder.sent_ids(sample)
        return Question(sample, sent, expanded_ids, self._uri)

    def text(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        with self._tokenising:  # encoding changes settings of the tokenizer meanwhile
            return str(self._encoder.tokenizer.decode(list(ids), skip_special_tokens=False))

    def piece(self, token: int) -> str:
        """A token as the vocabulary writes it."""
        with self._tokenising:
            return str(self._encoder.tokenizer.convert_ids_to_tokens(token))

    def check(self, question: Question, reply_ids: Sequence[int], answer: dict[str, Any]) -> str:
        """Compare the prompt that the server read with the intended one.

        Args:
            question: that was sent.
            reply_ids: token ids of the given reply that followed it.
            answer: of the server.

        Returns:
            How it was compared: `token ids`, `number of tokens`, or `nothing`.

        Raises:
            MismatchError: they differ; names the item.
        """
        meant = [*question.expanded_ids, *reply_ids]
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
        with self._reading:  # open archives and tables of pictures allow one reader at a time
            held = replace(image, data=read_image(image))
        stream = io.BytesIO()
        # Send decoded pixels, without loss: decoders may disagree on a JPEG and its orientation.
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
    """A log-probability in a server's answer as a float.

    Raises:
        UserError: it is not a finite number; names the item.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(
            f"Item '{question.sample.id}': the server gives {value} for a log-probability. It may have run out of the "
            "range of its numbers: serve the model in another precision (bfloat16, float32)."
        )
    return float(value)


@contextmanager
def reading_answer(question: Question) -> Iterator[None]:
    """Refuse an answer whose fields are missing or have wrong types.

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
