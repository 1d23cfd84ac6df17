"""What a model wrote: how many of its tokens count, and their text.

The caps are applied to token ids after generation, so that every engine keeps the same reply, whatever it asked for.
Text is without special tokens, save those that tell a thought from its answer.
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
"""A cap below it, written for answers, is said to leave a thought no room."""
_BEGINS_WITHIN = 16
"""A thought may begin within so many tokens, however few an answer may have: a mark can take several."""


class ReplyDecoder:
    """Reads replies of one model."""

    def __init__(self, encoder: Encoder, marks: Marks, ends: Collection[int] = ()) -> None:
        """Look at the model's tokens and template.

        Args:
            encoder: of the model.
            marks: what thoughts stand between.
            ends: tokens that end a reply.
        """
        self._encoder, self._tokenizer, self._ends = encoder, encoder.tokenizer, frozenset(ends)
        self._openings, self._closings = ([pair[side] for pair in marks] for side in (0, 1))
        special = {i: str(token) for i, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        kept = {i for i, token in special.items() if any(token in text for text in self.marks)}
        self._dropped = set(special) - kept if kept else None
        # A template may begin the thought itself; then the reply has its end only, or neither when it is cut off.
        head = encoder.template.render([Turn(Speaker.user, ("?",))]).rstrip()
        self._opening = next((opening for opening in self._openings if head.endswith(opening)), "")

    @property
    def marks(self) -> list[str]:
        """Every text that begins or ends a thought."""
        return [*self._openings, *self._closings]

    @property
    def begins_in_thought(self) -> bool:
        """Whether the template begins a thought, so that every reply is one at first."""
        return bool(self._opening)

    def lack_of_room(self, settings: Settings) -> str | None:
        """What to say of caps that leave no room for the thought that every reply begins with; None if they do."""
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
        """What replies count as: as much of them as the caps allow, up to the end of turn or a stop text.

        Args:
            replies: token ids of each, the end of turn included where it was written; what comes after it, or after the
                caps, may be anything.
            settings: the caps, and the texts that end an answer.
        """
        kept = [self.within_caps(ids, settings) for ids in replies]
        texts = self.texts([self._before_end(ids) for ids in kept])
        return [self._prediction(text, ids, settings) for text, ids in zip(texts, kept, strict=True)]

    def prediction_of_text(self, text: str, is_cut_off: bool, settings: Settings) -> Prediction:
        """What a reply counts as whose token ids are not known, so that whoever wrote it applied the caps.

        Args:
            text: the reply, after what the template begins it with.
            is_cut_off: whether it ends at its cap.
            settings: the texts that end an answer.
        """
        written = text if any(mark in text for mark in self._openings) else self._opening + text
        found = self._prediction(written, (), settings)
        return replace(found, cut_off=is_cut_off and found.cut_off)

    def within_caps(self, ids: Sequence[int], settings: Settings) -> Sequence[int]:
        """The tokens of a reply that the caps allow, the end of turn included."""
        return ids[: self.length(ids, settings)]

    def length(self, ids: Sequence[int], settings: Settings) -> int:
        """The most tokens that a reply which begins like this may have.

        The cap of thoughts counts from the beginning, that of answers from the end of the thought. Without a cap of
        thoughts that of answers is for both.

        Args:
            ids: the reply, or as much of it as there is.
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

    def needed(self, settings: Settings) -> int:
        """How many tokens tell whether a reply begins with a thought."""
        return 0 if self.begins_in_thought else min(_BEGINS_WITHIN, settings.max_thought_tokens or 0)

    def texts(self, replies: Sequence[Sequence[int]]) -> list[str]:
        """The replies as text, from the beginning of their thought."""
        if self._dropped is None:
            texts = self._tokenizer.batch_decode(replies, skip_special_tokens=True)
        else:
            ids = [[token for token in reply if token not in self._dropped] for reply in replies]
            texts = self._tokenizer.batch_decode(ids, skip_special_tokens=False)
        return [self._opening + text for text in texts]

    def _prediction(self, written: str, ids: Sequence[int], settings: Settings) -> Prediction:
        text = self._encoder.strip_reply(written)
        # A stop text of blanks may be at the end, and no longer in what is said.
        stops = self._first_stop(written, settings) is not None
        end = self._first_stop(text, settings)
        return Prediction(text=text[:end].strip(), cut_off=not stops and self._ends.isdisjoint(ids))

    def _first_stop(self, text: str, settings: Settings) -> int | None:
        """Where the first stop text is; None where there is none."""
        start = self._answer_start(text, settings)
        return min((place for stop in settings.stop if (place := text.find(stop, start)) >= 0), default=None)

    def _answer_start(self, text: str, settings: Settings) -> int:
        """Where stop texts count from: behind the thought, if thoughts have a cap of their own; else the beginning."""
        if settings.max_thought_tokens is None:
            return 0
        places = [text.find(mark) + len(mark) for mark in self._closings if mark in text]
        start = min(places) if places else len(text) if any(mark in text for mark in self._openings) else 0
        return len(text) - len(text[start:].lstrip())

    def _before_end(self, ids: Sequence[int]) -> Sequence[int]:
        """Tokens before the first that ends a reply."""
        return ids[: next((place for place, one in enumerate(ids) if one in self._ends), len(ids))]

    def _tokens_up_to(self, marks: Sequence[str], ids: Sequence[int]) -> int | None:
        """How many tokens it takes to the end of the first mark; None where there is none."""

        def holds_one(n: int) -> bool:
            (text,) = self.texts([ids[:n]])
            return any(mark in text for mark in marks)

        return bisect_left(range(len(ids) + 1), True, key=holds_one) if holds_one(len(ids)) else None
