"""Two sides of the same items: pairing, quadrants, the interaction, equivalence, seeds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from forgetbench.core.errors import UserError
from forgetbench.core.records import Axis, Placement
from forgetbench.tables.cell_view import CellView
from forgetbench.tables.comparison import Side, compare, left_out, verdict_with_margin
from forgetbench.tables.verdict import verdict
from tests.support.cell_views import CONTEXT, OTHER_TEXT, TARGET, TRAINED, cell

OTHER_IMAGE = Placement(Axis.id, Axis.ood, "id_text-ood_image", seen_in_mix=False)


def side(label: str, *cells: CellView) -> Side:
    return Side(label, {0: cells})


def rows(table: pd.DataFrame, level: str) -> pd.DataFrame:
    return table[table["level"] == level].set_index("name")


def test_items_are_paired_by_id_and_only_common_ones_count() -> None:
    before, after = cell(CONTEXT, [1, 1, 0, 1, 1]), cell(TRAINED, [1, 0, 0, 1])
    shuffled = replace(after, frame=after.frame.iloc[::-1])
    row = rows(compare(side("a", before), side("b", shuffled), 0.05), "dataset").loc["naming"]
    assert (row["n"], row["first"], row["second"]) == (4, 0.75, 0.5)
    assert (row["difference"], row["forgotten"], row["gained"]) == (-0.25, 0.25, 0)
    assert (row["p_value"], row["verdict"]) == (1, "unclear")


def test_equal_ids_of_different_items_are_refused() -> None:
    other = cell(TRAINED, [1, 0])
    other.frame["target"] = "B"
    with pytest.raises(UserError, match="different items by the same ids"):
        compare(side("a", cell(CONTEXT, [1, 0])), side("b", other), 0.05)


def test_nothing_in_common_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="a and b have no dataset"):
        compare(side("a", cell(CONTEXT, [1])), side("b", cell(replace(TRAINED, dataset="other"), [1])), 0.05)


def test_quadrants_weigh_datasets_equally_and_hold_what_a_mix_saw_apart() -> None:
    kinds = [("digits", 4, [0, 0, 1, 1], False), ("emoji", 2, [1, 1], False), ("letters", 2, [0, 0], True)]
    before, after = [], []
    for name, n, right, seen in kinds:
        place = replace(OTHER_IMAGE, seen_in_mix=seen)
        before.append(cell(replace(CONTEXT, dataset=name, placement=OTHER_IMAGE), [1] * n))
        after.append(cell(replace(TRAINED, dataset=name, placement=place), right))
    table = compare(side("a", *before), side("b", *after), 0.05)
    quadrants = table[table["level"] == "quadrant"].set_index("seen_in_mix")
    assert quadrants["difference"].to_dict() == {False: pytest.approx(-0.25), True: -1}
    assert quadrants["n"].to_dict() == {False: 6, True: 2}


def test_a_dataset_that_sides_place_differently_is_in_no_quadrant() -> None:
    moved = replace(TRAINED, placement=OTHER_TEXT)
    table = compare(side("a", cell(CONTEXT, [1, 0])), side("b", cell(moved, [1, 1])), 0.05)
    assert set(table["level"]) == {"dataset"}


def pictures(names: str) -> list[list[str]]:
    return [[f"image={name}"] for name in names]


def test_the_interaction_is_the_drop_on_ood_text_minus_the_drop_on_id_text() -> None:
    facts = replace(CONTEXT, dataset="facts", placement=OTHER_TEXT)
    before = [cell(CONTEXT, [1, 1, 1, 1], pictures("abcd")), cell(facts, [1, 1, 1, 1], pictures("bcef"))]
    after = [
        cell(replace(TRAINED, placement=TARGET), [1, 0, 1, 1], pictures("abcd")),
        cell(replace(TRAINED, dataset="facts", placement=OTHER_TEXT), [0, 0, 1, 0], pictures("bcef")),
    ]
    interactions = rows(compare(side("a", *before), side("b", *after), 0.05), "interaction")
    assert interactions["difference"].to_dict() == {"ID images": 0.5, "ID images, the same pictures": 0.5}
    assert interactions["n"].to_dict() == {"ID images": 8, "ID images, the same pictures": 4}
    # Drops 0 1 0 0 of a b c d and 1 1 0 1 of b c e f; residual sums by picture: a 1/4, b -3/4+1/4, c 1/4+1/4, d 1/4,
    # e -3/4, f 1/4, each over 4 items; C / (C - 1) = 4/3 in both: two equal strata of 3 degrees of freedom.
    sums = np.array([1, -2, 2, 1, -3, 1]) / 4 / 4
    expected = np.sqrt(4 / 3 * (sums @ sums))
    assert interactions.loc["ID images", "stderr"] == pytest.approx(expected)
    assert interactions.loc["ID images", "p_value"] == pytest.approx(2 * stats.t.sf(0.5 / expected, 6))


def test_what_did_not_change_is_equivalent_and_what_is_unknown_is_not() -> None:
    right = [1, 0] * 100
    table = compare(side("a", cell(CONTEXT, right)), side("b", cell(TRAINED, [*right[:-1], 1])), 0.05)
    assert rows(table, "dataset").loc["naming", "verdict"] == "equivalent"
    assert verdict_with_margin(-0.015, -0.02, -0.01, 0.04, 0.01) == "lower, within the margin"
    assert verdict_with_margin(0.1, 0.01, 0.2, 0.04, 0.6) == "higher"
    assert verdict_with_margin(0.1, -0.2, 0.3, None, 0.6) == "unclear"
    assert verdict_with_margin(None, None, None, None, None) == ""


def test_a_verdict_never_contradicts_the_corrected_p_value() -> None:
    assert verdict_with_margin(-0.1, -0.2, -0.01, 0.06, 0.6) == "unclear"
    assert verdict_with_margin(-0.01, -0.02, -0.001, 0.06, 0.01) == "equivalent"
    assert verdict(-0.1, -0.2, 0.01, 0.04) == "lower"
    assert verdict(-0.1, -0.2, -0.01, None) == "lower"
    table = compare(
        side("a", *(cell(replace(CONTEXT, dataset=name), [1] * 10) for name in "xyz")),
        side(
            "b",
            *(
                cell(replace(TRAINED, dataset=name), [0] * n + [1] * (10 - n))
                for name, n in zip("xyz", (6, 0, 1), strict=True)
            ),
        ),
        0.02,
    )
    dataset_row = rows(table, "dataset").loc["x"]
    assert (dataset_row["p_value"], dataset_row["p_holm"]) == (0.03125, 0.09375)
    assert dataset_row["ci_high"] < 0
    assert dataset_row["verdict"] == "unclear"


def test_what_is_left_out_is_said() -> None:
    elsewhere = replace(OTHER_IMAGE, quadrant="ood_text-ood_image")
    ours = [cell(replace(CONTEXT, dataset=name), [1, 1, 0]) for name in ("both", "fewer", "ours")]
    ours.append(cell(replace(CONTEXT, dataset="both", decoding="greedy"), [1, 1]))
    theirs = [cell(replace(TRAINED, dataset=name), [1] * n) for name, n in (("both", 3), ("fewer", 2), ("theirs", 1))]
    assert left_out(side("a", *ours), side("b", *theirs)) == [
        "Only a: both (greedy), ours (choice).",
        "Only b: theirs (choice).",
        "On the items that both were asked, 2 items, of 3 and 2: fewer (choice).",
    ]
    moved = [cell(replace(TRAINED, dataset="both", placement=elsewhere), [1, 1, 1])]
    assert left_out(side("a", ours[0]), side("b", *moved)) == [
        "In no quadrant here, as the two sides' targets place them in different ones: both (choice)."
    ]
    assert left_out(Side("a", {0: ours, 1: ours}), Side("b", {1: ours, 2: ours})) == [
        "Only a: seeds 0.",
        "Only b: seeds 2.",
    ]
    assert left_out(side("a", *ours), side("b", *ours)) == []


def test_several_seeds_are_paired_by_seed_and_keep_their_errors_apart() -> None:
    random = np.random.default_rng(0)
    first = {seed: [cell(replace(CONTEXT, seed=seed), list(random.integers(0, 2, 40)))] for seed in (0, 1, 2)}
    second = {seed: [cell(replace(TRAINED, seed=seed), list(random.integers(0, 2, 40)))] for seed in (2, 1, 0, 5)}
    row = rows(compare(Side("a", first), Side("b", second), 0.05), "dataset").loc["naming"]
    means = [second[seed][0].frame["score"].mean() - first[seed][0].frame["score"].mean() for seed in (0, 1, 2)]
    assert row["n_seeds"] == 3
    assert row["difference"] == pytest.approx(np.mean(means))
    assert row["seed_sd"] == pytest.approx(np.std(means, ddof=1))
    assert row["item_stderr"] < row["stderr"]
    with pytest.raises(UserError, match="no seed in common"):
        compare(Side("a", {0: first[0], 1: first[1]}), Side("b", {5: second[5]}), 0.05)
