"""representation.csv: how checkpoints see pictures, and how far their weights moved; no model and no torch needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from forgetbench.tables.scores import RUN_COLUMNS

REPRESENTATION_COLUMNS = (
    *RUN_COLUMNS, "dataset", "part", "layer", "n_images", "effective_rank", "visual_drift_l1", "linear_cka",
    "weight_distance", "relative_distance", "changed_share",
)  # fmt: skip
_TYPES = dict.fromkeys(("seed", "stage", "step", "layer", "n_images"), "Int64") | dict.fromkeys(
    ("mix_ratio", *REPRESENTATION_COLUMNS[-6:]), "Float64"
)
_ORDER = ["run", "stage", "step", "variant"]


def representation_rows(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """representation.csv: one row per checkpoint, dataset and layer, and one per checkpoint and part.

    Args:
        rows: run columns and what was measured, by column; what a row lacks is empty. Rows of one checkpoint stay in
            their order.
    """
    frame = pd.DataFrame(list(rows), columns=list(REPRESENTATION_COLUMNS)).astype(_TYPES)
    return frame.sort_values(_ORDER, kind="stable", ignore_index=True)


def joined_representation(paths: Iterable[Path]) -> pd.DataFrame:
    """The tables of several runs, end to end; whole numbers stay whole where others are absent."""
    return pd.concat([pd.read_csv(path, dtype=_TYPES) for path in paths], ignore_index=True)
