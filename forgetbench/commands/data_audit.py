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
    training = [_read_split(manifest, split, fingerprints) for manifest, split in trained]
    evaluated = [_read_split(manifest, split, fingerprints) for manifest, split in scored]
    comparisons = _compare_splits(training, evaluated, fingerprints)
    folder = Path(config.outputs) / "audit"
    paths = write_findings(comparisons, folder)
    table = findings_table(comparisons, f"{len(training)} training splits beside {len(evaluated)} evaluation splits")
    print_rows(table, [comparison_row(comparison) for comparison in comparisons], as_json)
    if not as_json:
        say(f"Written: {', '.join(map(str, paths))}")
    return not any(comparison.shared.is_leak or comparison.contradictions for comparison in comparisons)


def _splits(catalogue: Catalogue, names: Sequence[str]) -> tuple[list[Place], list[Place]]:
    """Training splits and evaluation splits, each once; a mixture counts as its parts."""
    trained, scored = dict[tuple[str, str], Place](), dict[tuple[str, str], Place]()
    for name in names:
        manifest = catalogue.load(name)
        if manifest.mixture or manifest.train_split in manifest.splits:
            for leaf in catalogue.leaves(name):
                trained[leaf.manifest.name, leaf.split] = (leaf.manifest, leaf.split)
        if manifest.eval_split in manifest.splits:
            scored[manifest.name, manifest.eval_split] = (manifest, manifest.eval_split)
    return list(trained.values()), list(scored.values())


def _read_split(manifest: Manifest, split: str, fingerprints: Fingerprints) -> Split:
    pictures, items, earlier = dict[bytes, ImageRef](), list[Item](), list[Item]()
    for sample in tracked(load_samples(manifest, split), f"reading {manifest.name} ({split})", "items"):
        sample_fingerprints = [fingerprints.get(image) for image in sample.images]
        pictures |= {
            fingerprint.pixels: image for fingerprint, image in zip(sample_fingerprints, sample.images, strict=True)
        }
        *previous, last = (
            (tuple(fingerprint.pixels for fingerprint in sample_fingerprints), words)
            for words in questions_and_answers(sample)
        )
        items.append(last)
        earlier += previous
    return Split(manifest, split, items, pictures, earlier)


def _compare_splits(
    training: Sequence[Split], evaluated: Sequence[Split], fingerprints: Fingerprints
) -> list[SplitComparison]:
    """Compare every training split with every evaluation split; pairs that share nothing are left out."""
    by_digest = fingerprints.by_digest()
    evaluated_pictures = [
        by_digest[pixels] for pixels in dict.fromkeys(chain.from_iterable(split.pictures for split in evaluated))
    ]
    comparisons = []
    for train_split in tracked(training, "comparing pictures and texts", "training splits"):
        nearest = nearest_pairs(evaluated_pictures, (by_digest[pixels] for pixels in train_split.pictures))
        items = frozenset((*train_split.items, *train_split.earlier))
        texts = TextIndex(text for _, text in items)
        for eval_split in evaluated:
            pairs = [nearest[pixels] for pixels in eval_split.pictures if pixels in nearest]
            duplicates = count_duplicates(pairs)
            shared = SharedContent(
                pictures=len(eval_split.pictures),
                identical=duplicates.identical,
                near=duplicates.near,
                texts=count_overlap([text for _, text in eval_split.items], texts),
                items=sum(item in items for item in eval_split.items),
            )
            if not shared.is_empty:
                comparisons.append(SplitComparison(train_split, eval_split, shared, pairs))
    return comparisons
