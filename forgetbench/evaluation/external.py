"""Cells from predictions that were made elsewhere: with vLLM, another harness, or by hand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple
from pathlib import Path

from forgetbench.config import MatrixConfig
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.predictions import find_checkpoints, find_file, read_predictions
from forgetbench.evaluation.cells import CellKey, CellStore
from forgetbench.evaluation.evaluate import ScoredCell, Work
from forgetbench.evaluation.sets import load_sets
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import Checkpoint


def external_cells(
    folder: Path, config: MatrixConfig, catalogue: Catalogue, store: CellStore
) -> tuple[list[ScoredCell], list[str]]:
    """Read, score and store the predictions in a folder.

    Args:
        folder: a subfolder per checkpoint, in it a file per dataset (see `data.predictions`).
        config: the datasets to look for.
        catalogue: where their manifests are.
        store: where cells go.

    Returns:
        The cells, and a line on everything that was not found.

    Raises:
        UserError: a file does not fit its dataset.
    """
    cells, left_out = [], []
    checkpoints = find_checkpoints(folder)
    if checkpoints[0].step != 0:
        left_out.append(f"{folder} has no subfolder 'base': without predictions of the base there is no forgetting.")
    sets = load_sets(config, catalogue)
    for found in checkpoints:
        for dataset in sets:
            path = find_file(found.path, dataset.manifest.name)
            if path is None:
                left_out.append(f"{found.path}: nothing for '{dataset.manifest.name}'; it stays out of the tables.")
                continue
            read = read_predictions(path, dataset.samples, dataset.positions, len(dataset.whole))
            settings = Settings(read.decoding, source=read.kind)
            content = json.dumps([astuple(one) for one in read.predictions])
            digest = CellKey(hashlib.sha256(content.encode()).hexdigest(), "", dataset.digest, settings).digest
            metric = dataset.manifest.metric
            cell = store.read(digest, metric) or store.write(
                digest, dataset.samples, dataset.image_digests, read.predictions, settings, metric, None
            )
            cells.append(ScoredCell(Work(Checkpoint(found.step, found.path, {}), dataset, settings, digest), cell))
    return cells, left_out
