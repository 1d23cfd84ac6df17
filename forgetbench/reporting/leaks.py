"""Whether a training set of a run shows evaluation pictures again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from forgetbench.core.errors import UserError
from forgetbench.data.audit.splits import Picture, Pictures, leak
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import Manifest
from forgetbench.data.probe import SUFFIX
from forgetbench.data.sources import load_samples
from forgetbench.reporting.contents import LeakRow
from forgetbench.runs.run_file import run_config
from forgetbench.runs.stored import StoredRun

MOST_PICTURES = 50_000
"""Training pictures that are compared here; of larger sets `forgetbench data check` does it."""


def find_leaks(runs: Sequence[StoredRun], catalogue: Catalogue) -> list[LeakRow]:
    """For every evaluation set, its pictures that any training set of these runs repeats, exactly or nearly."""
    trained = sorted({name for run in runs for name in _trained_on(run)})
    datasets = sorted({str(name).removesuffix(SUFFIX) for run in runs for name in run.own_metrics()["dataset"]})
    return list(_compared(tuple(trained), tuple(datasets), catalogue)) if trained else []


@lru_cache(maxsize=8)
def _compared(trained: tuple[str, ...], datasets: tuple[str, ...], catalogue: Catalogue) -> tuple[LeakRow, ...]:
    """Decoding thousands of pictures takes seconds, which a watched report need not spend again."""
    pictures = Pictures()
    try:
        train = {name: list(_training(name, catalogue, pictures)) for name in trained}
    except (UserError, OSError) as error:
        return tuple(LeakRow(name, ", ".join(trained), 0, 0, 0, f"not checked: {error}") for name in datasets)
    return tuple(row for name in datasets for row in _rows(name, catalogue, pictures, train))


def _rows(name: str, catalogue: Catalogue, pictures: Pictures, train: Mapping[str, Sequence[Picture]]) -> list[LeakRow]:
    """A row for every training set that repeats pictures of this one; one for all of them if none does."""
    try:
        manifest = catalogue.load(name)
        shown = _shown(manifest, manifest.eval_split, pictures) if manifest.eval_split else {}
    except (UserError, OSError) as error:
        return [LeakRow(name, ", ".join(train), 0, 0, 0, f"not checked: {error}")]
    found = {source: leak(shown, known) for source, known in train.items()}
    rows = [
        LeakRow(name, source, len(shown), one.identical, one.near, "")
        for source, one in found.items()
        if one.identical or one.near
    ]
    return rows or [LeakRow(name, ", ".join(train), len(shown), 0, 0, "" if shown else "has no pictures")]


def _trained_on(run: StoredRun) -> Iterable[str]:
    """Target, mixed-in and replayed sets."""
    if run.file is None:
        return []
    mixed = [name for recipe in run.stage_recipes if recipe.mix.ratio for name in recipe.mix.data]
    replayed = [name for recipe in run.stage_recipes if recipe.replay.samples for name in recipe.replay.earlier]
    return [*run_config(run.file).data.sets, *mixed, *replayed]


def _training(name: str, catalogue: Catalogue, pictures: Pictures) -> Iterator[Picture]:
    leaves = catalogue.leaves(name)
    items = sum(leaf.manifest.splits[leaf.split].n or 0 for leaf in leaves)
    if items > MOST_PICTURES:
        raise UserError(f"{name} has {items:,} training items; run `forgetbench data check {name}`")
    for leaf in leaves:
        yield from _shown(leaf.manifest, leaf.split, pictures).values()


def _shown(manifest: Manifest, split: str, pictures: Pictures) -> dict[str, Picture]:
    samples = load_samples(manifest, split)
    return {image.name: pictures.get(image) for sample in samples for image in sample.images}
