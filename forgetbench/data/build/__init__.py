"""Build multiple-choice sets out of classification sets, with wrong options that CLIP takes for right.

The construction is that of the paper's targets (ImageNet-VQA and its kind): of the five wrong classes most similar to a
picture, three are drawn and shuffled with the right one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """How to build a set."""

    images: Path | None
    """Folder of the published pictures; by default the one that docs/data.md names, below $FORGETBENCH_DOWNLOADS."""
    clip: str
    """CLIP or SigLIP checkpoint: Hub id or folder."""
    seed: int
    """Draws the wrong options and their order."""
    batch_size: int
    """Pictures in a CLIP pass; changes the speed only."""
    limit: int | None
    """Only so many pictures of each split; the same ones every time, and a larger limit keeps those of a smaller."""
