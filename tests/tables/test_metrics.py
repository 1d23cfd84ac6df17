"""What a cell's answers tell beside accuracy; hand-made cells, hand-computed values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from forgetbench.core.records import Axis, Metric, Placement
from forgetbench.tables.cell_view import CellView, RowContext
from forgetbench.tables.scores import matrix_rows, score_rows

OOD = Placement(Axis.ood, Axis.ood, "ood_text-ood_image", seen_in_mix=False)
CONTEXT = RowContext(
    run="demo", model="tiny", target="naming", checkpoint="step_000000", variant="", method="plain", parts="language",
    lr=1e-5, mix="", mix_ratio=None, seed=0, stage=1, step=0, dataset="facts", image_domain="x", text_task="y",
    placement=OOD, probe=False, probe_of="", decoding="choice", metric=Metric.accuracy, labels=frozenset(),
    chance=None, seconds=None, cell="c", settings="{}",
)  # fmt: skip
GREEDY = replace(CONTEXT, decoding="greedy", cell="g")
TRAINED = replace(CONTEXT, checkpoint="step_000100", step=100, cell="t")


def view(context: RowContext, rows: list[dict[str, Any]]) -> CellView:
    """A cell of lettered items i0, i1, ...; each row says what differs from a right answer A."""
    blank = {
        "cluster": [], "image_sha256": "", "kind": "letter", "options": ["red", "blue", "green"], "target": "A",
        "references": ["A"], "class_option": None, "option_logprobs": None, "text": None, "parsed": "A", "score": None,
    }  # fmt: skip
    filled = [{**blank, "sample_id": f"i{i}", **row} for i, row in enumerate(rows)]
    for row in filled:
        row["score"] = float(row["parsed"] == row["target"]) if row["score"] is None else row["score"]
    return CellView(pd.DataFrame(filled), context)


def rows_of(*cells: CellView) -> pd.DataFrame:
    return score_rows(list(cells)).set_index(["dataset", "step", "decoding", "metric"])


def letters(parsed: str, **more: Any) -> list[dict[str, Any]]:
    return [{"parsed": None if letter == "-" else letter, **more} for letter in parsed]


def test_the_generation_gap_pairs_what_is_written_with_what_is_likeliest() -> None:
    knows, says = view(CONTEXT, letters("AAAB")), view(GREEDY, letters("A--B"))
    table = rows_of(knows, says)
    gap = table.loc[("facts", 0, "greedy", "generation_gap")]
    assert gap["value"] == -0.5
    # Differences 0 -1 -1 0 around -1/2: SE = sqrt(4/3 * 1) / 4.
    assert gap["stderr"] == pytest.approx((4 / 3) ** 0.5 / 4)
    assert gap["unparsed"] == 0.5
    assert ("facts", 0, "choice", "generation_gap") not in table.index


def test_the_change_of_the_gap_is_paired_with_the_bases_gap() -> None:
    later = [replace(context, step=9, checkpoint="step_000009") for context in (CONTEXT, GREEDY)]
    table = rows_of(
        view(CONTEXT, letters("AAAB")), view(GREEDY, letters("AAAB")),
        view(later[0], letters("AABB")), view(later[1], letters("--BB")),
    )  # fmt: skip
    gap = table.loc[("facts", 9, "greedy", "generation_gap")]
    assert (gap["base_value"], gap["value"], gap["delta"]) == (0, -0.5, -0.5)


def test_without_the_other_view_there_is_no_gap() -> None:
    assert "generation_gap" not in rows_of(view(GREEDY, letters("AB"))).index.get_level_values("metric")


def test_the_class_names_effect_is_paired_with_the_same_items_without_it() -> None:
    probe = replace(
        CONTEXT, dataset="facts+class_name", probe=True, probe_of="facts", placement=replace(OOD, quadrant="")
    )
    plain = view(CONTEXT, letters("AABA"))
    # The probe lacks i1; of the three others, i0 and i3 go to the class name, C.
    frame = view(probe, letters("CABC", class_option=2)).frame.drop(index=1).reset_index(drop=True)
    table = rows_of(plain, CellView(frame, probe))
    name = "facts+class_name"
    assert table.loc[(name, 0, "choice", "accuracy"), "value"] == 0
    assert table.loc[(name, 0, "choice", "class_name_effect"), "value"] == pytest.approx(-2 / 3)
    assert table.loc[(name, 0, "choice", "mischoice"), "value"] == pytest.approx(2 / 3)
    assert table.loc[(name, 0, "choice", "mischoice_of_wrong"), "value"] == pytest.approx(2 / 3)
    assert "class_name_effect" not in table.loc["facts"].index.get_level_values("metric")


def test_letter_bias_is_the_deviation_of_recall_over_letters() -> None:
    rows = [{"target": target, "parsed": parsed} for target, parsed in zip("AABBBB", "AAABAA", strict=True)]
    table = rows_of(view(CONTEXT, rows))
    # Recall 1 of A and 1/4 of B: deviation 3/8.
    assert table.loc[("facts", 0, "choice", "letter_bias"), "value"] == pytest.approx(3 / 8)
    assert pd.isna(table.loc[("facts", 0, "choice", "letter_bias"), "stderr"])


def test_labels_of_the_task_count_where_the_item_does_not_offer_them() -> None:
    texts = ["a shirt", "red", "It is a dress.", "blue shirt"]
    context = replace(GREEDY, labels=frozenset({"shirt", "dress", "red"}))
    table = rows_of(view(context, [{"text": text, "parsed": None} for text in texts]))
    assert table["label_bias"].unique().tolist() == [0.75]


def test_a_label_named_in_a_thought_is_no_bias() -> None:
    texts = ["<think>No shirt.</think>round", "<think>a dress", "<think>round</think>a dress"]
    context = replace(GREEDY, labels=frozenset({"shirt", "dress"}))
    table = rows_of(view(context, [{"text": text, "parsed": None} for text in texts]))
    assert table["label_bias"].unique().tolist() == [1 / 3]


@pytest.mark.parametrize("context", [GREEDY, replace(CONTEXT, labels=frozenset({"shirt"}))])
def test_label_bias_is_absent_without_labels_or_text(context: RowContext) -> None:
    cell = view(context, [{"text": "shirt" if context is GREEDY else None}])
    assert rows_of(cell)["label_bias"].isna().tolist() == [True]


def test_yes_no_sets_have_precision_recall_and_f1() -> None:
    answers = zip(["yes"] * 4 + ["no"] * 4, ["yes", "yes", "yes", "no", "yes", "no", "no", None], strict=True)
    rows = [
        {"kind": "option", "options": ["yes", "no"], "target": target, "parsed": parsed} for target, parsed in answers
    ]
    values = rows_of(view(CONTEXT, rows)).loc[("facts", 0, "choice")]["value"]
    assert values["accuracy"] == 5 / 8
    assert (values["precision"], values["recall"]) == (0.75, 0.75)
    assert values["f1"] == 0.75


def answer_rows(answers: str) -> list[dict[str, Any]]:
    """Yes/no questions whose answers are y or n; the truth is yes for the first half."""
    whole = {"y": "yes", "n": "no"}
    return [
        {"kind": "option", "options": ["yes", "no"], "target": "yes" if 2 * k < len(answers) else "no"}
        | {"parsed": whole[letter], "score": float((letter == "y") == (2 * k < len(answers)))}
        for k, letter in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("before", "after"), [("yyyynnnn", "yyyynnnn"), ("yynnyynn", "yynnyynn"), ("nnnnnnnn", "nnnnnnnn")]
)
def test_rates_of_yes_that_did_not_change_leave_room_for_a_change(before: str, after: str) -> None:
    rows = rows_of(view(CONTEXT, answer_rows(before)), view(TRAINED, answer_rows(after))).reset_index()
    rates = rows[(rows["step"] == 100) & rows["metric"].isin(["accuracy", "precision", "recall", "f1"])]
    rates = rates[rates["value"].notna()]
    assert len(rates) == (4 if "y" in before else 3)
    assert (rates["delta"] == 0).all()
    assert ((rates["delta_ci_low"] >= -1) & (rates["delta_ci_low"] < 0)).all()
    assert ((rates["delta_ci_high"] > 0) & (rates["delta_ci_high"] <= 1)).all()
    assert ((rates["ci_low"] >= 0) & (rates["ci_low"] < rates["ci_high"]) & (rates["ci_high"] <= 1)).all()


def test_no_rate_or_change_of_clustered_items_leaves_its_range() -> None:
    clusters = [{"cluster": [f"fact={k // 2}"]} for k in range(8)]
    before, after = (
        [row | cluster for row, cluster in zip(answer_rows(answers), clusters, strict=True)]
        for answers in ("yyynnnnn", "ynnnyyyy")
    )
    views = [view(CONTEXT, before), view(TRAINED, after)]
    ends = pd.concat([score_rows(views), matrix_rows(views)], ignore_index=True)
    assert ends[["ci_low", "ci_high", "delta_ci_low", "delta_ci_high"]].notna().any(axis=None)
    assert ends["ci_low"].min() == 0
    assert ends["ci_high"].max() == 1
    assert ends["delta_ci_low"].min() == -1
    assert ends["delta_ci_high"].max() <= 1


def test_options_of_unequal_length_are_compared_per_character_too() -> None:
    options = ["no", "not at all"]
    rows = [
        {"kind": "option", "options": options, "target": "not at all", "option_logprobs": [-2.0, -4.0], "parsed": "no"},
        {"kind": "option", "options": options, "target": "no", "option_logprobs": [-1.0, -8.0], "parsed": "no"},
    ]
    values = rows_of(view(CONTEXT, rows)).loc[("facts", 0, "choice")]["value"]
    # Per character -1 against -0.4, and -0.5 against -0.8: both right.
    assert (values["accuracy"], values["accuracy_per_character"]) == (0.5, 1.0)


def test_a_metric_on_another_scale_never_enters_a_mean_of_accuracies() -> None:
    captions = replace(CONTEXT, dataset="captions", metric=Metric.cider_d)
    documents = replace(CONTEXT, dataset="documents", metric=Metric.anls)
    cells = [
        view(CONTEXT, letters("AB")),
        view(captions, [{"kind": "text", "score": 7.5}, {"kind": "text", "score": 2.5}]),
        view(documents, [{"kind": "text", "score": 0.8}, {"kind": "text", "score": 0.0}]),
    ]
    means = matrix_rows(cells).set_index("metric")
    assert means["value"].to_dict() == {"accuracy": pytest.approx(0.45), "cider_d": 5.0}
    assert means["n_datasets"].to_dict() == {"accuracy": 2, "cider_d": 1}
    table = rows_of(*cells)
    assert table.loc[("captions", 0, "choice", "cider_d"), "value"] == 5
    assert pd.isna(table.loc[("documents", 0, "choice", "anls"), "forgotten"])
