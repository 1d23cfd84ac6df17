"""Garments that are neither trained on nor tested, for choosing learning rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.build_world import fetch
from tools.build_world.images import NEAR, Picture, balanced, nearest, rng
from tools.build_world.text import GARMENTS

EACH = 40
"""Per class."""


def garments(folder: Path, pictures: list[Picture], report: list[str]) -> list[Picture]:
    """Candidates after those that the test sets were chosen from, near to no train garment and to none of those.

    Args:
        folder: the unpacked package of Fashion-MNIST.
        pictures: the world's; those in fashion/train count.
        report: lines about what was dropped.
    """
    pixels, labels = fetch.fashion_mnist(folder, "t10k")
    order = rng("fashion/test").permutation(len(labels))
    tested, pool = order[:2000], order[2000:4000]
    train = np.stack([picture.pixels for picture in pictures if picture.group == "fashion/train"])
    distance = np.minimum(nearest(pixels[pool], train), nearest(pixels[pool], pixels[tested]))
    kept = pool[distance >= NEAR]
    report.append(f"fashion: {len(pool) - len(kept)} of {len(pool)} candidate validation garments dropped")
    return [
        Picture(f"fashion/validation/{i:05d}.webp", GARMENTS[labels[k]], pixels[k])
        for i, k in enumerate(balanced(labels, kept, EACH))
    ]
