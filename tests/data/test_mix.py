"""The mixed stream: exact ratio from the start, near weights, pure function of seed and position."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from forgetbench.core.records import AnswerKind, Sample
from forgetbench.data.mix import MixedStream, WeightedSet

SEEDS = st.integers(0, 2**31)
RATIOS = st.floats(0, 1)
WEIGHTS = st.lists(st.floats(0.01, 10), min_size=1, max_size=6)


def items(name: str, n: int) -> list[Sample]:
    return [Sample.question(f"{name}/{i}", "?", "yes", AnswerKind.text) for i in range(n)]


def stream(ratio: float, seed: int, target: int = 7, auxiliary: int = 5) -> MixedStream:
    return MixedStream(
        [WeightedSet("target", items("target", target), 1.0)],
        [WeightedSet("a", items("a", auxiliary), 2.0), WeightedSet("b", items("b", 3), 1.0)],
        ratio,
        seed,
    )


def names(stream: MixedStream, n: int) -> list[str]:
    return [stream[i].id.partition("/")[0] for i in range(n)]


@given(RATIOS, SEEDS, st.integers(1, 300))
def test_auxiliary_instances_are_within_one_of_their_share_from_the_first_on(ratio: float, seed: int, n: int) -> None:
    drawn = 0
    for i, name in enumerate(names(stream(ratio, seed), n), start=1):
        drawn += name != "target"
        assert abs(drawn - ratio * i) <= 1 + 1e-9


@given(SEEDS)
def test_ratios_of_zero_and_one_are_exact(seed: int) -> None:
    assert set(names(stream(0.0, seed), 50)) == {"target"}
    assert "target" not in names(stream(1.0, seed), 50)


def test_without_auxiliary_sets_the_ratio_is_ignored() -> None:
    target_only = MixedStream([WeightedSet("target", items("target", 3), 1.0)], [], 0.5, seed=0)
    assert set(names(target_only, 9)) == {"target"}


def test_the_ratio_holds_far_into_a_run() -> None:
    long = stream(0.3, seed=1)
    assert abs(long.auxiliary_before(10**9) - 0.3 * 10**9) <= 1


@given(WEIGHTS, SEEDS, st.integers(1, 300))
def test_every_set_of_a_group_stays_near_its_weight(weights: list[float], seed: int, n: int) -> None:
    sets = [WeightedSet(str(i), items(str(i), 4), weight) for i, weight in enumerate(weights)]
    drawn: Counter[str] = Counter()
    k = len(weights)
    behind = sum(1 / i for i in range(1, k + 1)) - 1 + 1 / k
    for i, name in enumerate(names(MixedStream(sets, [], 0.0, seed), n), start=1):
        drawn[name] += 1
        for dataset in sets:
            share = dataset.weight / sum(weights)
            assert -behind - 1e-9 <= drawn[dataset.name] - share * i <= 1 + share + 1e-9


def test_a_set_of_weight_zero_is_never_drawn() -> None:
    sets = [WeightedSet("never", items("never", 2), 0.0), WeightedSet("always", items("always", 2), 1)]
    assert set(names(MixedStream(sets, [], 0.0, seed=0), 50)) == {"always"}


@given(RATIOS, SEEDS, st.lists(st.integers(0, 200), min_size=1, max_size=30))
def test_an_instance_depends_on_seed_and_position_only(ratio: float, seed: int, order: list[int]) -> None:
    jumping = stream(ratio, seed)
    in_turn = [sample.id for sample in map(stream(ratio, seed).__getitem__, range(max(order) + 1))]
    assert [jumping[i].id for i in order] == [in_turn[i] for i in order]


def test_another_seed_is_another_order() -> None:
    orders = {tuple(stream(0.5, seed)[i].id for i in range(30)) for seed in range(5)}
    assert len(orders) == 5


@settings(max_examples=30)
@given(RATIOS, SEEDS)
def test_every_item_is_shown_once_before_any_repeats(ratio: float, seed: int) -> None:
    mixed = stream(ratio, seed)
    shown: dict[str, list[str]] = {}
    for i in range(200):
        sample = mixed[i]
        shown.setdefault(sample.id.partition("/")[0], []).append(sample.id)
    sizes = {"target": 7, "a": 5, "b": 3}
    assert shown.keys() <= sizes.keys()
    for name, ids in shown.items():
        size = sizes[name]
        for start in range(0, len(ids) - size + 1, size):
            assert len(set(ids[start : start + size])) == size


def test_epochs_are_shuffled_anew() -> None:
    target_only = stream(0.0, seed=3)
    assert [target_only[i].id for i in range(7)] != [target_only[i].id for i in range(7, 14)]


@given(RATIOS, SEEDS, st.integers(1, 9), st.integers(1, 9))
def test_batches_are_the_instances_one_after_another(ratio: float, seed: int, size: int, steps: int) -> None:
    mixed = stream(ratio, seed)
    batches = [sample for step in range(1, steps + 1) for sample in mixed.batch(step, size)]
    assert batches == [mixed[i] for i in range(size * steps)]
