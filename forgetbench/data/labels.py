"""The labels a task trains: what a fine-tuned model may answer with where something else is asked."""

from __future__ import annotations

from collections.abc import Sequence

from forgetbench.core.records import AnswerKind, Sample

MAX_LABELS = 5000
"""A task with more different answers has no set of labels; ImageNet has 1000."""


def task_labels(samples: Sequence[Sample]) -> list[str]:
    """The different answers of a task in words (the right option's text, where letters are answered), sorted.

    Empty for open-ended tasks: more than MAX_LABELS different answers, or answers that hardly repeat.
    """
    found = {
        sample.options[sample.target]
        if sample.kind is AnswerKind.letter and sample.target is not None
        else sample.answer
        for sample in samples
    }
    return sorted(found) if len(found) <= min(MAX_LABELS, len(samples) // 2) else []
