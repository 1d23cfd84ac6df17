"""Published results of continual learning, shown beside runs of the same benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from forgetbench.tables.continual import JOINED

SOURCE = "MLLM-CL Domain, LLaVA-1.5-7B"
PAPER = "arXiv:2506.05453"
LABEL = "reference, another model"
TASKS = frozenset({"mllm_cl_rs", "mllm_cl_med", "mllm_cl_ad", "mllm_cl_sci", "mllm_cl_fin"})
"""Their tasks, as named by the shipped manifests."""


@dataclass(frozen=True)
class PublishedStrategy:
    """A row of the paper's table, in percent: five tasks in one order, a single run, no intervals."""

    name: str
    mft: float
    mfn: float
    maa: float
    bwt: float
    with_replay: bool = False
    """20 items of each earlier task are trained on again."""


PUBLISHED = (
    PublishedStrategy("LoRA-FT", 64.98, 53.00, 61.13, -14.97),
    PublishedStrategy("O-LoRA", 65.16, 55.54, 62.12, -12.03),
    PublishedStrategy("MoELoRA", 64.94, 54.78, 61.76, -12.70),
    PublishedStrategy("CL-MoE", 66.06, 54.88, 61.79, -13.96),
    PublishedStrategy("HiDe", 60.77, 55.31, 60.68, -6.82),
    PublishedStrategy("SEFE", 65.01, 58.51, 63.63, -8.13),
    PublishedStrategy("DISCO", 64.43, 59.26, 63.35, -6.46),
    PublishedStrategy("LoRA-FT", 66.32, 60.60, 64.72, -7.15, with_replay=True),
    PublishedStrategy("SEFE", 66.89, 62.92, 66.51, -4.97, with_replay=True),
    PublishedStrategy("DISCO", 65.27, 62.74, 64.92, -3.17, with_replay=True),
    PublishedStrategy("MR-LoRA", 69.64, 69.63, 71.06, -0.01),
)


def published_beside(continual: pd.DataFrame) -> tuple[PublishedStrategy, ...]:
    """The published rows, if every run was scored on their tasks and no others; else none.

    Args:
        continual: continual.csv of the runs.
    """
    task_sets = {frozenset(str(tasks).split(JOINED)) for tasks in continual["tasks"]} if len(continual) else set()
    return PUBLISHED if task_sets == {TASKS} else ()
