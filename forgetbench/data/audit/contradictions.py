"""Where the data contradict what manifests claim: a quadrant holds only if the pictures and the questions bear it out.

A manifest's lists decide on which side of each axis a set is (see `quadrant`). Two claims can be refuted by looking:
"out-of-distribution image", if the target's training pictures show the set's own; and "out-of-distribution text", if
the target's training items ask the set's own questions and answer them with its answers. That a claim is not refuted
proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forgetbench.core.records import Axis
from forgetbench.data.audit.overlap import TextOverlap
from forgetbench.data.manifest import Manifest
from forgetbench.data.quadrant import place

MOST_PICTURES = 0.05
"""Share of an out-of-distribution set's pictures that may look like training pictures; by chance, tiny ones do."""
MOST_QUESTIONS = 0.5
"""Share of an out-of-distribution set's items whose question and answer may both occur in training."""


@dataclass(frozen=True)
class Shared:
    """What a training set repeats of an evaluation set."""

    pictures: int
    """Distinct pictures of the evaluation set."""
    identical: int
    near: int
    """Near-duplicates, identical ones not counted."""
    texts: TextOverlap
    items: int
    """Items whose picture, question and answer are all in training."""

    @property
    def is_leak(self) -> bool:
        """Whether a training picture or item is scored again as it is."""
        return bool(self.identical or self.items)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is shared, not even a question."""
        return not (self.is_leak or self.near or self.texts.questions or self.texts.near)


def contradictions(target: Manifest, evaluated: Manifest, shared: Shared) -> Iterator[str]:
    """What is wrong with an evaluation set's place relative to a target set."""
    placed = place(target, evaluated)
    pictures = (shared.identical + shared.near) / shared.pictures if shared.pictures else 0.0
    if placed.image_axis is Axis.ood and pictures > MOST_PICTURES:
        yield f"image is called OOD, but {pictures:.0%} of its pictures are training pictures, exactly or nearly"
    texts = shared.texts
    if placed.text_axis is Axis.ood and texts.answered > MOST_QUESTIONS * texts.items:
        yield f"text is called OOD, but {texts.answered / texts.items:.0%} of its questions and answers are in training"
