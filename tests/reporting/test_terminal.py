"""What a reader sees in a 100-column terminal without colour."""

import io

import pandas as pd
import pytest
from rich.console import Console, RenderableType

from forgetbench.reporting.terminal import matrix_table, sweep_table


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
    named = [score_row("naming", "id_text-id_image", step, 0.5) for step in (0, 100, 200)]
    return pd.DataFrame(named + probe)


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


def test_the_best_checkpoint_is_named(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    assert "best on target step_000100, last step_000200" in rendered(matrix_table(scores, matrix))


def test_rows_are_texts_and_columns_are_images(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    lines = rendered(matrix_table(scores, matrix)).splitlines()
    header = next(line for line in lines if "OOD image" in line)
    assert header.index("ID image") < header.index("OOD image")
    id_text, ood_text = (next(line for line in lines if name in line) for name in ("│ ID text", "│ OOD text"))
    assert "88.0" in id_text
    assert "30.0" in ood_text


def test_an_absent_quadrant_is_a_dash(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    line = next(line for line in rendered(matrix_table(scores, matrix)).splitlines() if "│ ID text" in line)
    assert line.split("│")[3].strip() == "-"


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


def test_a_sweep_has_one_row_per_run_within_100_columns(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    other = matrix.assign(run="lr=1e-6,parts=language+projector,seed=3")
    lines = rendered(sweep_table(pd.concat([matrix, other]), scores)).splitlines()
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert "…" not in text
    assert text.count("50.0 -> 88.0") == 2
    assert text.count("50.0 -> 75.0") == 1
    assert "-20.0 lower" in text
