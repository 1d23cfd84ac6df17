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
from forgetbench.evaluation.evaluate import PlannedCell, ScoredCell
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
        partial: allow missing items; then only the items that every file of a dataset has are scored.

    Returns:
        The cells, and a note for each file or item that was not found.

    Raises:
        UserError: a file does not fit its dataset.
    """
    cells, notes = [], []
    checkpoints = find_checkpoints(folder)
    if checkpoints[0].step != 0:
        notes.append(f"{folder} has no subfolder 'base': without predictions of the base there is no forgetting.")
    for dataset in load_sets(config, catalogue):
        other_ids = cache(partial_of(ids_of_rows, dataset.manifest, dataset.manifest.eval_split))
        loaded: list[tuple[ExternalCheckpoint, ExternalPredictions]] = []
        for checkpoint in checkpoints:
            path = find_file(checkpoint.path, dataset.manifest.name)
            if path is None:
                notes.append(f"{checkpoint.path}: nothing for '{dataset.manifest.name}'; it stays out of the tables.")
                continue
            file = read_predictions(path, dataset.samples, dataset.all_samples, other_ids, partial)
            notes += file.notes
            loaded.append((checkpoint, file))
        if loaded:
            scored = _common_items(folder, dataset, [file for _, file in loaded]) if partial else dataset
            if len(scored.samples) < len(dataset.samples):
                notes.append(
                    f"{dataset.manifest.name}: scored on {len(scored.samples)} of {len(dataset.samples)} items, those "
                    "that every checkpoint has a prediction for."
                )
            cells += [_cell(checkpoint, file, scored, store) for checkpoint, file in loaded]
    order = {checkpoint.step: place for place, checkpoint in enumerate(checkpoints)}
    return sorted(cells, key=lambda cell: order[cell.work.checkpoint.step]), notes


def _common_items(folder: Path, dataset: EvaluationSet, files: Sequence[ExternalPredictions]) -> EvaluationSet:
    """The dataset with the items that all files have, so that changes compare the same items."""
    samples = [sample for sample in dataset.samples if all(sample.id in file.predictions for file in files)]
    if not samples:
        raise UserError(f"{folder}: no item of '{dataset.manifest.name}' has a prediction of every checkpoint.")
    return dataset if len(samples) == len(dataset.samples) else replace(dataset, samples=samples, blocks=())


def _cell(
    checkpoint: ExternalCheckpoint, file: ExternalPredictions, dataset: EvaluationSet, store: CellStore
) -> ScoredCell:
    predictions = [file.predictions[sample.id] for sample in dataset.samples]
    settings = Settings(file.decoding, source=file.kind)
    content = json.dumps([(prediction.option_logprobs, prediction.text) for prediction in predictions])
    digest = CellKey(hashlib.sha256(content.encode()).hexdigest(), "", dataset.digest, settings).digest
    metric = dataset.manifest.metric
    cell = store.read(digest, metric) or store.write(
        digest, dataset.samples, dataset.image_digests, predictions, settings, metric, None
    )
    return ScoredCell(PlannedCell(Checkpoint(checkpoint.step, checkpoint.path, {}), dataset, settings, digest), cell)
