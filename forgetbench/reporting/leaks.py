"""Whether a training set of a run shows evaluation pictures again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from forgetbench.core.errors import UserError
from forgetbench.core.records import PROBE_SUFFIX
from forgetbench.data.audit.duplicates import Fingerprint, Fingerprints, Pair, count_duplicates, nearest_pairs
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import Manifest
from forgetbench.data.sources import load_samples
from forgetbench.reporting.contents import LeakRow
from forgetbench.runs.stored import StoredRun

MOST_PICTURES = 50_000
"""Training pictures that are compared here; of larger sets `forgetbench data check` does it."""


def find_leaks(runs: Sequence[StoredRun], catalogue: Catalogue) -> list[LeakRow]:
    """For every evaluation set, the pictures that a training set of these runs repeats, exactly or nearly."""
    trained = sorted({name for run in runs for name in _trained_on(run)})
    datasets = sorted({str(name).removesuffix(PROBE_SUFFIX) for run in runs for name in run.own_metrics()["dataset"]})
    return list(leak_rows(tuple(trained), tuple(datasets), catalogue)) if trained else []


@lru_cache(maxsize=8)
def leak_rows(trained: tuple[str, ...], datasets: tuple[str, ...], catalogue: Catalogue) -> tuple[LeakRow, ...]:
    """Pictures of each evaluation set in the training sets; cached, so that a watched report need not decode again."""
    fingerprints = Fingerprints()
    try:
        train = {name: list(_training(name, catalogue, fingerprints)) for name in trained}
    except (UserError, OSError) as error:
        return tuple(_unchecked(name, trained, error) for name in datasets)
    shown, unchecked = dict[str, dict[bytes, Fingerprint]](), dict[str, LeakRow]()
    for name in datasets:
        try:
            manifest = catalogue.load(name)
            shown[name] = _pictures(manifest, manifest.eval_split, fingerprints) if manifest.eval_split else {}
        except (UserError, OSError) as error:
            unchecked[name] = _unchecked(name, trained, error)
    shown_fingerprints = [fingerprint for pictures in shown.values() for fingerprint in pictures.values()]
    nearest = {source: nearest_pairs(shown_fingerprints, known) for source, known in train.items()}
    return tuple(
        row
        for name in datasets
        for row in ([unchecked[name]] if name in unchecked else _rows(name, shown[name], nearest))
    )


def _unchecked(name: str, trained: Sequence[str], error: Exception) -> LeakRow:
    return LeakRow(name, ", ".join(trained), 0, 0, 0, f"not checked: {error}")


def _rows(name: str, shown: Collection[bytes], nearest: Mapping[str, Mapping[bytes, Pair]]) -> list[LeakRow]:
    """A row for every training set that repeats pictures of this set; a joint row if none does."""
    duplicates = {
        source: count_duplicates(pairs[pixels] for pixels in shown if pixels in pairs)
        for source, pairs in nearest.items()
    }
    rows = [
        LeakRow(name, source, len(shown), counts.identical, counts.near, "")
        for source, counts in duplicates.items()
        if counts.identical or counts.near
    ]
    return rows or [LeakRow(name, ", ".join(nearest), len(shown), 0, 0, "" if shown else "has no pictures")]


def _trained_on(run: StoredRun) -> Iterable[str]:
    """Target, mixed-in and replayed sets."""
    if run.run is None:
        return []
    mixed = [name for recipe in run.recipes if recipe.mix.ratio for name in recipe.mix.weights]
    replayed = [name for recipe in run.recipes if recipe.replay.samples for name in recipe.replay.earlier]
    return [*run.run.config.data.sets, *mixed, *replayed]


def _training(name: str, catalogue: Catalogue, fingerprints: Fingerprints) -> Iterator[Fingerprint]:
    leaves = catalogue.leaves(name)
    items = sum(leaf.manifest.splits[leaf.split].n or 0 for leaf in leaves)
    if items > MOST_PICTURES:
        raise UserError(f"{name} has {items:,} training items; run `forgetbench data check {name}`")
    for leaf in leaves:
        yield from _pictures(leaf.manifest, leaf.split, fingerprints).values()


def _pictures(manifest: Manifest, split: str, fingerprints: Fingerprints) -> dict[bytes, Fingerprint]:
    """The distinct pictures of a split, by `Fingerprint.pixels`."""
    image_prints = (fingerprints.get(image) for sample in load_samples(manifest, split) for image in sample.images)
    return {fingerprint.pixels: fingerprint for fingerprint in image_prints}
