"""Which recipe keeps most for the least target loss, or that the data cannot tell."""

from dataclasses import replace

import numpy as np
import pytest

from forgetbench.core.records import Metric
from forgetbench.tables.recommendation import Name, choose
from forgetbench.tables.seeds import Pairs, seed_rows
from tests.support.cell_views import CONTEXT, OTHER_TEXT, TRAINED, cell

ITEMS = 200


def recipe(target: int, kept: int, seed: int = 0, seen: bool = False) -> Pairs:
    """A run with so many of 200 right on the target (base: 100) and on other questions (base: 150)."""
    order = np.random.default_rng(seed).permutation(ITEMS)
    place = replace(OTHER_TEXT, seen_in_mix=seen)
    sets = (("naming", CONTEXT.placement, 100, target), ("facts", place, 150, kept))
    pairs = []
    for name, placement, before, after in sets:
        now, base = ([int(i < right) for i in order] for right in (after, before))
        pairs.append(
            (
                cell(replace(TRAINED, dataset=name, placement=placement, seed=seed), now),
                cell(replace(CONTEXT, dataset=name, placement=placement, seed=seed), base),
            )
        )
    return pairs


def runs(**recipes: Pairs) -> dict[Name, dict[int | None, Pairs]]:
    return {(name, ""): {0: pairs} for name, pairs in recipes.items()}


def test_the_largest_total_is_best_and_told_apart_where_the_items_say_so() -> None:
    choice = choose(runs(high=recipe(180, 70), low=recipe(160, 148), lazy=recipe(100, 150)), "choice")
    assert choice is not None
    assert choice.best is not None
    assert choice.best.name == ("low", "")
    assert choice.best.target.value == pytest.approx(0.3)
    assert choice.best.sources.value == pytest.approx(-0.01)
    assert choice.best.total.value == pytest.approx(0.29)
    (rival,) = choice.rivals  # the one that learnt nothing is none
    assert rival.candidate.name == ("high", "")
    assert rival.difference.value == pytest.approx(0.29 - (0.4 - 0.4))
    assert rival.is_distinguishable


def test_a_difference_within_the_error_cannot_be_told() -> None:
    choice = choose(runs(a=recipe(160, 148), b=recipe(158, 149, seed=3)), "choice")
    assert choice is not None
    assert not choice.rivals[0].is_distinguishable


def test_no_recipe_is_best_if_none_has_learnt() -> None:
    choice = choose(runs(a=recipe(101, 150)), "choice")
    assert choice is not None
    assert choice.best is None


def test_a_set_that_some_mix_has_seen_is_no_source_for_any() -> None:
    assert choose(runs(a=recipe(160, 148), b=recipe(150, 150, seen=True)), "choice") is None
    assert choose(runs(a=recipe(160, 148)), "greedy") is None


def test_captions_have_no_exchange_rate_with_accuracies() -> None:
    captions = [
        tuple(replace(view, context=replace(view.context, metric=Metric.cider_d)) for view in pair)
        if pair[0].context.dataset == "naming"
        else pair
        for pair in recipe(160, 148)
    ]
    assert choose({("a", ""): {0: captions}}, "choice") is None


def test_sets_that_are_trained_jointly_are_weighed_as_one_target() -> None:
    def joint(first: int, second: int, kept: int) -> Pairs:
        first_pairs, second_pairs = recipe(first, kept), recipe(second, kept)[:1]
        pairs = [
            *first_pairs,
            *([replace(v, context=replace(v.context, dataset="sums")) for v in pair] for pair in second_pairs),
        ]
        return [
            (replace(now, context=replace(now.context, target="naming+sums")), base) for now, base in map(tuple, pairs)
        ]

    choice = choose(runs(a=joint(180, 140, 148)), "choice")
    assert choice is not None
    assert choice.sources == ["facts"]
    (candidate,) = choice.candidates
    assert candidate.target.value == pytest.approx((0.4 + 0.2) / 2)
    assert candidate.total.value == pytest.approx(0.3 - 0.01)


def test_seeds_count_as_one_recipe() -> None:
    seeds = {seed: recipe(160 + 10 * seed, 148 - 5 * seed, seed) for seed in range(3)}
    choice = choose({("a", ""): seeds, ("b", ""): {0: recipe(150, 100)}}, "choice")
    assert choice is not None
    assert choice.best is not None
    assert choice.best.target.n_seeds == 3
    assert choice.best.target.value == pytest.approx(0.35)
    assert choice.best.target.seed_sd == pytest.approx(0.05)


def test_a_single_seed_is_taken_to_vary_as_the_others_do() -> None:
    seeds = {seed: recipe(160 + 12 * seed, 148, seed) for seed in range(3)}
    single_seeds = {("a", ""): {0: seeds[2]}, ("b", ""): {0: recipe(150, 148)}}
    beside = {("a", ""): seeds, ("b", ""): {7: recipe(150, 148)}}
    rivals = []
    for recipes in (single_seeds, beside):
        choice = choose(recipes, "choice")
        assert choice is not None
        rivals.append(choice.rivals[0].difference)
    spread = 0.06  # of 160, 172, 184 of 200
    assert rivals[1].seed_sd == pytest.approx(spread)
    assert rivals[1].stderr == pytest.approx(np.sqrt(rivals[1].item_stderr ** 2 + spread**2 * (1 / 3 + 1)))
    assert rivals[1].df < 5 < rivals[0].df


def test_the_best_of_many_was_found_by_looking() -> None:
    # Of equal recipes one is best by chance, and "worse than the best" must not be said in more than 5 % of cases.
    n_claims = 0
    for trial in range(24):
        equal = {f"r{k}": drawn(trial, k) for k in range(6)}
        choice = choose(runs(**equal), "choice")
        assert choice is not None
        n_claims += any(rival.is_distinguishable for rival in choice.rivals)
    assert n_claims <= 3


def drawn(trial: int, k: int) -> Pairs:
    random = np.random.default_rng([trial, k])
    base = np.random.default_rng(trial).integers(0, 2, (2, 60))
    after = np.where(random.random((2, 60)) < 0.7, base, 1), np.where(random.random((2, 60)) < 0.7, base, 0)
    pairs = []
    for place, (name, placement) in enumerate((("naming", CONTEXT.placement), ("facts", OTHER_TEXT))):
        now = after[place][place].tolist()
        pairs.append(
            (
                cell(replace(TRAINED, dataset=name, placement=placement), now),
                cell(replace(CONTEXT, dataset=name, placement=placement), base[place].tolist()),
            )
        )
    return pairs


def test_recipes_that_were_asked_other_items_are_left_out_whichever_comes_first() -> None:
    odd = [
        (replace(last, frame=last.frame.iloc[:90]), replace(base, frame=base.frame.iloc[:90]))
        for last, base in recipe(150, 140)
    ]
    choice = choose(runs(a=odd, b=recipe(160, 148), c=recipe(150, 140)), "choice")
    assert choice is not None
    assert list(choice.left_out) == ["a"]
    assert len(choice.candidates) == 2


def test_the_seed_table_has_a_row_per_quadrant_with_both_errors() -> None:
    seeds = {seed: recipe(160 + 10 * seed, 148 - 5 * seed, seed) for seed in range(3)}
    rows = seed_rows({("a", ""): seeds}).set_index("quadrant")
    assert list(rows.index) == ["id_text-id_image", "ood_text-id_image"]
    target = rows.loc["id_text-id_image"]
    assert (target["n_seeds"], target["base_value"]) == (3, 0.5)
    assert (target["value"], target["delta"], target["seed_sd"]) == pytest.approx((0.85, 0.35, 0.05))
    assert target["ci_low"] < target["delta"] - 1.96 * target["item_stderr"]


def test_seeds_that_were_asked_other_items_have_no_common_row() -> None:
    short = [
        (replace(last, frame=last.frame.iloc[:50]), replace(base, frame=base.frame.iloc[:50]))
        for last, base in recipe(150, 140, 1)
    ]
    assert seed_rows({("a", ""): {0: short, 1: recipe(160, 148)}}).empty
