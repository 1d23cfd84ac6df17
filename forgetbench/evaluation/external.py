"""Cells from predictions that were made elsewhere: with vLLM, another harness, or by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from functools import partial as partial_of
from pathlib import Path

from forgetbench.config import MatrixConfig
from forgetbench.core.errors import UserError
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.predictions import (
    ExternalCheckpoint,
    ExternalPredictions,
    find_checkpoints,
    find_file,
    ids_of_rows,
    read_predictions,
)
from forgetbench.evaluation.cells import CellKey, CellStore
from forgetbench.evaluation.evaluate import ScoredCell, Work
from forgetbench.evaluation.sets import EvaluationSet, load_sets
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import Checkpoint


def external_cells(
    folder: Path, config: MatrixConfig, catalogue: Catalogue, store: CellStore, partial: bool = False
) -> tuple[list[ScoredCell], list[str]]:
    """Read, score and store the predictions in a folder.

    Args:
        folder: a subfolder per checkpoint, in it a file per dataset (see `data.predictions`).
        config: the datasets to look for.
        catalogue: where their manifests are.
        store: where cells go.
        partial: score the items that every file of a dataset has, if these are not all.

    Returns:
        The cells, and a line on everything that was not found.

    Raises:
        UserError: a file does not fit its dataset.
    """
    cells, told = [], []
    checkpoints = find_checkpoints(folder)
    if checkpoints[0].step != 0:
        told.append(f"{folder} has no subfolder 'base': without predictions of the base there is no forgetting.")
    for dataset in load_sets(config, catalogue):
        other_ids = cache(partial_of(ids_of_rows, dataset.manifest, dataset.manifest.eval_split))
        read: list[tuple[ExternalCheckpoint, ExternalPredictions]] = []
        for found in checkpoints:
            path = find_file(found.path, dataset.manifest.name)
            if path is None:
                told.append(f"{found.path}: nothing for '{dataset.manifest.name}'; it stays out of the tables.")
                continue
            one = read_predictions(path, dataset.samples, dataset.whole, other_ids, partial)
            told += one.notes
            read.append((found, one))
        if read:
            scored = _common(folder, dataset, [one for _, one in read]) if partial else dataset
            if len(scored.samples) < len(dataset.samples):
                told.append(
                    f"{dataset.manifest.name}: scored on {len(scored.samples)} of {len(dataset.samples)} items, those "
                    "that every checkpoint has a prediction for."
                )
            cells += [_cell(found, one, scored, store) for found, one in read]
    order = {found.step: place for place, found in enumerate(checkpoints)}
    return sorted(cells, key=lambda one: order[one.work.checkpoint.step]), told


def _common(folder: Path, dataset: EvaluationSet, read: Sequence[ExternalPredictions]) -> EvaluationSet:
    """A dataset's items that all files have: a change is told of the same items."""
    samples = [sample for sample in dataset.samples if all(sample.id in one.predictions for one in read)]
    if not samples:
        raise UserError(f"{folder}: no item of '{dataset.manifest.name}' has a prediction of every checkpoint.")
    return dataset if len(samples) == len(dataset.samples) else replace(dataset, samples=samples, blocks=())


def _cell(found: ExternalCheckpoint, read: ExternalPredictions, dataset: EvaluationSet, store: CellStore) -> ScoredCell:
    predictions = [read.predictions[sample.id] for sample in dataset.samples]
    settings = Settings(read.decoding, source=read.kind)
    content = json.dumps([(one.option_logprobs, one.text) for one in predictions])
    digest = CellKey(hashlib.sha256(content.encode()).hexdigest(), "", dataset.digest, settings).digest
    metric = dataset.manifest.metric
    cell = store.read(digest, metric) or store.write(
        digest, dataset.samples, dataset.image_digests, predictions, settings, metric, None
    )
    return ScoredCell(Work(Checkpoint(found.step, found.path, {}), dataset, settings, digest), cell)
