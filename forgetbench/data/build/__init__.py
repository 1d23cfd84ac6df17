"""Build multiple-choice datasets from classification datasets, with hard negatives by CLIP.

The construction follows the paper's targets (such as ImageNet-VQA): of the five wrong classes most similar to a
picture, three are drawn and shuffled with the right class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Options of building a dataset."""

    images: Path | None
    """Folder of the published pictures; by default the folder named in docs/data.md, below $FORGETBENCH_DOWNLOADS."""
    clip: str
    """CLIP or SigLIP checkpoint: Hub id or folder."""
    seed: int
    """Draws the wrong options and their order."""
    batch_size: int
    """Pictures in a CLIP pass; changes the speed only."""
    limit: int | None
    """At most so many pictures per split, the same every time; a larger limit keeps the pictures of a smaller one."""
