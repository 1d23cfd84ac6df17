"""The cost model's arithmetic, and that its page says what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetbench.core.options import config_files
from tools.scaling import (
    FIGURE_2,
    Gpu,
    Model,
    Recipe,
    checkpoint_gb,
    figure,
    makespan,
    scoring_flops,
    training_flops,
    wall_hours,
)
from tools.scaling_tables import tables

PAGE = (Path(__file__).parents[2] / "docs/scaling.md").read_text("utf-8")
SMALL = Model("small", vision=10, projector=2, language=120, embeddings=20, patches=4, picture_tokens=3, text_tokens=7)


def recipe(*parts: str, adapter: float = 0.0) -> Recipe:
    return Recipe("one", frozenset(parts), instances=100, checkpoints=4, adapter=adapter)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        # 10 tokens on 100 weights of the language part, 3 on 2 of the projector, 4 patches on 10 of the tower.
        (recipe("language"), 6 * 1000 + 2 * 6 + 2 * 40),
        (recipe("language", adapter=5), 4 * 1000 + 6 * 50 + 2 * 6 + 2 * 40),
        (recipe("projector"), 4 * 1000 + 6 * 6 + 2 * 40),
        (recipe("vision"), 4 * 1000 + 4 * 6 + 6 * 40),
        (recipe("vision", "projector", "language"), 6 * 1000 + 6 * 6 + 6 * 40),
    ],
    ids=["language", "adapter", "projector", "vision", "all"],
)
def test_operations_of_a_training_instance_by_hand(what: Recipe, expected: float) -> None:
    assert training_flops(SMALL, what) == expected


def test_reading_an_item_by_hand() -> None:
    assert scoring_flops(SMALL) == 2 * (1000 + 6 + 40)


def test_checkpoints_hold_what_trains_as_fp32() -> None:
    assert checkpoint_gb(SMALL, recipe("vision", "projector")) == pytest.approx(12 * 4 * 4 / 1e9)
    assert checkpoint_gb(SMALL, recipe("language", adapter=5)) == pytest.approx(5 * 4 * 4 / 1e9)


def test_the_longest_jobs_start_first() -> None:
    assert makespan([3, 1, 2, 2], 2) == 4
    assert makespan([5, 1], 8) == 5


def test_gpus_beyond_one_a_run_are_shared_among_the_runs() -> None:
    assert wall_hours([8, 8], 2) == 8
    assert wall_hours([9, 9], 4) == pytest.approx(9 / (2 * 0.9))


def test_the_base_is_scored_once_and_every_process_loads_where_cells_have_one_each() -> None:
    gpu = Gpu(training_flops=1e6, scoring_flops=1e3, scoring_fp32_flops=1e2, load_seconds=36.0)
    costs = figure(SMALL, [recipe("language"), recipe("vision")], [10, 20], gpu)
    once = 30 * scoring_flops(SMALL) / 1e3 / 3600
    both, apart = 22.1 / 17.2, (17.2 + 18.3) / 17.2
    assert costs.scoring == pytest.approx([5 * once * both + 0.01, 4 * once * both + 0.01])
    assert costs.processes == 10 * 2 * 2
    assert costs.naive_scoring == pytest.approx(10 * once * apart + 40 * 0.01)


def test_the_page_holds_every_table_as_printed() -> None:
    printed = list(tables())
    assert printed
    assert [table for table in printed if table not in PAGE] == []


def test_the_figure_has_the_recipes_of_the_sweep() -> None:
    swept = config_files("sweep")["paper_figure2"].read_text("utf-8").partition("recipe: ")[2].split(",")
    assert len(swept) == len(FIGURE_2)
