"""Verify datasets against their manifests: digests, sizes, items, pictures, and leaks from training to evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef
from forgetbench.data.audit.duplicates import pixel_digest
from forgetbench.data.manifest import Manifest
from forgetbench.data.pictures import decode_image
from forgetbench.data.sources import load_samples

THUMBNAIL = 16
NEAR = 0.03
"""Root mean square difference of 16x16 grey thumbnails (0..1) below which two pictures count as near-duplicates."""
CHUNK = 256
"""Evaluation pictures compared at a time, which bounds memory."""


@dataclass(frozen=True)
class Picture:
    """What is compared of one picture."""

    pixels: bytes
    """Digest of size and RGB values."""
    thumbnail: np.ndarray
    """(256,) grey values in 0..1."""


@dataclass
class DatasetAudit:
    """What a check found in one dataset."""

    name: str
    problems: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    train: dict[str, Picture] = field(default_factory=dict)
    evaluated: dict[str, Picture] = field(default_factory=dict)
    is_mixture: bool = False


@dataclass(frozen=True)
class Leak:
    """Training pictures that an evaluation split shows again."""

    identical: int
    near: int
    """Near-duplicates, the identical ones not counted."""


class Pictures:
    """Decodes every picture once, however many datasets show it."""

    def __init__(self) -> None:
        """Start empty."""
        self._seen: dict[tuple[str, str], Picture] = {}

    def get(self, image: ImageRef) -> Picture:
        """The picture's fingerprints."""
        key = (image.container, image.name)
        if key not in self._seen:
            decoded = decode_image(image)
            grey = decoded.convert("L").resize((THUMBNAIL, THUMBNAIL))
            self._seen[key] = Picture(pixel_digest(decoded), np.asarray(grey, dtype=np.float32).ravel() / 255)
        return self._seen[key]


def audit_dataset(manifest: Manifest, pictures: Pictures) -> DatasetAudit:
    """Check one dataset with a source; a mixture has nothing of its own to check."""
    result = DatasetAudit(manifest.name, is_mixture=manifest.source is None)
    if manifest.source is None:
        return result
    for name, expected in manifest.source.sha256.items():
        result.problems += _digest_problems(manifest.root / name, expected)
    for split, described in manifest.splits.items():
        try:
            samples = load_samples(manifest, split)
            found = {image.name: pictures.get(image) for sample in samples for image in sample.images}
        except (UserError, OSError) as error:
            result.problems.append(str(error))
            continue
        result.sizes[split] = len(samples)
        wanted = min((one for one in (described.n, described.limit) if one is not None), default=None)
        if described.n is not None and wanted != len(samples):
            result.problems.append(f"split '{split}' has {len(samples)} items, its manifest says {wanted}")
        (result.evaluated if split == manifest.eval_split else result.train).update(found)
    return result


def leak(evaluated: Mapping[str, Picture], train: Iterable[Picture]) -> Leak:
    """Count evaluation pictures that training pictures repeat, exactly or nearly."""
    train = list({picture.pixels: picture for picture in train}.values())
    exact = {picture.pixels for picture in train}
    others = [picture.thumbnail for picture in evaluated.values() if picture.pixels not in exact]
    identical = len(evaluated) - len(others)
    return Leak(identical, _count_near(others, [picture.thumbnail for picture in train]))


def _count_near(evaluated: Sequence[np.ndarray], train: Sequence[np.ndarray]) -> int:
    if not evaluated or not train:
        return 0
    known_TP, asked_EP = np.stack(train), np.stack(evaluated)
    lengths_T, near = (known_TP**2).sum(1), 0
    for start in range(0, len(asked_EP), CHUNK):
        part_CP = asked_EP[start : start + CHUNK]
        squares_CT = (part_CP**2).sum(1)[:, None] + lengths_T[None] - 2 * part_CP @ known_TP.T
        near += int((squares_CT.min(axis=1) < NEAR**2 * asked_EP.shape[1]).sum())
    return near


def _digest_problems(path: Path, expected: str) -> list[str]:
    if not path.is_file():
        return [f"{path} is missing"]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return [] if found == expected else [f"{path}: sha256 is {found}, its manifest says {expected}"]
