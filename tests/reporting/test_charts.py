from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest
import vl_convert
from PIL import Image

from forgetbench.core.records import QUADRANTS
from forgetbench.reporting.charts import NAMES, Figure, figures, primary_decoding, vega_spec
from forgetbench.reporting.charts.groups import PALETTE, SHAPES, groups_of, short_names
from forgetbench.reporting.charts.labels import space_apart
from forgetbench.reporting.charts.pareto import pareto_front
from forgetbench.reporting.contents import ReportTables
from forgetbench.reporting.static_figures import save_figures

TARGET = QUADRANTS[0]
ALL = {
    *("tradeoff", "probe", "class_name_effect", "mixing", "pareto", "seeds", "answer_drift", "training"),
    *("effective_rank", "visual_drift", "weight_distance"),
}


def run_row(recipe: str, seed: int, step: int, **values: object) -> dict[str, object]:
    row = {
        "run": f"{recipe}-seed-{seed}", "recipe": recipe, "model": "tiny", "checkpoint": f"step_{step:06}",
        "variant": None, "method": "plain", "parts": "language", "lr": 0.001, "mix": None, "mix_ratio": 0.0,
        "seed": seed, "stage": int(step > 0), "step": step, "decoding": "choice",
    }  # fmt: skip
    return row | values


def matrix_row(recipe: str, seed: int, step: int, quadrant: str, value: float, **values: object) -> dict[str, object]:
    scored = {"quadrant": quadrant, "metric": "accuracy", "seen_in_mix": False, "value": value}
    errors = {"ci_low": value - 0.02, "ci_high": value + 0.02, "delta": value - 0.5}
    deltas = {"delta_ci_low": value - 0.52, "delta_ci_high": value - 0.48}
    return run_row(recipe, seed, step, **(scored | errors | deltas | values))


def matrix(recipes: dict[str, dict[str, object]], seeds: int = 1, steps: tuple[int, ...] = (0, 10, 20)) -> pd.DataFrame:
    places = itertools.product(enumerate(recipes.items()), range(seeds), steps, enumerate(QUADRANTS))
    return pd.DataFrame(
        matrix_row(
            recipe, seed, step, quadrant, 0.5 + (0.01 * step if place == 0 else -0.004 * step * (k + 1)), **columns
        )
        for (k, (recipe, columns)), seed, step, (place, quadrant) in places
    )


def score_row(recipe: str, step: int, dataset: str, metric: str, value: float, seed: int = 0) -> dict[str, object]:
    return run_row(recipe, seed, step, dataset=dataset, metric=metric, value=value, quadrant=None)


def scores(recipes: list[str], seeds: int = 1) -> pd.DataFrame:
    values = {"accuracy": (0.9, 0.5), "mischoice": (0.0, 0.3), "class_name_effect": (-0.01, -0.2)}
    return pd.DataFrame(
        score_row(recipe, step, dataset, metric, value[step > 0], seed)
        for recipe, seed, step, dataset in itertools.product(recipes, range(seeds), (0, 20), ("p", "k+class_name"))
        for metric, value in values.items()
        if metric != "class_name_effect" or "+" in dataset
    )


def summary_row(recipe: str, seed: int, x: float, y: float, **values: object) -> dict[str, object]:
    ends = {f"{name}_ci_{end}": at + sign * 0.02 for name, at in (("target_delta", x), ("retention", y))
            for end, sign in (("low", -1), ("high", 1))}  # fmt: skip
    return run_row(recipe, seed, 20, target_delta=x, retention=y, **ends, **values)


def representation(recipes: list[str], seeds: int = 1) -> pd.DataFrame:
    rows = []
    for recipe, seed, step in itertools.product(recipes, range(seeds), (0, 10, 20)):
        for dataset, layer in itertools.product(("a", "b"), range(3)):
            seen = {"effective_rank": 9.0 + layer, "visual_drift_l1": float(step)}
            rows.append(run_row(recipe, seed, step, dataset=dataset, part=None, layer=layer, **seen))
        moved = {"vision": 0.0, "language": 0.001 * step}
        rows += [run_row(recipe, seed, step, part=part, relative_distance=far) for part, far in moved.items()]
    return pd.DataFrame(rows)


def drift(recipes: list[str], seeds: int = 1, steps: tuple[int, ...] = (10, 20)) -> pd.DataFrame:
    """The more drift, the more is lost."""
    rows = []
    for (k, recipe), seed, step in itertools.product(enumerate(recipes), range(seeds), steps):
        loss = 0.002 * step * (k + 1) + 0.001 * seed
        ends = {"loss_elsewhere_ci_low": loss - 0.01, "loss_elsewhere_ci_high": loss + 0.01}
        rows.append(run_row(recipe, seed, step, kl_from_base=loss**2, loss_elsewhere=loss, stage=1, **ends))
    return pd.DataFrame(rows)


def train(recipes: list[str], seeds: int = 1, steps: int = 20) -> pd.DataFrame:
    return pd.DataFrame(
        {"run": f"{r}-seed-{s}", "recipe": r, "seed": s, "step": k, "stage": 1, "loss": 1 / k, "lr_language": 1e-3 / k}
        for r, s, k in itertools.product(recipes, range(seeds), range(1, steps + 1))
    )


def seeds_table(recipes: dict[str, dict[str, object]], n_seeds: int = 3) -> pd.DataFrame:
    errors = {"n_seeds": n_seeds, "value": 0.4, "base_value": 0.5, "item_stderr": 0.01, "seed_sd": 0.03}
    keys = {"variant": None, "method": "plain", "parts": "language", "lr": 0.001, "mix": None, "mix_ratio": 0.0}
    return pd.DataFrame(
        {"recipe": recipe, **keys, "quadrant": quadrant, "decoding": "choice", "metric": "accuracy"}
        | {"seen_in_mix": False, "delta": -0.1, "ci_low": -0.15, "ci_high": -0.05, **errors, **columns}
        for (recipe, columns), quadrant in itertools.product(recipes.items(), QUADRANTS)
    )


MIXED: dict[str, dict[str, object]] = {
    "high": {},
    "some": {"mix": "general", "mix_ratio": 0.2},
    "half": {"mix": "general", "mix_ratio": 0.5},
}


def full_tables(seeds: int = 2) -> ReportTables:
    names = list(MIXED)
    trained = [summary_row(r, s, 0.1 * k, 1 - 0.1 * k) for k, r in enumerate(names) for s in range(seeds)]
    return ReportTables(
        scores=scores(names, seeds),
        matrix=matrix(MIXED, seeds),
        summary=pd.DataFrame(trained),
        representation=representation(names, seeds),
        train=train(names, seeds),
        seeds=seeds_table(MIXED, seeds),
        drift=drift(names, seeds),
    )


def tables(**frames: pd.DataFrame) -> ReportTables:
    names = ("scores", "matrix", "summary", "representation", "train", "seeds", "continual", "strategies")
    every = (*names, "drift", "guard")
    return ReportTables(**{name: frames.get(name, pd.DataFrame()) for name in every})


def drawn(all_figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in all_figures}


def data(figure: Figure) -> list[dict[str, Any]]:
    """All rows that a figure draws."""
    return [row for rows in vega_spec(figure, "light")["datasets"].values() for row in rows]


def texts(value: Any, key: str) -> Iterator[Any]:
    """Every value of a key, however deep."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name == key:
                yield part
            yield from texts(part, key)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part, key)


@pytest.fixture(scope="module")
def everything() -> dict[str, Figure]:
    return drawn(figures(full_tables()))


def test_full_tables_draw_every_figure_and_empty_ones_none(everything: dict[str, Figure]) -> None:
    assert set(everything) == ALL
    assert figures(tables()) == []


def test_empty_tables_with_their_columns_draw_nothing() -> None:
    full = full_tables()
    assert figures(ReportTables(**{name: frame.iloc[:0] for name, frame in vars(full).items()})) == []


def test_a_figure_without_its_data_is_left_out() -> None:
    names = [figure.name for figure in figures(tables(train=train(["high"]), matrix=matrix({"high": {}})))]
    assert names == ["tradeoff", "training"]


def test_a_base_alone_draws_no_change() -> None:
    only_base = matrix({"high": {}}, steps=(0,))
    assert not {"mixing", "pareto", "seeds"} & set(drawn(figures(tables(matrix=only_base))))


def test_every_figure_compiles_to_an_svg_without_network(everything: dict[str, Figure]) -> None:
    assert everything
    for figure in everything.values():
        svg = vl_convert.vegalite_to_svg(vega_spec(figure, "light"), vl_version="6.4", allowed_base_urls=[])
        assert svg.startswith("<svg"), figure.name
        assert "NaN" not in svg, figure.name


def test_the_same_tables_give_the_same_specs() -> None:
    some = tables(matrix=matrix(MIXED), train=train(["high"]))
    first, second = ([vega_spec(figure, "light") for figure in figures(some)] for _ in range(2))
    assert first == second


def test_every_figure_is_known_by_its_name(everything: dict[str, Figure]) -> None:
    assert list(everything) == [name for name in NAMES if name in everything]


def test_files_are_written_in_pairs_with_the_same_bytes_each_time_and_replace_those_of_other_figures(
    everything: dict[str, Figure], tmp_path: Path
) -> None:
    some = [everything["probe"]]
    written = save_figures(some, tmp_path / "figures")
    assert [path.name for path in written] == ["probe.svg", "probe.png"]
    first = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in save_figures(some, tmp_path / "figures")] == first
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(path.name for path in written)
    foreign_file = tmp_path / "figures/my_own.svg"
    foreign_file.write_text("mine")
    save_figures([everything["training"]], tmp_path / "figures")
    left = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert left == ["my_own.svg", "training.png", "training.svg"]
    foreign_file.unlink()
    save_figures([], tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
    written = save_figures(some, tmp_path / "figures")
    with Image.open(written[1]) as picture:
        assert picture.width > 1200  # two pixels for each of the SVG's


def test_the_page_takes_ink_from_its_css_and_files_are_dark_on_white(everything: dict[str, Figure]) -> None:
    page, light = (vega_spec(everything["tradeoff"], theme) for theme in ("page", "light"))
    assert page["background"] == "transparent"
    assert light["background"] == "white"
    assert page["config"]["axis"]["labelColor"] == page["config"]["style"]["ink"]["color"] == "currentColor"
    assert "currentColor" not in json.dumps(light)
    assert page["usermeta"]["embedOptions"]["renderer"] == "svg"


def test_single_charts_of_the_page_have_the_width_of_their_container(everything: dict[str, Figure]) -> None:
    assert vega_spec(everything["pareto"], "page")["width"] == "container"
    assert isinstance(vega_spec(everything["pareto"], "light")["width"], int)


def test_panels_of_the_page_are_patched_to_follow_the_container(everything: dict[str, Figure]) -> None:
    spec = vega_spec(everything["tradeoff"], "page")
    first, second, third = spec["usermeta"]["embedOptions"]["patch"]
    signals = vl_convert.vegalite_to_vega(spec, vl_version="6.4")["signals"]
    assert signals[int(first["path"].removeprefix("/signals/"))]["name"] == first["value"]["name"] == "childWidth"
    assert (second["op"], second["value"]["name"]) == ("add", "panel_columns")
    assert (third["path"], third["value"]) == ("/layout/columns", {"signal": "panel_columns"})


def test_only_the_page_speaks_of_clicking(everything: dict[str, Figure]) -> None:
    assert "Recipe (click to highlight)" in texts(vega_spec(everything["tradeoff"], "page"), "title")
    assert "Recipe" in texts(vega_spec(everything["tradeoff"], "light"), "title")
    assert "click" not in json.dumps(vega_spec(everything["tradeoff"], "light")["concat"])


def test_an_unknown_theme_is_refused(everything: dict[str, Figure]) -> None:
    with pytest.raises(ValueError, match="dark"):
        vega_spec(everything["pareto"], "dark")  # type: ignore[arg-type]


def test_altair_is_left_as_it_was(everything: dict[str, Figure]) -> None:
    before = alt.data_transformers.active, dict(alt.data_transformers.options), alt.theme.active
    vega_spec(everything["training"], "page")
    assert (alt.data_transformers.active, dict(alt.data_transformers.options), alt.theme.active) == before


def test_fifty_runs_of_six_checkpoints_stay_below_300_kb() -> None:
    recipes: dict[str, dict[str, object]] = {f"method-m{k}--recipe.lr-0.{k}": {"method": f"m{k}"} for k in range(10)}
    many = matrix(recipes, seeds=5, steps=(0, 10, 20, 40, 80, 160))
    by_name = drawn(figures(tables(matrix=many, train=train(list(recipes), seeds=5, steps=150))))
    assert set(by_name) == {"tradeoff", "training"}
    for figure in by_name.values():
        assert len(json.dumps(vega_spec(figure, "page"), allow_nan=False)) < 300_000


def test_choice_is_the_primary_decoding_then_the_first_by_name() -> None:
    assert primary_decoding(pd.DataFrame({"decoding": ["greedy", "choice"]})) == "choice"
    assert primary_decoding(pd.DataFrame({"decoding": ["sample", "greedy", None]})) == "greedy"
    assert primary_decoding(pd.DataFrame()) == ""


def test_only_the_primary_decoding_is_drawn_and_the_caption_names_it() -> None:
    both = pd.concat([matrix({"high": {}}), matrix({"high": {"decoding": "greedy"}}).assign(value=0.111)])
    (figure,) = figures(tables(matrix=both))
    assert 11.1 not in [row.get("y") for row in data(figure)]
    assert "(choice)" in figure.caption


def test_tradeoff_joins_target_and_quadrant_of_one_checkpoint_in_percent() -> None:
    (figure,) = figures(tables(matrix=matrix({"high": {}})))
    points = {(row["x"], row["y"]) for row in data(figure) if row.get("step") == 20}
    assert points == {(70, 42)}
    assert len(vega_spec(figure, "light")["concat"]) == 3


def test_tradeoff_leaves_out_what_was_seen_in_the_mix_but_keeps_its_target() -> None:
    rows = matrix({"high": {}})
    rows["seen_in_mix"] = rows["quadrant"].isin([TARGET, QUADRANTS[1]])
    (figure,) = figures(tables(matrix=rows))
    titles = [panel["title"] for panel in vega_spec(figure, "light")["concat"]]
    assert titles == ["OOD text, ID image", "OOD text, OOD image"]
    assert 70 in [row.get("x") for row in data(figure)]


def test_tradeoff_draws_intervals_for_few_recipes_only() -> None:
    few, many = (matrix({f"r{k}": {} for k in range(n)}) for n in (2, 7))
    captions = [figures(tables(matrix=rows))[0].caption for rows in (few, many)]
    assert ["95 %" in caption for caption in captions] == [True, False]


def test_tradeoff_shows_variants_as_points_without_a_line() -> None:
    edited = matrix({"high": {"variant": "ties"}}, steps=(20,))
    (figure,) = figures(tables(matrix=pd.concat([matrix({"high": {}}), edited])))
    spec = vega_spec(figure, "light")
    lines = [layer["data"]["name"] for layer in spec["concat"][0]["layer"] if layer["mark"]["type"] == "line"]
    drawn_through = [row for name in lines for row in spec["datasets"][name]]
    assert drawn_through
    assert all("variant" in row and not row["variant"] for row in drawn_through)
    assert "ties" in [row.get("variant") for row in data(figure)]
    assert "Unfilled" in figure.caption


def test_tradeoff_panels_span_equally_many_points() -> None:
    rows = matrix({"high": {}})
    rows.loc[(rows["quadrant"] == QUADRANTS[2]) & (rows["step"] == 20), ["value", "ci_low", "ci_high"]] -= 0.2
    (figure,) = figures(tables(matrix=rows))
    domains = [panel["layer"][0]["encoding"]["y"]["scale"]["domain"] for panel in vega_spec(figure, "light")["concat"]]
    assert len({round(high - low, 6) for low, high in domains}) == 1


def two_stages() -> tuple[pd.DataFrame, pd.DataFrame]:
    """matrix and scores: quadrants of the first target (the base's own rows) are others than those of the second."""
    rows, answers = [], []
    for place, quadrant in enumerate(QUADRANTS):
        base_value, later = 0.1 + 0.1 * place, 0.9 - 0.1 * place
        first = {"target": "a", "base_value": base_value}
        rows += [
            matrix_row("s", 0, step, quadrant, base_value, **first, stage=stage) for stage, step in ((0, 0), (1, 10))
        ]
        last = {"target": "b", "base_value": later, "stage": 2, "delta": -0.3}
        rows.append(matrix_row("s", 0, 20, quadrant, later - 0.3, **last))
    for metric, base, after in (("accuracy", 0.9, 0.5), ("mischoice", 0.0, 0.3)):
        for stage, step, target in ((0, 0, "a"), (1, 10, "a"), (2, 20, "b")):
            row = score_row("s", step, "p", metric, after if step else base)
            answers.append(row | {"target": target, "stage": stage, "base_value": base})
    return pd.DataFrame(rows), pd.DataFrame(answers)


def test_the_base_of_a_later_stage_stands_in_that_stages_quadrants() -> None:
    rows, answers = two_stages()
    by_name = drawn(figures(tables(matrix=rows, scores=answers)))
    places = [(row["x"], row["y"]) for row in data(by_name["tradeoff"]) if row.get("step") == 0]
    assert sorted(set(places)) == [(90, 60), (90, 70), (90, 80)]
    ends = {(row["x"], row["y"]) for row in data(by_name["tradeoff"]) if row.get("step") == 20}
    assert ends == {(60, 30), (60, 40), (60, 50)}
    assert not any(row.get("step") == 10 for row in data(by_name["tradeoff"]))
    assert "Of a run of several stages the last one is shown." in by_name["tradeoff"].caption
    shares = {row["label"]: row["share"] for row in data(by_name["probe"]) if row.get("answer") == "right"}
    assert shares == {"base": 90, "s": 50}


def test_a_base_of_the_same_target_keeps_its_interval_and_gives_way_where_other_sets_are_compared() -> None:
    rows = matrix({"high": {"target": "a", "base_value": 0.5}})
    (figure,) = figures(tables(matrix=rows))
    assert {(row["y_low"], row["y"]) for row in data(figure) if row.get("step") == 0} == {(48, 50)}
    assert "several stages" not in figure.caption
    assert "a ring of their own" not in figure.caption
    rows.loc[rows["quadrant"] == QUADRANTS[2], "base_value"] = 0.6
    (figure,) = figures(tables(matrix=rows))
    base = {(row.get("y_low"), row["y"]) for row in data(figure) if row.get("step") == 0}
    assert base == {(48, 50), (None, 60)}


def test_bases_of_other_sets_are_said_to_be_several() -> None:
    other = matrix({"low": {}})
    other["value"] += 0.1
    (figure,) = figures(tables(matrix=pd.concat([matrix({"high": {}}), other])))
    assert "Runs that are scored on other sets have a ring of their own." in figure.caption


def test_mixing_takes_changes_of_the_last_stage_and_compares_within_a_target() -> None:
    rows, _ = two_stages()
    mixed = rows.assign(recipe="m", run="m-0", mix="general", mix_ratio=0.5, delta=rows["delta"] + 0.1)
    mixing = drawn(figures(tables(matrix=pd.concat([rows, mixed]))))["mixing"]
    assert {row["delta"] for row in data(mixing) if "delta" in row} == {-30, -20}
    other = rows.assign(target="c")
    assert "mixing" not in drawn(figures(tables(matrix=pd.concat([other, mixed]))))


def test_the_base_is_the_reference_of_every_stages_representation() -> None:
    seen = representation(["high", "low"])
    seen = seen.assign(target=["a" if step == 0 else "b" for step in seen["step"]], stage=seen["step"] // 10)
    by_name = drawn(figures(tables(representation=seen)))
    assert "base" in {row["label"] for row in data(by_name["effective_rank"])}
    assert {row["visual_drift_l1"] for row in data(by_name["visual_drift"])} == {20}


def test_targets_have_fronts_and_panels_of_their_own() -> None:
    recipes: dict[str, dict[str, object]] = {name: {"target": name[0]} for name in ("a1", "a2", "b1", "b2")}
    points = {"a1": (0.5, 0.9), "a2": (0.4, 0.8), "b1": (0.1, 0.5), "b2": (0.05, 0.6)}
    summary = pd.DataFrame(summary_row(name, 0, *at, target=name[0]) for name, at in points.items())
    by_name = drawn(figures(tables(matrix=matrix(recipes), summary=summary)))
    pareto = vega_spec(by_name["pareto"], "light")
    assert [panel["title"] for panel in pareto["concat"]] == ["Target a", "Target b"]
    assert "on the Pareto front: of a, a1; of b, b1, b2." in by_name["pareto"].alt_text
    assert "one per target" in by_name["pareto"].caption
    domains = [panel["layer"][0]["encoding"]["x"]["scale"]["domain"] for panel in pareto["concat"]]
    assert domains[0][1] > 50
    assert domains[1][1] < 15
    tradeoff = vega_spec(by_name["tradeoff"], "light")
    titles = [panel["title"] for panel in tradeoff["concat"]]
    assert titles[0] == "a: ID text, OOD image"
    assert titles[5] == "b: OOD text, OOD image"
    for place, panel in enumerate(tradeoff["concat"]):
        runs = {
            row["run"][0] for name in texts(panel, "name") for row in tradeoff["datasets"].get(name, ()) if "run" in row
        }
        assert runs == {"ab"[place // 3]}
        assert "base" in texts(panel, "text")
    assert "Each target has panels of its own." in by_name["tradeoff"].caption
    single_target = drawn(figures(tables(summary=summary[summary["target"] == "a"])))["pareto"]
    assert "concat" not in vega_spec(single_target, "light")
    assert "per target" not in single_target.caption


def test_panels_in_a_single_column_follow_the_container() -> None:
    summary = pd.DataFrame(summary_row(name, 0, 0.1, 0.9, target=name) for name in "ab")
    (figure,) = figures(tables(summary=summary))
    spec = vega_spec(figure, "page")
    remove, width, columns, layout = spec["usermeta"]["embedOptions"]["patch"]
    compiled = vl_convert.vegalite_to_vega(spec, vl_version="6.4")
    assert remove == {"op": "remove", "path": "/width"}
    assert isinstance(compiled["width"], int)
    assert (width["path"], width["value"]["name"]) == ("/signals/0", "width")
    assert columns["value"]["name"] == "panel_columns"
    assert layout["path"] == "/layout/columns"


def test_a_target_that_is_no_fraction_is_not_in_points() -> None:
    summary = pd.DataFrame([summary_row("high", 0, -0.5, 0.9, target="captions")])
    caption_row = score_row("high", 20, "captions", "cider_d", 1.2) | {"target": "captions"}
    (figure,) = figures(tables(summary=summary, scores=pd.DataFrame([caption_row])))
    assert "Change on the target (cider_d)" in texts(vega_spec(figure, "light"), "title")
    assert [row["x"] for row in data(figure) if "n_seeds" in row] == [-0.5]
    assert [row["y"] for row in data(figure) if "n_seeds" in row] == [90]


def test_a_base_alone_draws_its_probe_and_nothing_that_training_would_change() -> None:
    base_tables = tables(
        matrix=matrix({"high": {}}, steps=(0,)),
        scores=scores(["high"]).query("step == 0"),
        representation=representation(["high"]).query("step == 0"),
    )
    by_name = drawn(figures(base_tables))
    assert set(by_name) == {"probe", "class_name_effect"}
    assert "before any training" in by_name["probe"].caption
    assert {row["label"] for row in data(by_name["probe"])} == {"base"}


def test_probe_shares_of_answers_sum_to_all_items(everything: dict[str, Figure]) -> None:
    shares = [row for row in data(everything["probe"]) if "answer" in row and row["label"] == "half"]
    by_answer = {row["answer"]: row["share"] for row in shares}
    assert by_answer == {"right": 50, "class name": 30, "other wrong": 20}


def test_probe_shows_a_shared_base_once_and_different_bases_by_recipe() -> None:
    rows = scores(["high", "low"])
    labels = {row["label"] for row in data(drawn(figures(tables(scores=rows)))["probe"])}
    assert labels == {"base", "high", "low"}
    rows.loc[(rows["recipe"] == "low") & (rows["step"] == 0) & (rows["metric"] == "accuracy"), "value"] = 0.8
    labels = {row["label"] for row in data(drawn(figures(tables(scores=rows)))["probe"])}
    assert labels == {"high (base)", "low (base)", "high", "low"}


def test_class_name_effect_is_drawn_on_the_same_items(everything: dict[str, Figure]) -> None:
    points = [row for row in data(everything["class_name_effect"]) if "asked" in row and row["label"] == "high"]
    assert {row["asked"]: row["score"] for row in points} == {"with the class name": 50, "without the class name": 70}


def test_mixing_draws_lines_from_ratio_0_only_where_all_else_is_equal() -> None:
    rows = matrix({**MIXED, "other_rate": {"lr": 0.01}})
    mixing = drawn(figures(tables(matrix=rows)))["mixing"]
    at_zero = {row["recipe"] for row in data(mixing) if row.get("ratio") == 0}
    assert at_zero == {"high"}
    assert {row["ratio"] for row in data(mixing) if "ratio" in row} == {0, 20, 50}
    assert "matrix.csv" in mixing.caption


def test_mixing_draws_dots_per_type_where_only_types_differ() -> None:
    kinds: dict[str, dict[str, object]] = {
        "a": {"mix": "general", "mix_ratio": 0.5},
        "b": {"mix": "same", "mix_ratio": 0.5},
        "c": {},
    }
    mixing = drawn(figures(tables(matrix=matrix(kinds))))["mixing"]
    assert {row["series"] for row in data(mixing) if "series" in row} == {"general", "same", "none"}
    assert "per mix" in mixing.caption


def test_mixing_prefers_intervals_over_seeds(everything: dict[str, Figure]) -> None:
    assert "seeds.csv" in everything["mixing"].caption
    assert {row["low"] for row in data(everything["mixing"]) if "low" in row} == {-15}


def test_one_mix_for_all_runs_is_no_comparison() -> None:
    assert "mixing" not in drawn(figures(tables(matrix=matrix({"half": MIXED["half"]}))))


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(0.0, 0.0)], [True]),
        ([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (1.0, 1.0), (2.0, 1.0)], [True, True, True, False, False]),
        ([(1.0, 1.0), (1.0, 1.0)], [True, True]),
        ([(1.0, 2.0), (1.0, 1.0)], [True, False]),
    ],
)
def test_pareto_front_is_what_no_point_beats(points: list[tuple[float, float]], front: list[bool]) -> None:
    assert pareto_front(points) == front


def test_pareto_names_the_front_of_means_over_seeds() -> None:
    summary = pd.DataFrame(
        [summary_row("good", 0, 0.3, 0.9), summary_row("good", 1, 0.1, 0.9), summary_row("bad", 0, 0.1, 0.8)]
    )
    (figure,) = figures(tables(summary=summary))
    assert [row["label"] for row in data(figure) if "name_x" in row] == ["good"]
    assert [(row["x"], row["n_seeds"]) for row in data(figure) if row.get("label") == "good" and "n_seeds" in row] == [
        (20, 2)
    ]
    assert sorted(row["x"] for row in data(figure) if "seed" in row) == [10, 30]


def test_names_are_kept_apart_in_order_and_inside() -> None:
    assert space_apart([1.0, 5.0, 9.0], 2, 0, 10) == [1, 5, 9]
    assert space_apart([5.0, 5.0, 5.0], 2, 0, 10) == [3, 5, 7]
    assert space_apart([9.5, 9.6], 2, 0, 10) == [8, 10]
    assert space_apart([5.0] * 5, 4, 0, 10) == [0, 2.5, 5, 7.5, 10]


def test_seeds_are_drawn_for_recipes_that_have_several() -> None:
    assert "seeds" not in drawn(figures(tables(seeds=seeds_table({"high": {}}, n_seeds=1))))
    table = seeds_table({"high": {}, "once": {"n_seeds": 1}})
    (figure,) = figures(tables(seeds=table))
    rows = [row for row in data(figure) if "delta" in row]
    assert {row["label"] for row in rows} == {"high"}
    assert {(row["low"], row["high"], row["sd_low"], row["sd_high"]) for row in rows} == {(-15, -5, -13, -7)}


def test_drift_is_drawn_beside_the_loss_with_its_rank_correlation(everything: dict[str, Figure]) -> None:
    figure = everything["answer_drift"]
    points = {(row["label"], row["seed"], row["step"]): row for row in data(figure) if "loss" in row and "step" in row}
    assert len(points) == 12
    assert points["half", 1, 20]["loss"] == pytest.approx(12.1)
    assert points["half", 1, 20]["kl_from_base"] == pytest.approx(0.121**2, rel=1e-3)
    assert "rank correlation is 1.00 (95 % interval over 6 runs" in figure.caption
    assert "rank correlation is 1.00" in figure.alt_text
    assert "12 checkpoints; runs: 6." in figure.alt_text


def test_a_handful_of_checkpoints_has_no_figure_of_drift_and_few_runs_no_interval() -> None:
    assert "answer_drift" not in drawn(figures(tables(drift=drift(["high"], steps=(1, 2, 3, 4, 5)))))
    by_name = drawn(figures(tables(drift=drift(["high"], steps=(1, 2, 3, 4, 5, 6)), matrix=matrix({"high": {}}))))
    assert "without an interval of 1 run (at least 5 are needed)." in by_name["answer_drift"].caption


def test_targets_have_panels_of_drift_of_their_own() -> None:
    both = pd.concat([drift(["high"], 3).assign(target="a"), drift(["low"], 3).assign(target="b")], ignore_index=True)
    figure = drawn(figures(tables(drift=both, matrix=matrix({"high": {}, "low": {}}))))["answer_drift"]
    titles = [title for title in texts(vega_spec(figure, "light"), "title") if isinstance(title, str)]
    assert {"Target a", "Target b"} <= set(titles)
    assert "a: Spearman's" in figure.caption


def test_representation_of_one_run_follows_its_steps_and_of_several_their_recipes() -> None:
    by_name = drawn(figures(tables(representation=representation(["high"]))))
    assert {row["step"] for row in data(by_name["effective_rank"])} == {0, 10, 20}
    several = drawn(figures(tables(representation=representation(["high", "low"]))))
    assert {row["label"] for row in data(several["effective_rank"])} == {"base", "high", "low"}
    assert {row["visual_drift_l1"] for row in data(several["visual_drift"])} == {20}


def test_parts_that_did_not_move_are_named_and_not_drawn(everything: dict[str, Figure]) -> None:
    figure = everything["weight_distance"]
    assert "Not moved: vision." in figure.caption
    assert {row["part"] for row in data(figure) if "part" in row} == {"language"}


def test_long_training_is_averaged_over_steps_and_the_caption_says_so() -> None:
    (figure,) = figures(tables(train=train(["high"], steps=480)))
    losses = [row for row in data(figure) if "loss" in row]
    assert len(losses) == 240
    assert losses[0] == {"group": "high", "label": "high", "line": 0, "step": 1.5, "loss": 0.75}
    assert "mean of 2 steps" in figure.caption


def test_learning_rates_are_drawn_for_a_single_recipe() -> None:
    single, several = (figures(tables(train=train(names)))[0] for names in (["high"], ["high", "low"]))
    assert any("rate" in row for row in data(single))
    assert not any("rate" in row for row in data(several))


def test_an_absent_interval_stays_absent() -> None:
    rows = matrix({"high": {"ci_low": None, "ci_high": None}})
    (figure,) = figures(tables(matrix=rows))
    assert any("y" in row for row in data(figure))
    assert not any("y_low" in row for row in data(figure))


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_colours_stand_out_on_white_and_on_near_black() -> None:
    for colour in PALETTE:
        light = luminance(colour)
        assert 1.05 / (light + 0.05) >= 3, colour
        assert (light + 0.05) / (luminance("#14161a") + 0.05) >= 3, colour


def test_a_recipe_has_one_colour_in_every_figure(everything: dict[str, Figure]) -> None:
    for name in ("tradeoff", "pareto", "training"):
        scales = [
            dict(zip(colour["scale"]["domain"], colour["scale"]["range"], strict=True))
            for colour in texts(vega_spec(everything[name], "light"), "color")
            if isinstance(colour, dict) and colour.get("field") == "group"
        ]
        assert scales
        assert all(scale["some"] == PALETTE[2] for scale in scales), name


def test_many_recipes_are_coloured_by_method_and_groups_differ_in_colour_or_shape() -> None:
    recipes: dict[str, dict[str, object]] = {
        f"m{k}-lr{rate}": {"method": f"m{k:02}"} for k in range(12) for rate in "ab"
    }
    groups = groups_of(tables(matrix=matrix(recipes, steps=(0,))))
    assert groups.title == "Method"
    assert groups.group("m3-lra") == "m03"
    assert groups.group("m3-lra", "wise_ft:0.5") == "wise_ft"
    colours, shapes = groups.scale(groups.names).to_dict(), groups.scale(groups.names, SHAPES).to_dict()
    assert len(set(zip(colours["range"], shapes["range"], strict=True))) == 12


def test_short_names_drop_what_all_share_and_stay_distinct() -> None:
    assert short_names(["recipe-high", "recipe-low"]) == {"recipe-high": "high", "recipe-low": "low"}
    points = ["data-x--method-ewc--recipe.lr-0.1", "data-x--method-ewc--recipe.lr-0.2"]
    assert list(short_names(points).values()) == ["lr 0.1", "lr 0.2"]
    assert list(short_names(["method-ewc", "recipe-ewc"]).values()) == ["method-ewc", "recipe-ewc"]


def guard(run: str, *losses: float, quadrant: str = QUADRANTS[1], budget: float = 0.05) -> pd.DataFrame:
    """A look every ten steps, each bound ten points off."""
    rows = [
        {"run": f"{run}-seed-0", "recipe": run, "step": 10 * k, "group": quadrant, "loss": loss, "low": loss - 0.1}
        | {"high": loss + 0.1, "budget": budget, "decision": "go on"}
        for k, loss in enumerate(losses, start=1)
    ]
    return pd.DataFrame(rows)


def test_the_budget_is_a_line_below_the_base_in_the_quadrants_that_it_is_for() -> None:
    by_name = drawn(figures(tables(matrix=matrix({"high": {}, "low": {}}), guard=guard("high", 0.02))))
    lines = [row for row in data(by_name["tradeoff"]) if set(row) == {"y"}]
    assert lines == [{"y": 45.0}]  # the base is at 50
    assert "Dashed: the base's accuracy less the budget" in by_name["tradeoff"].caption
    of_mean = drawn(figures(tables(matrix=matrix({"high": {}}), guard=guard("high", 0.02, quadrant="mean"))))
    assert len([row for row in data(of_mean["tradeoff"]) if set(row) == {"y"}]) >= 1
    without = drawn(figures(tables(matrix=matrix({"high": {}}))))
    assert "Dashed" not in without["tradeoff"].caption
    assert "guard" not in without


def test_looks_are_drawn_in_points_lost_from_the_base_on_beside_the_budget() -> None:
    runs = pd.concat([guard("high", 0.02, 0.2), guard("low", 0.0, 0.01)])
    figure = drawn(figures(tables(guard=runs)))["guard"]
    rows = [row for row in data(figure) if row.get("run") == "high-seed-0"]
    assert {(row["step"], row["loss"], row["high"]) for row in rows} == {(0, 0, 0), (10, 2, 12), (20, 20, 30)}
    assert [row for row in data(figure) if set(row) == {"budget"}] == [{"budget": 5.0}]
    assert "Bands hold over all looks" in figure.caption
