"""Verify a dataset against its manifest: digests, sizes, items, pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.data.audit.duplicates import Fingerprint, Fingerprints
from forgetbench.data.manifest import Manifest
from forgetbench.data.sources import load_samples


@dataclass(frozen=True)
class Verified:
    """What was found in one dataset."""

    name: str
    problems: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Split -> items."""
    train: Mapping[bytes, Fingerprint] = field(default_factory=dict)
    """Pictures of every split but the evaluation split, by `Fingerprint.pixels`."""
    evaluated: Mapping[bytes, Fingerprint] = field(default_factory=dict)
    is_mixture: bool = False


def verify(manifest: Manifest, fingerprints: Fingerprints) -> Verified:
    """Check one dataset with a source; a mixture has nothing of its own to check."""
    if manifest.source is None:
        return Verified(manifest.name, is_mixture=True)
    problems, sizes = list[str](), dict[str, int]()
    train, evaluated = dict[bytes, Fingerprint](), dict[bytes, Fingerprint]()
    for name, expected in manifest.source.sha256.items():
        problems += _digest_problems(manifest.root / name, expected)
    for split, described in manifest.splits.items():
        try:
            samples = load_samples(manifest, split)
            pictures = [fingerprints.get(image) for sample in samples for image in sample.images]
        except (UserError, OSError) as error:
            problems.append(str(error))
            continue
        sizes[split] = len(samples)
        wanted = min((one for one in (described.n, described.limit) if one is not None), default=None)
        if described.n is not None and wanted != len(samples):
            problems.append(f"split '{split}' has {len(samples)} items, its manifest says {wanted}")
        (evaluated if split == manifest.eval_split else train).update({one.pixels: one for one in pictures})
    return Verified(manifest.name, tuple(problems), sizes, train, evaluated)


def _digest_problems(path: Path, expected: str) -> list[str]:
    if not path.is_file():
        return [f"{path} is missing"]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return [] if found == expected else [f"{path}: sha256 is {found}, its manifest says {expected}"]
