"""Stop each row of a batch at its caps: one for the thought, and one for the answer, counted from the thought's end.

This only saves tokens: which part of a reply counts is decided afterwards, by the same rule.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from forgetbench.evaluation.replies import ReplyDecoder
from forgetbench.evaluation.settings import Settings


class ThoughtThenAnswer(StoppingCriteria):
    """Searches the last tokens of each row for marks of thoughts; a new mark changes the row's maximum length."""

    def __init__(self, replies: ReplyDecoder, settings: Settings, start: int, rows: int) -> None:
        """Begin a batch.

        Args:
            replies: has the marks and computes the maximum length.
            settings: the caps.
            start: tokens of the prompts, padding included.
            rows: items of the batch.
        """
        self._replies, self._settings, self._start = replies, settings, start
        self._detection_tokens = replies.n_tokens_to_detect_thought(settings)
        self._lengths = [replies.max_length([], settings)] * rows
        self._seen: list[set[str]] = [set() for _ in range(rows)]
        self._window = max((len(mark.encode()) for mark in replies.marks), default=1)  # a token is a byte or more

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether each row (B,) has reached its maximum length."""
        replies_BT = input_ids[:, self._start :]
        last = self._replies.texts(replies_BT[:, -self._window :].tolist())
        for row, text in enumerate(last):
            seen = {mark for mark in self._replies.marks if mark in text}
            if seen - self._seen[row]:
                self._lengths[row] = self._replies.max_length(replies_BT[row].tolist(), self._settings)
            self._seen[row] = seen
        done = [replies_BT.shape[1] >= max(length, self._detection_tokens) for length in self._lengths]
        return torch.tensor(done, device=input_ids.device)
