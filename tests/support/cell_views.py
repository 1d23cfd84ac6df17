"""Hand-made cells for tests of tables and statistics."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from forgetbench.core.records import Axis, Metric, Placement
from forgetbench.tables.cell_view import CellView, RowContext

TARGET = Placement(Axis.id, Axis.id, "id_text-id_image", seen_in_mix=False)
OTHER_TEXT = Placement(Axis.ood, Axis.id, "ood_text-id_image", seen_in_mix=False)
CONTEXT = RowContext(
    run="demo", model="tiny", target="naming", checkpoint="base", variant="", method="plain",
    parts="language", lr=1e-5, mix="", mix_ratio=None, seed=0, stage=1, step=0, dataset="naming",
    image_domain="fashion", text_task="naming", placement=TARGET, probe=False, probe_of="",
    decoding="choice", metric=Metric.accuracy, labels=frozenset(), chance=0.25, seconds=1.5, cell="d0", settings="{}",
)  # fmt: skip
TRAINED = replace(CONTEXT, checkpoint="step_000100", step=100, cell="d1")


def cell(context: RowContext, correct: list[int], clusters: list[list[str]] | None = None) -> CellView:
    """A cell of items i0, i1, ...; right answers are A, wrong ones B, the class is C."""
    n = len(correct)
    frame = pd.DataFrame(
        {
            "sample_id": [f"i{i}" for i in range(n)],
            "cluster": clusters or [[] for _ in range(n)],
            "image_sha256": [
                next((one[6:] for one in (clusters or [[]] * n)[i] if one[:6] == "image="), "") for i in range(n)
            ],
            "options": [["red", "blue", "dress", "green"]] * n,
            "target": ["A"] * n,
            "parsed": ["A" if right else "B" for right in correct],
            "kind": ["letter"] * n,
            "references": [["A"]] * n,
            "option_logprobs": [None] * n,
            "text": ["" if context.decoding == "greedy" else None] * n,
            "score": [float(right) for right in correct],
            "class_option": pd.array([2] * n, dtype="Int64"),
        }
    )
    return CellView(frame, context)
