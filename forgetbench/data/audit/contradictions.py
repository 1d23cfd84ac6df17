"""Find claims of manifests that the data contradict.

A manifest's lists determine a dataset's side of each axis (see `quadrant`). The data can refute two claims:
"out-of-distribution image", if the target's training pictures include the dataset's pictures; and "out-of-distribution
text", if the target's training items have the same questions and answers as the dataset. Claims that are not refuted
are not proven.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forgetbench.core.records import Axis
from forgetbench.data.audit.overlap import TextOverlap
from forgetbench.data.manifest import Manifest
from forgetbench.data.quadrant import place

MOST_PICTURES = 0.05
"""Share of an OOD dataset's pictures that may resemble training pictures; tiny pictures do so by chance."""
MOST_QUESTIONS = 0.5
"""Share of an OOD dataset's items whose question and answer may both occur in training."""


@dataclass(frozen=True)
class SharedContent:
    """The content of an evaluation set that a training set repeats."""

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
        """Whether a training picture or item is also scored, unchanged."""
        return bool(self.identical or self.items)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is shared, not even a question."""
        return not (self.is_leak or self.near or self.texts.questions or self.texts.near)


def contradictions(target: Manifest, evaluated: Manifest, shared: SharedContent) -> Iterator[str]:
    """Quadrant claims of an evaluation set that the content shared with the target's training set refutes."""
    placement = place(target, evaluated)
    pictures = (shared.identical + shared.near) / shared.pictures if shared.pictures else 0.0
    if placement.image_axis is Axis.ood and pictures > MOST_PICTURES:
        yield f"image is called OOD, but {pictures:.0%} of its pictures are training pictures, exactly or nearly"
    texts = shared.texts
    if placement.text_axis is Axis.ood and texts.answered > MOST_QUESTIONS * texts.items:
        yield f"text is called OOD, but {texts.answered / texts.items:.0%} of its questions and answers are in training"
