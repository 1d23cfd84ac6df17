"""What "the last" means in every table and figure: the last stage, the last step, as trained."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from forgetbench.tables.cell_view import RowContext


def last_stage(frame: pd.DataFrame) -> pd.DataFrame:
    """Every run's rows of its last stage; the base is a separate stage.

    Earlier stages have other targets, and therefore other quadrants.
    """
    return frame if frame.empty else frame[frame["stage"] == frame.groupby("run")["stage"].transform("max")]


def last_step(frame: pd.DataFrame, of_each_variant: bool = False) -> pd.DataFrame:
    """Every run's rows at its last step, among the rows given.

    Args:
        frame: rows with `run`, `step` and, if it matters, `variant`.
        of_each_variant: find the last step separately for each variant and for the checkpoints as trained.
    """
    if frame.empty:
        return frame
    keys: list[object] = ["run"]
    if of_each_variant:
        keys.append(frame["variant"].astype(object).where(frame["variant"].notna(), ""))
    return frame[frame["step"] == frame.groupby(keys)["step"].transform("max")]


def last_step_of_stages(frame: pd.DataFrame) -> pd.DataFrame:
    """Every run's rows at the last step of each of its stages, and its base."""
    stage = frame["stage"].where(frame["step"] > 0, 0)
    rows: pd.DataFrame = frame[frame["step"] == frame.groupby(["run", stage])["step"].transform("max")]
    return rows


def as_trained(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of checkpoints as training left them, without those that were changed afterwards."""
    rows: pd.DataFrame = frame[frame["variant"].isna() | (frame["variant"] == "")]
    return rows


def last_checkpoints(contexts: Iterable[RowContext]) -> dict[str, tuple[int, int]]:
    """Run -> stage and step of its last checkpoint."""
    last: dict[str, tuple[int, int]] = {}
    for context in contexts:
        last[context.run] = max((context.stage, context.step), last.get(context.run, (0, 0)))
    return last


def stage_ends(contexts: Iterable[RowContext]) -> dict[tuple[str, int], int]:
    """Run and stage -> the stage's last step; of the base, stage 0, it is 0."""
    last: dict[tuple[str, int], int] = {}
    for context in contexts:
        last[context.stage_key] = max(context.step, last.get(context.stage_key, 0))
    return last
