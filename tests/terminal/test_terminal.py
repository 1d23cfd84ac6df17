"""What a reader sees in a terminal of 80 columns or more, without colour."""

import io
import re

import pandas as pd
import pytest
from rich.console import Console, RenderableType

from forgetbench.terminal import matrix_table, sweep_table, training_lines
from forgetbench.terminal.cells import fold

VERDICTS = r"higher|lower|unclear"


def matrix_row(quadrant: str, step: int, value: float, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "run": "demo", "checkpoint": f"step_{step:06d}" if step else "base", "variant": None,
        "stage": 1, "step": step, "quadrant": quadrant, "decoding": "choice", "metric": "accuracy",
        "seen_in_mix": False, "n_datasets": 2, "value": value, "base_value": 0.5,
        "delta": value - 0.5 if step else None, "delta_ci_low": value - 0.55 if step else None,
        "delta_ci_high": value - 0.45 if step else None,
    }  # fmt: skip
    return row | changes


def score_row(dataset: str, quadrant: str | None, step: int, value: float, **changes: object) -> dict[str, object]:
    return matrix_row(quadrant or "", step, value) | {
        "dataset": dataset, "quadrant": quadrant, "chance": 0.25
    } | changes  # fmt: skip


@pytest.fixture
def matrix() -> pd.DataFrame:
    target = [matrix_row("id_text-id_image", step, v) for step, v in [(0, 0.5), (100, 0.9), (200, 0.88)]]
    other = [matrix_row("ood_text-id_image", step, v) for step, v in [(0, 0.5), (100, 0.48), (200, 0.3)]]
    seen = [matrix_row("ood_text-ood_image", step, v, seen_in_mix=True) for step, v in [(0, 0.5), (200, 0.52)]]
    return pd.DataFrame(target + other + seen)


@pytest.fixture
def scores() -> pd.DataFrame:
    probe = [
        score_row("class_probe", None, step, v, metric=metric)
        for metric, values in {"accuracy": (0.5, 0.2), "mischoice": (0.5, 0.75)}.items()
        for step, v in zip((0, 200), values, strict=True)
    ]
    named = [score_row(name, "id_text-id_image", step, 0.5) for name in ("naming", "again") for step in (0, 100, 200)]
    return pd.DataFrame(named + probe)


def drawn_colours(renderable: RenderableType, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def rendered(renderable: RenderableType, width: int = 100) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_each_quadrant_shows_base_best_and_last_with_the_change(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    text = rendered(matrix_table(scores, matrix))
    assert "choice 50.0 -> 90.0 -> 88.0" in text
    assert "+38.0 +/- 5.0 higher" in text
    assert "choice 50.0 -> 48.0 -> 30.0" in text
    assert "-20.0 +/- 5.0 lower" in text
    assert "chance 25.0, 2 datasets" in text


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((0.5, 0.25), "chance 37.5, 2 datasets"),
        ((0.5, None), "chance known for 1 of 2 datasets"),
        ((None, None), "chance -, 2 datasets"),
    ],
)
def test_a_chance_level_is_shown_only_where_every_dataset_of_the_mean_has_one(
    matrix: pd.DataFrame, levels: tuple[float | None, ...], expected: str
) -> None:
    rows = [
        score_row(f"set {k}", "id_text-id_image", 200, 0.5, chance=level, metric=metric)
        for k, level in enumerate(levels)
        for metric in ("accuracy", "letter_bias")
    ]
    rows = [row | {"chance": row["chance"] if row["metric"] == "accuracy" else None} for row in rows]
    lines = rendered(matrix_table(pd.DataFrame(rows), matrix)).split("\n")
    assert any(expected in line for line in lines)
    assert sum("37.5" in line for line in lines) == (None not in levels)


def test_the_best_checkpoint_is_named(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    assert "best on target step_000100, last step_000200" in rendered(matrix_table(scores, matrix))


def test_rows_are_texts_and_columns_are_images(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    lines = rendered(matrix_table(scores, matrix)).splitlines()
    header = next(line for line in lines if "OOD image" in line)
    assert header.index("ID image") < header.index("OOD image")
    id_text, ood_text = (next(line for line in lines if line.startswith(name)) for name in ("ID text", "OOD text"))
    assert "88.0" in id_text
    assert "30.0" in ood_text


def test_an_absent_quadrant_is_a_dash(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    lines = rendered(matrix_table(scores, matrix)).splitlines()
    row = next(line for line in lines if line.startswith("ID text"))
    header = next(line for line in lines if "OOD image" in line)
    assert row[header.index("OOD image") :].strip() == "-"


def test_datasets_seen_in_the_mix_are_marked(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    text = rendered(matrix_table(scores, matrix))
    assert "2 datasets, seen in mix" in text
    assert "+2.0 +/- 5.0 unclear" in text


def test_the_probe_line_shows_accuracy_and_mischoice(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    text = rendered(matrix_table(scores, matrix))
    assert "probe class_probe (choice)" in text
    assert "accuracy 50.0 -> 20.0  -30.0 +/- 5.0 lower" in text
    assert "mischoice 50.0 -> 75.0  +25.0 +/- 5.0 higher" in text


def test_edited_checkpoints_have_rows_of_their_own(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    names = {"variant": "wise_ft:0.5", "checkpoint": "step_000200@wise_ft-0.5"}
    edited = pd.DataFrame([matrix_row("id_text-id_image", 200, 0.99, **names)])
    both = pd.concat([matrix, edited])
    text = rendered(matrix_table(scores, both))
    view, _, variants = text.partition("variants: base -> variant")
    assert "99.0" not in view
    lines = variants.splitlines()
    row = next(place for place, line in enumerate(lines) if "@wise_ft-0.5" in line)
    assert "50.0 -> 99.0" in lines[row]
    assert "+49.0 higher" in lines[row + 1]
    assert "50.0 -> 88.0" in next(line for line in lines if "as trained" in line)
    swept = rendered(sweep_table(both, scores))
    assert swept.count("50.0 -> 88.0") == swept.count("50.0 -> 99.0") == swept.count("@wise_ft-0.5") == 1
    assert "variants" not in rendered(matrix_table(scores, matrix))


def test_an_untrained_run_shows_its_base(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    base = rendered(matrix_table(scores[scores["step"] == 0], matrix[matrix["step"] == 0]))
    assert "choice 50.0 -> 50.0 -> 50.0" in base


def test_tables_read_back_from_csv_look_the_same(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    back = [pd.read_csv(io.StringIO(frame.to_csv(index=False))) for frame in (scores, matrix)]
    assert rendered(matrix_table(*back)) == rendered(matrix_table(scores, matrix))


def test_empty_tables_say_so(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    assert "no scored datasets" in rendered(matrix_table(scores[:0], matrix[:0]))
    assert "no scored runs" in rendered(sweep_table(matrix[:0], scores[:0]))


def test_a_run_scored_on_the_probe_alone_shows_it(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    text = rendered(matrix_table(scores, matrix[:0]), 80)
    assert "no scored datasets" in text
    assert "mischoice 50.0 -> 75.0  +25.0 +/- 5.0 higher" in text
    swept = rendered(sweep_table(matrix[:0], scores), 80)
    assert next(line for line in swept.splitlines() if line.startswith("demo")).split() == [
        *("demo", "-", "-", "-", "-"),
        *("50.0", "->", "75.0"),
    ]


LONG = "method-magnitude_mask--recipe.lr-0.0016--recipe.parts-language+projector--seed-2"


@pytest.fixture
def full_matrix() -> pd.DataFrame:
    """Two decodings, two stages, every quadrant, one of them in part seen in the mix, captions, and two variants."""
    values = {"id_text-id_image": 1.0, "id_text-ood_image": 0.4, "ood_text-id_image": 0.0, "ood_text-ood_image": 0.35}
    checkpoints: list[tuple[int, int, dict[str, object]]] = [
        (0, 0, {}),
        (1, 50, {}),
        (2, 100, {}),
        (2, 200, {"p_holm": 0.001}),
        (2, 200, {"p_holm": 0.001, "variant": "wise_ft:0.5", "checkpoint": "step_000200@wise_ft-0.5"}),
        (2, 200, {"p_holm": 0.03, "variant": "model_tailor", "checkpoint": "step_000200@model_tailor"}),
    ]
    rows = [
        matrix_row(quadrant, step, 0.77 if stage == 1 else value, decoding=decoding, stage=stage, **changes)
        for quadrant, value in values.items()
        for decoding in ("choice", "greedy")
        for stage, step, changes in checkpoints
    ]
    greedy = {"decoding": "greedy", "stage": 2}
    rows.append(matrix_row("ood_text-ood_image", 200, 0.52, seen_in_mix=True, p_holm=0.04, **greedy))
    rows.append(matrix_row("ood_text-ood_image", 200, 0.9, metric="cider_d", base_value=1.2, **greedy))
    for row in rows:
        row["run"] = LONG
        if row["quadrant"] == "id_text-id_image":
            row["p_holm"] = None
    return pd.DataFrame(rows)


@pytest.fixture
def full_scores(full_matrix: pd.DataFrame) -> pd.DataFrame:
    sets = full_matrix.assign(dataset=full_matrix["quadrant"] + "-set", chance=0.25)
    probed = full_matrix[full_matrix["quadrant"] == "id_text-id_image"].assign(quadrant=None, value=1.0, p_holm=None)
    probes = [
        probed.assign(dataset=dataset, metric=metric)
        for dataset in ("fashion_probe", "a_set_with_a_rather_long_name+class_name")
        for metric in ("accuracy", "mischoice", "class_name_effect")
    ]
    return pd.concat([sets, *probes])


def assert_whole(text: str, width: int) -> None:
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert not re.search(r"(->|[+]/-|,)\s*$", text, re.MULTILINE)


@pytest.mark.parametrize("width", [80, 90, 100, 140])
def test_all_of_a_run_is_shown_in_any_width(full_scores: pd.DataFrame, full_matrix: pd.DataFrame, width: int) -> None:
    text = rendered(matrix_table(full_scores, full_matrix), width)
    assert_whole(text, width)
    assert LONG in re.sub(r"\n", "", text)
    for decoding in ("choice", "greedy"):
        assert f"{decoding} 50.0 -> 100.0 -> 100.0" in text
        assert f"{decoding} 50.0 -> 0.0 -> 0.0" in text
        assert f"probe a_set_with_a_rather_long_name+class_name ({decoding})" in text
    assert "greedy cider_d 1.20 -> - -> 0.90" in text
    assert "seen in mix" in text
    assert text.count("+50.0 +/- 5.0 higher\n") >= 3
    variants = text[text.index("variants: base -> variant, % (choice)") :]
    for name in ("as trained", "@model_tailor", "@wise_ft-0.5"):
        row = next(line for line in variants.splitlines() if line.startswith(name))
        assert row.count("50.0 -> 100.0") == 2
        assert row.count("50.0 -> 0.0") == 1


@pytest.mark.parametrize("width", [80, 90, 100, 140])
def test_all_of_a_sweep_is_shown_in_any_width(full_scores: pd.DataFrame, full_matrix: pd.DataFrame, width: int) -> None:
    runs = [LONG, "recipe-full_high_lr--seed-0", "recipe-full_high_lr--seed-1"]
    tables = [pd.concat([frame.assign(run=run) for run in runs]) for frame in (full_matrix, full_scores)]
    text = rendered(sweep_table(*tables, "greedy"), width)
    assert_whole(text, width)
    names = "".join(line.partition(" ")[0] for line in text.splitlines()[4:])
    assert all(run in names for run in runs)
    assert text.count("50.0 -> 0.0") == 3 * 3
    assert names.count("@wise_ft-0.5") == names.count("@model_tailor") == 3
    assert text.count("seen in mix") == 3
    assert text.count("fashion_") == text.count("a_set_with_") == 3 * 3


def test_narrower_terminals_fold_and_lose_nothing(full_scores: pd.DataFrame, full_matrix: pd.DataFrame) -> None:
    for table in (matrix_table(full_scores, full_matrix), sweep_table(full_matrix, full_scores, "greedy")):
        text = rendered(table, 48)
        assert max(map(len, text.splitlines())) <= 48
        assert "…" not in text
        wide = rendered(table, 200)
        assert len(re.findall(VERDICTS, text)) == len(re.findall(VERDICTS, wide)) > 0


def test_wide_terminals_have_intervals_in_a_sweep(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    assert "+38.0 higher" in rendered(sweep_table(matrix, scores), 80)
    assert "+38.0 +/- 5.0 higher" in rendered(sweep_table(matrix, scores), 140)


def test_wide_terminals_have_values_and_change_on_one_line(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    assert "choice 50.0 -> 90.0 -> 88.0  +38.0 +/- 5.0 higher" in rendered(matrix_table(scores, matrix), 140)


def test_the_verdict_is_in_words_and_in_colour(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    text = drawn_colours(sweep_table(matrix, scores))
    assert "\x1b[32m+38.0 higher" in text
    assert "\x1b[31m-20.0 lower" in text
    assert "\x1b[2m+2.0 unclear" in text


def test_mischoice_that_rises_is_red_and_still_called_higher(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    assert "\x1b[31m+25.0 higher" in drawn_colours(sweep_table(matrix, scores))
    assert "\x1b[31m+25.0 +/- 5.0 higher" in drawn_colours(matrix_table(scores, matrix))
    fewer = scores.assign(delta=-scores["delta"], delta_ci_low=-0.3, delta_ci_high=-0.2)
    assert "\x1b[32m-25.0 lower" in drawn_colours(sweep_table(matrix, fewer))


def test_what_is_no_fraction_is_not_said_to_be_in_percent(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    captions = matrix_row("ood_text-ood_image", 200, 0.9, metric="cider_d", base_value=1.2)
    both = rendered(matrix_table(scores, pd.concat([matrix, pd.DataFrame([captions])])))
    assert "demo: % right (other metrics on their own scale), base -> best -> last" in both
    assert "demo: % right, base -> best -> last" in rendered(matrix_table(scores, matrix))
    assert "demo: metrics on their own scale, base" in rendered(matrix_table(scores[:0], pd.DataFrame([captions])))


@pytest.mark.parametrize(("p_holm", "starred"), [(0.049, True), (0.05, False), (None, False)])
def test_a_change_that_stands_after_adjustment_has_a_star(
    scores: pd.DataFrame, matrix: pd.DataFrame, p_holm: float | None, starred: bool
) -> None:
    lost = (matrix["quadrant"] == "ood_text-id_image") & (matrix["step"] == 200)
    adjusted = matrix.assign(p_holm=pd.Series(p_holm, matrix.index, "Float64").where(lost))
    explained = "\n* Holm-adjusted p < .05"
    for table, change in ((matrix_table, "-20.0 +/- 5.0 lower"), (sweep_table, "-20.0 lower")):
        frames = (scores, adjusted) if table is matrix_table else (adjusted, scores)
        text = rendered(table(*frames), 80)
        assert text.count("*") == 2 * starred
        assert (f"{change}*" in text, explained in text) == (starred, starred)
        assert (change in text) == (starred or p_holm is None)
        assert "+2.0 unclear*" not in text


def test_an_adjusted_probe_has_a_star_and_its_explanation(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    right = (scores["metric"] == "accuracy") & (scores["dataset"] == "class_probe") & (scores["step"] == 200)
    text = rendered(matrix_table(scores.assign(p_holm=right.map({True: 0.001})), matrix), 80)
    assert "accuracy 50.0 -> 20.0  -30.0 +/- 5.0 lower*\n" in text
    assert "mischoice 50.0 -> 75.0  +25.0 +/- 5.0 higher\n" in text
    assert text.count("* Holm-adjusted") == 1


def test_a_sweep_has_one_row_per_run_within_80_columns(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    other = matrix.assign(run="lr=1e-6,parts=language+projector,seed=3")
    lines = rendered(sweep_table(pd.concat([matrix, other]), scores), 80).splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    assert text.count("50.0 -> 88.0") == 2
    assert text.count("50.0 -> 75.0") == 1
    assert "-20.0 lower" in text
    names = [line.partition(" ")[0] for line in lines]
    place = names.index("lr=1e-6,")
    assert names[place : place + 4] == ["lr=1e-6,", "parts=language+", "projector,", "seed=3"]


def test_seeds_of_a_recipe_have_rows_of_their_own(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    seeds = pd.concat([matrix.assign(run=f"high--seed-{seed}", seed=seed) for seed in (0, 1)])
    text = rendered(sweep_table(seeds, scores[:0]), 80)
    assert text.count("50.0 -> 88.0") == 2
    assert [text.count(f"high--seed-{seed}") for seed in (0, 1)] == [1, 1]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (40, ["method-plain--recipe.lr-0.0016--seed-2"]),
        (34, ["method-plain--recipe.lr-0.0016--", "seed-2"]),
        (14, ["method-plain--", "recipe.lr-", "0.0016--seed-2"]),
        (8, ["method-", "plain--", "recipe.", "lr-", "0.0016--", "seed-2"]),
        (5, ["metho", "d-", "plain", "--", "recip", "e.lr-", "0.", "0016-", "-", "seed-", "2"]),
    ],
)
def test_names_are_folded_at_the_best_place_that_fits(width: int, lines: list[str]) -> None:
    assert fold("method-plain--recipe.lr-0.0016--seed-2", width) == lines


def test_a_run_without_scores_says_how_far_it_came() -> None:
    train = pd.DataFrame(
        {
            "step": [1, 2],
            "stage": [1, 1],
            "loss": [1.5, 0.15333],
            "samples_per_s": [50, 100],
            "peak_memory_mb": [900.4, 7],
        }
    )
    assert training_lines(train) == "stage 1, step 2: loss 0.1533\nmean 75.0 samples/s, peak memory 900 MB"


def test_what_training_did_not_record_is_a_dash() -> None:
    train = pd.DataFrame({"step": [1, 2], "loss": [1.5, None], "samples_per_s": [None, None]})
    assert training_lines(train) == "stage -, step 2: loss -\nmean - samples/s, peak memory - MB"
    assert training_lines(train[:0]) == "no step trained yet"
