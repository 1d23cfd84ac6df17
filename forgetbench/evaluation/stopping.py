"""Stop each row of a batch where its caps end: a thought has one of its own, and its answer's counts from its end.

Nothing is decided here: what counts of a reply is decided afterwards, by the same rule. This saves the tokens beyond.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from forgetbench.evaluation.replies import ReplyDecoder
from forgetbench.evaluation.settings import Settings


class ThoughtThenAnswer(StoppingCriteria):
    """Looks for marks of thoughts in the last tokens of each row, and asks for the row's length where one is new."""

    def __init__(self, replies: ReplyDecoder, settings: Settings, start: int, rows: int) -> None:
        """Begin a batch.

        Args:
            replies: knows the marks, and how long a reply may be.
            settings: the caps.
            start: tokens of the prompts, padding included.
            rows: items of the batch.
        """
        self._replies, self._settings, self._start = replies, settings, start
        self._needed = replies.needed(settings)
        self._lengths = [replies.length([], settings)] * rows
        self._seen: list[set[str]] = [set() for _ in range(rows)]
        self._window = max((len(mark.encode()) for mark in replies.marks), default=1)  # a token is a byte or more

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether each row (B,) has all tokens that it may have."""
        replies_BT = input_ids[:, self._start :]
        last = self._replies.texts(replies_BT[:, -self._window :].tolist())
        for row, text in enumerate(last):
            seen = {mark for mark in self._replies.marks if mark in text}
            if seen - self._seen[row]:
                self._lengths[row] = self._replies.length(replies_BT[row].tolist(), self._settings)
            self._seen[row] = seen
        done = [replies_BT.shape[1] >= max(length, self._needed) for length in self._lengths]
        return torch.tensor(done, device=input_ids.device)
