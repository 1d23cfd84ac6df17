"""The summary that a program reads: which rows, in which order, and written how."""

import io
import json

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from forgetbench.terminal.plain import PLAIN_COLUMNS, plain_rows, to_json, to_tsv

Row = dict[str, object]


def row(checkpoint: str, stage: int, step: int, value: float, **changes: object) -> Row:
    return {
        "run": "demo", "checkpoint": checkpoint, "variant": "", "stage": stage, "step": step, "quadrant": "",
        "decoding": "choice", "metric": "accuracy", "seen_in_mix": False, "n_datasets": 2, "n": 40, "value": value,
        "base_value": 0.5, "delta": None, "delta_ci_low": None, "delta_ci_high": None,
    } | changes  # fmt: skip


BASE, STAGE_1, LAST = ("base", 0, 0), ("step_000010", 1, 10), ("step_000020", 2, 20)
EDITED = ("step_000020@wise_ft-0.5", 2, 20)
TESTED = {"delta": -0.1, "delta_ci_low": -0.2, "delta_ci_high": 0.1 + 0.2, "p_value": 0.01, "p_holm": 0.03}


@pytest.fixture
def matrix() -> pd.DataFrame:
    rows = [
        row(*LAST, 0.4, quadrant="ood_text-ood_image", **TESTED),
        row(*BASE, 0.5, quadrant="id_text-id_image"),
        row(*STAGE_1, 0.99, quadrant="id_text-ood_image"),
        row(*LAST, 0.9, quadrant="id_text-id_image", decoding="greedy"),
        row(*LAST, 0.8, quadrant="id_text-id_image"),
        row(*LAST, 0.45, quadrant="ood_text-ood_image", seen_in_mix=True),
        row("step_000015", 2, 15, 0.7, quadrant="id_text-id_image"),
        row(*EDITED, 0.6, quadrant="id_text-id_image", variant="wise_ft:0.5"),
        row("step_000015@ties", 2, 15, 0.65, quadrant="id_text-id_image", variant="ties"),
        row("step_000010@dare-0.9", 1, 10, 0.99, quadrant="id_text-id_image", variant="dare:0.9"),
        row(*BASE, 0.5, quadrant="ood_text-id_image", run="base-tiny"),
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [
        row(*LAST, 0.8, dataset="naming", quadrant="id_text-id_image"),
        *(
            row(*place, value, dataset="probe", metric=metric, n=n)
            for place in (BASE, LAST)
            for metric, value, n in [
                ("mischoice_of_wrong", 0.2, 7),
                ("mischoice", 0.3, 30),
                ("class_name_effect", -0.05, 30),
                ("accuracy", 0.6, 30),
            ]
        ),
    ]
    return pd.DataFrame(rows).drop(columns="n_datasets")


def read_back(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), sep="\t")


# The last stage only, quadrants before probes, as trained before variants; a variant of an older step is its last one.
EXPECTED = """\
run checkpoint variant quadrant decoding metric seen_in_mix n_datasets n base_value value \
delta delta_ci_low delta_ci_high p_value p_holm
base-tiny base . ood_text-id_image choice accuracy False 2 40 0.5 0.5 . . . . .
demo step_000020 . id_text-id_image choice accuracy False 2 40 0.5 0.8 . . . . .
demo step_000020 . id_text-id_image greedy accuracy False 2 40 0.5 0.9 . . . . .
demo step_000020 . ood_text-ood_image choice accuracy False 2 40 0.5 0.4 -0.1 -0.2 0.3 0.01 0.03
demo step_000020 . ood_text-ood_image choice accuracy True 2 40 0.5 0.45 . . . . .
demo step_000020 . probe:probe choice accuracy False 1 30 0.5 0.6 . . . . .
demo step_000020 . probe:probe choice class_name_effect False 1 30 0.5 -0.05 . . . . .
demo step_000020 . probe:probe choice mischoice False 1 30 0.5 0.3 . . . . .
demo step_000015@ties ties id_text-id_image choice accuracy False 2 40 0.5 0.65 . . . . .
demo step_000020@wise_ft-0.5 wise_ft:0.5 id_text-id_image choice accuracy False 2 40 0.5 0.6 . . . . .
"""


def test_the_last_checkpoint_of_every_run_and_variant_is_written(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    expected = EXPECTED.replace(" ", "\t").replace(".\t", "\t").replace("\t.\n", "\t\n")
    assert to_tsv(plain_rows(matrix, scores)) == expected


def test_tables_read_back_from_csv_give_the_same_rows(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    back = [pd.read_csv(io.StringIO(frame.to_csv(index=False))) for frame in (matrix, scores)]
    assert_frame_equal(plain_rows(*back), plain_rows(matrix, scores))


def test_a_file_without_variants_and_p_values_gives_absent_ones(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    old = [frame[frame["variant"] == ""].drop(columns="p_holm", errors="ignore") for frame in (matrix, scores)]
    back = [pd.read_csv(io.StringIO(frame.to_csv(index=False))) for frame in old]
    assert back[0]["variant"].isna().all()
    rows = plain_rows(*back)
    assert rows[["variant", "p_holm"]].isna().all(axis=None)
    assert rows["p_value"].count() == 1


def test_a_mischoice_of_every_dataset_that_has_one_is_kept_apart(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    other = scores[scores["dataset"] == "probe"].assign(dataset="other", seen_in_mix=True)
    rows = plain_rows(matrix, pd.concat([scores, other]))
    probes = rows[rows["metric"] == "mischoice"]
    assert list(zip(probes["quadrant"], probes["seen_in_mix"], strict=True)) == [
        ("probe:other", True),
        ("probe:probe", False),
    ]


def test_noise_of_binary_arithmetic_is_not_written(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    noisy = [5.55e-17, -1e-13, 0.1 + 0.2, 1 / 3, 1.5e-11, float("nan")]
    wanted = [0, 0, 0.3, 0.333333333333, 1.5e-11, None]
    for kind in ("float64", "Float64", "object"):
        frame = pd.DataFrame({"name": "x", "n": range(6), "value": pd.Series(noisy, dtype=kind)})
        assert [row["value"] for row in json.loads(to_json(frame))] == wanted
        assert [line.split("\t")[2] for line in to_tsv(frame).splitlines()[1:]] == [
            *("0.0", "0.0", "0.3", "0.333333333333", "1.5e-11", "")
        ]
        assert frame["value"][2] == 0.1 + 0.2, "what is written is a copy"


def test_the_tab_separated_text_reads_back_to_twelve_digits(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    rows = plain_rows(matrix, scores)
    back = read_back(to_tsv(rows))
    assert_frame_equal(back.astype(rows.dtypes.to_dict()), rows, rtol=1e-11, atol=0)
    assert back["n"].dtype == "int64"


def test_json_has_integers_and_nulls_and_reads_back(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    rows = plain_rows(matrix, scores)
    text = to_json(rows)
    assert text.startswith('[\n  {\n    "run": "base-tiny",\n')
    assert text.endswith("\n]\n")
    first, *_ = objects = json.loads(text)
    assert list(first) == list(PLAIN_COLUMNS)
    assert first | {"n": 40, "variant": None, "delta": None, "p_holm": None, "seen_in_mix": False} == first
    assert {type(row["n"]) for row in objects} == {type(row["n_datasets"]) for row in objects} == {int}
    assert {type(row["seen_in_mix"]) for row in objects} == {bool}
    assert_frame_equal(pd.DataFrame(objects).astype(rows.dtypes.to_dict()), rows, rtol=1e-11, atol=0)


def test_an_absent_count_is_empty_and_leaves_the_others_integers(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    matrix["n"] = matrix["n"].astype("Int64").where(matrix["value"] != 0.8)
    rows = plain_rows(matrix, scores)
    assert [row["n"] for row in json.loads(to_json(rows))][:3] == [40, None, 40]
    assert "\t2\t\t0.5\t0.8\t" in to_tsv(rows)
    assert "40.0" not in to_tsv(rows)


def test_tables_without_rows_give_a_header_and_an_empty_array(scores: pd.DataFrame, matrix: pd.DataFrame) -> None:
    rows = plain_rows(matrix[:0], scores[:0])
    assert to_tsv(rows) == "\t".join(PLAIN_COLUMNS) + "\n"
    assert json.loads(to_json(rows)) == []
