"""`forgetbench data audit`: what training sets and evaluation sets share, and which quadrants that contradicts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from forgetbench.config import FinetuneConfig
from forgetbench.core.records import ImageRef
from forgetbench.data.audit.contradictions import SharedContent
from forgetbench.data.audit.duplicates import Fingerprints, count_duplicates, nearest_pairs
from forgetbench.data.audit.findings import Item, Split, SplitComparison, comparison_row, findings_table, write_findings
from forgetbench.data.audit.overlap import TextIndex, count_overlap, questions_and_answers
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import Manifest
from forgetbench.data.sources import load_samples
from forgetbench.terminal.console import print_rows, say
from forgetbench.terminal.progress import tracked

Place = tuple[Manifest, str]
"""A dataset and one of its splits."""


def data_audit(config: FinetuneConfig, names: Sequence[str], as_json: bool) -> bool:
    """Compare every training set with every evaluation set, and write what they share under `<outputs>/audit`.

    Args:
        config: names the folders of manifests, and `outputs`.
        names: of the datasets; without any, all that are on this machine. Of mixtures, the parts.
        as_json: write for a program.

    Returns:
        Whether no evaluation picture or item is in training as it is, and no quadrant is contradicted.

    Raises:
        UserError: a set cannot be read.
    """
    catalogue = Catalogue(config.manifests)
    chosen = names or [name for name in catalogue.names() if catalogue.load(name).is_here]
    trained, scored = _splits(catalogue, chosen)
    fingerprints = Fingerprints()
    training = [_read(one, split, fingerprints) for one, split in trained]
    evaluated = [_read(one, split, fingerprints) for one, split in scored]
    found = _compared(training, evaluated, fingerprints)
    folder = Path(config.outputs) / "audit"
    written = write_findings(found, folder)
    table = findings_table(found, f"{len(training)} training splits beside {len(evaluated)} evaluation splits")
    print_rows(table, [comparison_row(one) for one in found], as_json)
    if not as_json:
        say(f"Written: {', '.join(map(str, written))}")
    return not any(one.shared.is_leak or one.contradictions for one in found)


def _splits(catalogue: Catalogue, names: Sequence[str]) -> tuple[list[Place], list[Place]]:
    """What is trained on and what is scored, each once; a mixture is trained on as its parts."""
    trained, scored = dict[tuple[str, str], Place](), dict[tuple[str, str], Place]()
    for name in names:
        manifest = catalogue.load(name)
        if manifest.mixture or manifest.train_split in manifest.splits:
            for leaf in catalogue.leaves(name):
                trained[leaf.manifest.name, leaf.split] = (leaf.manifest, leaf.split)
        if manifest.eval_split in manifest.splits:
            scored[manifest.name, manifest.eval_split] = (manifest, manifest.eval_split)
    return list(trained.values()), list(scored.values())


def _read(manifest: Manifest, split: str, fingerprints: Fingerprints) -> Split:
    pictures, items, earlier = dict[bytes, ImageRef](), list[Item](), list[Item]()
    for sample in tracked(load_samples(manifest, split), f"reading {manifest.name} ({split})", "items"):
        shown = [fingerprints.get(image) for image in sample.images]
        pictures |= {one.pixels: image for one, image in zip(shown, sample.images, strict=True)}
        *before, last = ((tuple(one.pixels for one in shown), words) for words in questions_and_answers(sample))
        items.append(last)
        earlier += before
    return Split(manifest, split, items, pictures, earlier)


def _compared(
    training: Sequence[Split], evaluated: Sequence[Split], fingerprints: Fingerprints
) -> list[SplitComparison]:
    """Every training set beside every evaluation set, as far as they share anything."""
    by_digest = fingerprints.by_digest()
    shown = [by_digest[pixels] for pixels in dict.fromkeys(chain.from_iterable(one.pictures for one in evaluated))]
    found = []
    for one in tracked(training, "comparing pictures and texts", "training splits"):
        nearest = nearest_pairs(shown, (by_digest[pixels] for pixels in one.pictures))
        items = frozenset((*one.items, *one.earlier))
        texts = TextIndex(text for _, text in items)
        for other in evaluated:
            pairs = [nearest[pixels] for pixels in other.pictures if pixels in nearest]
            duplicates = count_duplicates(pairs)
            shared = SharedContent(
                pictures=len(other.pictures),
                identical=duplicates.identical,
                near=duplicates.near,
                texts=count_overlap([text for _, text in other.items], texts),
                items=sum(item in items for item in other.items),
            )
            if not shared.is_empty:
                found.append(SplitComparison(one, other, shared, pairs))
    return found
