"""Task after task: heat maps, curves and the strategy table, from made-up tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import vl_convert
import yaml
from rich.console import Console

from forgetbench.core.paths import shipped
from forgetbench.reporting.charts import Figure, figures, vega_spec
from forgetbench.reporting.charts.groups import PALETTE
from forgetbench.reporting.page import render
from forgetbench.reporting.published import LABEL, PUBLISHED, TASKS
from forgetbench.terminal.strategies import strategy_table
from tests.reporting.test_charts import tables, texts
from tests.reporting.test_page import PLAIN
from tests.support.continual_tables import continual, strategies
from tests.support.pages import single


def drawn(table: pd.DataFrame) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(tables(continual=table))}


def panels(figure: Figure) -> list[dict[str, Any]]:
    spec = vega_spec(figure, "light")
    return spec.get("concat", [spec])  # type: ignore[no-any-return]


def rows(figure: Figure) -> list[dict[str, Any]]:
    return [row for values in vega_spec(figure, "light")["datasets"].values() for row in values]


def test_a_run_through_tasks_has_a_heat_map_and_curves_and_any_other_neither() -> None:
    assert set(drawn(continual())) == {"continual_matrix", "forgetting_curves"}
    assert drawn(pd.DataFrame()) == {}
    assert drawn(continual().iloc[:0]) == {}


def test_the_heat_map_holds_every_score_and_outlines_each_stages_own_task() -> None:
    heat_map = drawn(continual())["continual_matrix"]
    known = {(row["stage"], row["task"]): row["percent"] for row in rows(heat_map)}
    assert (known[0, "a"], known[1, "a"], known[3, "a"], known[3, "c"]) == pytest.approx((30, 90, 50, 90))
    assert "datum.relation == 'current'" in texts(vega_spec(heat_map, "light"), "filter")
    assert {(row["stage"], row["position"]) for row in rows(heat_map) if row["relation"] == "current"} == {
        (1, 1), (2, 2), (3, 3),
    }  # fmt: skip
    (labels,) = {text for text in texts(vega_spec(heat_map, "light"), "labelExpr") if "[" in text}
    assert labels == '[["a", "b", "c"]][0][datum.value - 1]'


def test_strategies_have_a_panel_each_the_best_first_and_an_order_is_chosen() -> None:
    table = continual(("seq_full", "ewc"), n_orders=2, n_seeds=2)
    table.loc[(table["strategy"] == "ewc") & (table["relation"] == "past"), "value"] += 0.1
    figures = drawn(table)
    assert figures.keys() == {"continual_matrix", "forgetting_curves"}
    for figure in figures.values():
        spec = vega_spec(figure, "light")
        assert [panel["title"] for panel in spec["concat"]] == ["ewc", "seq_full"]
        (choice,) = spec["params"]
        assert choice["bind"]["labels"] == ["1: a, b, c", "2: c, a, b"]
        assert "datum.order == task_order" in texts(spec, "filter")
        assert "2 seeds" in figure.caption


def test_the_labels_of_a_chosen_order_compile() -> None:
    figure = drawn(continual(("seq_full", "ewc"), n_orders=2))["continual_matrix"]
    svg = vl_convert.vegalite_to_svg(vega_spec(figure, "light"), vl_version="6.4", allowed_base_urls=[])
    assert ">after 3<" in svg
    assert svg.count(">a<") == 2


def test_one_strategy_has_a_panel_per_order() -> None:
    heat_map = drawn(continual(n_orders=2))["continual_matrix"]
    assert [panel["title"] for panel in panels(heat_map)] == ["order 1", "order 2"]
    assert "params" not in vega_spec(heat_map, "light")


def test_bands_are_intervals_of_single_runs_only() -> None:
    one_seed, seeds = (drawn(continual(n_seeds=n))["forgetting_curves"] for n in (1, 2))
    assert "95 % intervals" in one_seed.caption
    assert "area" in {mark["type"] for mark in texts(vega_spec(one_seed, "light"), "mark")}
    assert "area" not in {mark["type"] for mark in texts(vega_spec(seeds, "light"), "mark")}
    assert rows(seeds)
    assert all("low" not in row for row in rows(seeds))


def test_curves_are_dashed_before_a_task_is_trained_and_a_task_keeps_its_colour() -> None:
    curves = drawn(continual(("seq_full", "ewc"), n_orders=2))["forgetting_curves"]
    spec = vega_spec(curves, "light")
    dashed = [layer for panel in panels(curves) for layer in panel["layer"] if "strokeDash" in layer["mark"]]
    assert len(dashed) == len(panels(curves))
    assert all({"filter": "datum.stage < datum.position"} in layer["transform"] for layer in dashed)
    ranges = [tuple(scale["range"]) for scale in texts(spec, "scale") if scale.get("domain") == ["a", "b", "c"]]
    assert set(ranges) == {PALETTE[:3]}


def test_joint_and_untrained_runs_have_no_stages_to_draw() -> None:
    base = continual(("zero_shot",))
    joint = continual(("joint",)).query("stage < 2").assign(relation="joint")
    assert drawn(pd.concat([base[base["stage"] == 0], joint])) == {}


def test_scores_on_another_scale_are_left_out_and_named() -> None:
    table = continual()
    table.loc[table["task"] == "b", "metric"] = "cider_d"
    heat_map = drawn(table)["continual_matrix"]
    assert {row["task"] for row in rows(heat_map)} == {"a", "c"}
    assert "On another scale: b." in heat_map.caption


@pytest.fixture(scope="module")
def html() -> str:
    known = single()
    return render(replace(known, tables=replace(known.tables, strategies=strategies())), [])


def lines(html: str) -> list[str]:
    table = html[html.index('<table class="numbers strategies"') :]
    table_rows = re.findall(r"<tr.*?</tr>", table[: table.index("</table>")], re.DOTALL)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", line)).strip().translate(PLAIN) for line in table_rows]


def test_strategies_stand_by_their_final_scores_with_half_their_intervals(html: str) -> None:
    texts_of_rows = lines(html)
    assert [line.split()[0] for line in texts_of_rows[1:6]] == ["joint", "ewc", "seq_full", "zero_shot", "half"]
    assert texts_of_rows[2] == "ewc 80.0 ±4.0 70.0 ±4.0 - -10.0 ±4.0 - - +10.0* [6.0, 14.0] 4 (2 orders, 2 seeds)"
    assert "reference" in texts_of_rows[3]
    assert texts_of_rows[5] == "half 80.0 ±4.0 - - - - - - 1"


def test_bounds_are_marked(html: str) -> None:
    joint, zero_shot = (next(line for line in lines(html) if line.startswith(name)) for name in ("joint", "zero_shot"))
    assert "upper bound" in joint
    assert "lower bound" in zero_shot
    assert "-30.0 [-40.0, 10.0]" in zero_shot
    assert html.count('class="bound"') == 2


def of_the_benchmark(tasks: Sequence[str]) -> str:
    known = single()
    benchmark_rows = continual().assign(tasks=">".join(tasks))
    return render(replace(known, tables=replace(known.tables, strategies=strategies(), continual=benchmark_rows)), [])


def test_published_rows_are_set_apart_as_those_of_another_model() -> None:
    html = of_the_benchmark(sorted(TASKS))
    published = html[html.index('<tbody class="published">') :]
    assert LABEL in published[: published.index("</tr>")]
    published_lines = lines(html)[-len(PUBLISHED) :]
    assert published_lines[0] == "LoRA-FT 64.98 53.00 61.13 -14.97 - - - -"
    assert sum("with replay" in line for line in published_lines) == 3


@pytest.mark.parametrize("tasks", [["a", "b", "c"], sorted(TASKS)[:4], [*sorted(TASKS), "a"]])
def test_published_rows_stand_beside_no_other_benchmark(tasks: list[str], html: str) -> None:
    for page in (html, of_the_benchmark(tasks)):
        assert "Published" not in page
        assert "LoRA-FT" not in page


def test_the_benchmark_of_the_published_rows_is_configured() -> None:
    config = yaml.safe_load((shipped("conf") / "data/mllm_cl_domain.yaml").read_text("utf-8"))
    assert {stage["set"] for stage in config["stages"]} == TASKS


def test_a_difference_that_does_not_stand_correction_has_no_colour() -> None:
    table = strategies()
    table.loc[table["strategy"] == "ewc", "p_holm"] = 0.06
    known = single()
    page = render(replace(known, tables=replace(known.tables, strategies=table)), [])
    assert '<span class="flat">+10.0</span> <span class="muted">[6.0, 14.0]' in page


def test_a_page_without_several_tasks_says_nothing_of_them() -> None:
    html = render(single(), [])
    for word in ("strategies", "MFN", "continual", "published"):
        assert word not in html


def test_the_terminal_has_the_strategies_within_eighty_columns() -> None:
    console = Console(width=80, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(strategy_table(strategies()))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= 80
    (line,) = (line for line in text.splitlines() if line.strip().startswith("ewc"))
    assert line.split() == ["ewc", "80.0±4.0", "70.0±4.0", "-10.0±4.0", "4"]
