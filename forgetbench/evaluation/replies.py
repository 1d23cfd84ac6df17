"""Turn generated token ids into predictions: which tokens count, and their text.

The caps are applied to token ids after generation, so that every engine keeps the same reply.
Special tokens are removed from the text, except those that separate a thought from the answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import replace

from forgetbench.core.records import Prediction, Speaker, Turn
from forgetbench.data.collate import Encoder
from forgetbench.evaluation.settings import Settings
from forgetbench.scoring.reply import Marks

_SHORT_THOUGHT = 256
"""Tokens. A cap for answers below it leaves no room for a thought: the user is warned."""
_BEGINS_WITHIN = 16
"""A thought may begin within the first 16 tokens, even if the answer has fewer: a mark can take several tokens."""


class ReplyDecoder:
    """Reads replies of one model."""

    def __init__(self, encoder: Encoder, marks: Marks, ends: Collection[int] = ()) -> None:
        """Read the model's special tokens and chat template.

        Args:
            encoder: of the model.
            marks: begin and end marks of thoughts.
            ends: tokens that end a reply.
        """
        self._encoder, self._tokenizer, self._ends = encoder, encoder.tokenizer, frozenset(ends)
        self._openings, self._closings = ([pair[side] for pair in marks] for side in (0, 1))
        special = {i: str(token) for i, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        kept = {i for i, token in special.items() if any(token in text for text in self.marks)}
        self._dropped = set(special) - kept if kept else None
        # If the template begins the thought, the reply has only the end mark, or none when it is cut off.
        head = encoder.template.render([Turn(Speaker.user, ("?",))]).rstrip()
        self._opening = next((opening for opening in self._openings if head.endswith(opening)), "")

    @property
    def marks(self) -> list[str]:
        """Every text that begins or ends a thought."""
        return [*self._openings, *self._closings]

    @property
    def begins_in_thought(self) -> bool:
        """Whether the template begins a thought, so that every reply starts inside one."""
        return bool(self._opening)

    def thought_cap_warning(self, settings: Settings) -> str | None:
        """A warning if every reply begins with a thought and the caps leave no room for it; else None."""
        if not self.begins_in_thought or settings.max_thought_tokens is not None or settings.max_new_tokens is None:
            return None
        if settings.max_new_tokens >= _SHORT_THOUGHT:
            return None
        return (
            f"the model's template begins a thought, and a reply may have {settings.max_new_tokens} tokens, thought "
            "included. Few thoughts end within that, and one without an end is no answer: give thoughts tokens of "
            "their own, such as matrix.reasoning.max_tokens=1024."
        )

    def predictions(self, replies: Sequence[Sequence[int]], settings: Settings) -> list[Prediction]:
        """Predictions from replies: the tokens that the caps allow, up to the end of turn or a stop text.

        Args:
            replies: token ids of each reply, including the end of turn if it was written. Tokens after it, or beyond
                the caps, are ignored.
            settings: the caps, and the texts that end an answer.
        """
        kept = [self.truncate(ids, settings) for ids in replies]
        texts = self.texts([self._before_end(ids) for ids in kept])
        return [self._prediction(text, ids, settings) for text, ids in zip(texts, kept, strict=True)]

    def prediction_of_text(self, text: str, is_cut_off: bool, settings: Settings) -> Prediction:
        """A prediction from the text of a reply without token ids; the server has applied the caps already.

        Args:
            text: the reply, without the beginning that the template writes.
            is_cut_off: whether it ends at its cap.
            settings: the texts that end an answer.
        """
        written = text if any(mark in text for mark in self._openings) else self._opening + text
        prediction = self._prediction(written, (), settings)
        return replace(prediction, cut_off=is_cut_off and prediction.cut_off)

    def truncate(self, ids: Sequence[int], settings: Settings) -> Sequence[int]:
        """The tokens of a reply that the caps allow, the end of turn included."""
        return ids[: self.max_length(ids, settings)]

    def max_length(self, ids: Sequence[int], settings: Settings) -> int:
        """The most tokens that a reply with this beginning may have.

        The cap for thoughts counts from the beginning, the cap for answers from the end of the thought. Without a cap
        for thoughts, the cap for answers is for thought and answer together.

        Args:
            ids: the reply, as far as it is generated.
            settings: the caps; `max_new_tokens` must be a number.
        """
        answer, thought = settings.max_new_tokens, settings.max_thought_tokens
        assert answer is not None
        if thought is None:
            return answer
        ids, soon = self._before_end(ids), min(max(answer, _BEGINS_WITHIN), thought)
        begins = self.begins_in_thought or self._tokens_up_to(self._openings, ids[:soon]) is not None
        closed = self._tokens_up_to(self._closings, ids[: thought if begins else soon])
        if closed is not None:
            return closed + answer
        return thought if begins else answer

    def n_tokens_to_detect_thought(self, settings: Settings) -> int:
        """Tokens that are needed to tell whether a reply begins with a thought."""
        return 0 if self.begins_in_thought else min(_BEGINS_WITHIN, settings.max_thought_tokens or 0)

    def texts(self, replies: Sequence[Sequence[int]]) -> list[str]:
        """The replies as text, including the beginning of the thought that the template writes."""
        if self._dropped is None:
            texts = self._tokenizer.batch_decode(replies, skip_special_tokens=True)
        else:
            ids = [[token for token in reply if token not in self._dropped] for reply in replies]
            texts = self._tokenizer.batch_decode(ids, skip_special_tokens=False)
        return [self._opening + text for text in texts]

    def _prediction(self, written: str, ids: Sequence[int], settings: Settings) -> Prediction:
        text = self._encoder.strip_reply(written)
        # A stop text of blanks may be at the end, where `strip_reply` has stripped it.
        stops = self._first_stop(written, settings) is not None
        end = self._first_stop(text, settings)
        return Prediction(text=text[:end].strip(), cut_off=not stops and self._ends.isdisjoint(ids))

    def _first_stop(self, text: str, settings: Settings) -> int | None:
        """Position of the first stop text; None if there is none."""
        start = self._answer_start(text, settings)
        return min((place for stop in settings.stop if (place := text.find(stop, start)) >= 0), default=None)

    def _answer_start(self, text: str, settings: Settings) -> int:
        """Position from which stop texts count: after the thought if thoughts have a separate cap, else 0."""
        if settings.max_thought_tokens is None:
            return 0
        places = [text.find(mark) + len(mark) for mark in self._closings if mark in text]
        start = min(places) if places else len(text) if any(mark in text for mark in self._openings) else 0
        return len(text) - len(text[start:].lstrip())

    def _before_end(self, ids: Sequence[int]) -> Sequence[int]:
        """The tokens before the first end token."""
        return ids[: next((place for place, token in enumerate(ids) if token in self._ends), len(ids))]

    def _tokens_up_to(self, marks: Sequence[str], ids: Sequence[int]) -> int | None:
        """Number of tokens up to the end of the first mark; None if there is no mark."""

        def has_mark(n: int) -> bool:
            (text,) = self.texts([ids[:n]])
            return any(mark in text for mark in marks)

        return bisect_left(range(len(ids) + 1), True, key=has_mark) if has_mark(len(ids)) else None
