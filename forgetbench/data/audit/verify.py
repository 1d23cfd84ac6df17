"""Verify a dataset against its manifest: digests, sizes, items, conversations, pictures."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.core.records import Speaker
from forgetbench.data.audit.duplicates import Fingerprint, Fingerprints
from forgetbench.data.manifest import Manifest
from forgetbench.data.sources import SplitItems, left_out, read_split, refusal, without_pictures


@dataclass(frozen=True)
class Contents:
    """Counts over the items of all splits."""

    pictures: int = 0
    """A picture counts each time it is shown."""
    conversations: int = 0
    """Items that are conversations in the file, with any number of turns."""
    turns: int = 0
    """Turns of the conversations, including the last replies."""
    system_turns: int = 0
    layouts: Mapping[str, int] = field(default_factory=dict)
    """Layout -> conversations."""


@dataclass(frozen=True)
class Verification:
    """The result of checking a dataset."""

    name: str
    problems: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Split -> items."""
    contents: Contents = field(default_factory=Contents)
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Split -> id -> reason, for records that make no item."""
    train: Mapping[bytes, Fingerprint] = field(default_factory=dict)
    """Pictures of every split but the evaluation split, by `Fingerprint.pixels`."""
    evaluated: Mapping[bytes, Fingerprint] = field(default_factory=dict)
    is_mixture: bool = False


def verify(manifest: Manifest, fingerprints: Fingerprints) -> Verification:
    """Check a dataset with a source; a mixture has no files to check."""
    if manifest.source is None:
        return Verification(manifest.name, is_mixture=True)
    problems, sizes, items_of_split = list[str](), dict[str, int](), dict[str, SplitItems]()
    train, evaluated = dict[bytes, Fingerprint](), dict[bytes, Fingerprint]()
    for name, expected in manifest.source.sha256.items():
        try:
            problems += _digest_problems(manifest.file(name), expected)
        except UserError as error:
            problems.append(str(error))
    for split, split_info in manifest.splits.items():
        try:
            split_items = items_of_split[split] = read_split(manifest, split)
            pictures = [fingerprints.get(image) for sample in split_items.samples for image in sample.images]
        except (UserError, OSError) as error:
            problems.append(str(error))
            continue
        problems += _item_problems(manifest, split, split_items)
        if split_items.refused:
            continue
        sizes[split] = len(split_items.samples)
        wanted = min((size for size in (split_info.n, split_info.limit) if size is not None), default=None)
        if split_info.n is not None and wanted != len(split_items.samples):
            problems.append(f"split '{split}' has {len(split_items.samples)} items, its manifest says {wanted}")
        (evaluated if split == manifest.eval_split else train).update(
            {fingerprint.pixels: fingerprint for fingerprint in pictures}
        )
    left_out_of = {split: split_items.left_out for split, split_items in items_of_split.items() if split_items.left_out}
    contents = _contents(list(items_of_split.values()))
    return Verification(manifest.name, tuple(problems), sizes, contents, left_out_of, train, evaluated)


def _item_problems(manifest: Manifest, split: str, split_items: SplitItems) -> Iterator[str]:
    if split_items.refused:
        yield refusal(manifest, split, split_items.refused)
    elif not split_items.samples:
        yield f"split '{split}' has no items"
    elif manifest.image_domains != ["text"] and not any(sample.images for sample in split_items.samples):
        yield without_pictures(manifest, split)
    if split_items.left_out:
        yield left_out(split, split_items.left_out)


def _contents(all_splits: Sequence[SplitItems]) -> Contents:
    conversations = [
        sample for split_items in all_splits for sample in split_items.samples if sample.id in split_items.layouts
    ]
    return Contents(
        pictures=sum(len(sample.images) for split_items in all_splits for sample in split_items.samples),
        conversations=len(conversations),
        turns=sum(len(sample.turns) + 1 for sample in conversations),
        system_turns=sum(sample.turns[0].speaker is Speaker.system for sample in conversations),
        layouts=dict(Counter(layout for split_items in all_splits for layout in split_items.layouts.values())),
    )


def _digest_problems(path: Path, expected: str) -> list[str]:
    if not path.is_file():
        return [f"{path} is missing"]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [] if digest == expected else [f"{path}: sha256 is {digest}, its manifest says {expected}"]
