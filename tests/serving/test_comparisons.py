"""What was found of an engine before: reused where it says enough, found out again where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from forgetbench.config import Engine, EngineConfig, MatrixConfig, Reload
from forgetbench.data.catalogue import Catalogue
from forgetbench.evaluation.sets import load_sets
from forgetbench.models.checkpoint import BASE, Checkpoint
from forgetbench.serving.checked_runner import Comparisons
from forgetbench.serving.comparison import Case, compare_logprobs, store_result

MATRIX = MatrixConfig(datasets=["letters"])
VLLM = EngineConfig(name=Engine.vllm, python="python")
LATER = Checkpoint(10, Path("step_000010"), {"delta_digest": "d10"})


@pytest.fixture
def case(sets: Path) -> Case:
    (dataset,) = load_sets(MATRIX, Catalogue([sets]))
    return Case(BASE, dataset, scores_options=True)


def comparisons(case: Case | Sequence[Case], folder: Path, engine: EngineConfig = VLLM) -> Comparisons:
    cases = [case] if isinstance(case, Case) else case
    return Comparisons(cases, engine, "vllm 0.32.0", "digest", MATRIX, folder)


@pytest.fixture
def kept(case: Case, tmp_path: Path) -> Path:
    """Where a finding of all four items is kept."""
    values = dict.fromkeys(range(4), (-1.0, -2.0))
    result = compare_logprobs(case, "vllm 0.32.0", "fp32", values, values, ["token ids"], "token ids")
    path = tmp_path / f"{case.key(['vllm 0.32.0', {}, True], 'digest', MATRIX)}.json"
    store_result(path, result)
    return path


def test_a_finding_is_reused(case: Case, kept: Path) -> None:
    subject = comparisons(case, kept.parent)
    assert not subject.has_pending
    assert subject.due_checkpoints(BASE, {}) == []
    assert subject.rows()[0] | {"items": 4, "largest_difference": 0.0} == subject.rows()[0]


@pytest.mark.parametrize(
    "engine",
    [
        EngineConfig(name=Engine.server, url="http://host"),
        EngineConfig(name=Engine.vllm, python="python", reload=Reload.in_place),
        EngineConfig(name=Engine.vllm, python="python", args={"quantization": "fp8"}),
        EngineConfig(name=Engine.vllm, python="python", adapters=False),
    ],
    ids=["somebody else's server", "in place", "other settings", "merged"],
)
def test_a_finding_says_nothing_of_another_engine(case: Case, kept: Path, engine: EngineConfig) -> None:
    assert comparisons(case, kept.parent, engine).has_pending


@pytest.mark.parametrize(
    "change",
    [
        ("{", "["),
        ('"items": 4', '"items": 3'),
        ('"items": 4', '"items": "4"'),
        ('"largest_difference": 0.0', '"largest_difference": 0.3'),
        ('"largest_difference": 0.0', '"largest_difference": NaN'),
        ('"largest_difference": 0.0', '"largest_difference": null'),
        ('"engine": "vllm 0.32.0"', '"engine": 3'),
        ('"engine"', '"other"'),
    ],
    ids=str,
)
def test_a_damaged_finding_or_one_of_fewer_items_is_found_out_again(
    case: Case, kept: Path, change: tuple[str, str]
) -> None:
    text = kept.read_text()
    assert change[0] in text
    kept.write_text(text.replace(*change))
    subject = comparisons(case, kept.parent)
    assert subject.has_pending
    assert subject.due_checkpoints(BASE, {}) == [BASE]


def test_what_was_not_compared_does_not_fit(case: Case) -> None:
    nothing = compare_logprobs(case, "x", "fp32", {0: (-1.0,)}, {}, [], "conversations")
    assert (nothing.items, nothing.largest_difference, nothing.fits(9.0)) == (0, None, False)
    no_number = compare_logprobs(case, "x", "fp32", {0: (-1.0,)}, {0: (float("nan"),)}, [], "conversations")
    assert not no_number.fits(9.0)


def test_all_that_are_served_at_once_are_compared_before_one_is_scored(case: Case, tmp_path: Path) -> None:
    subject = comparisons([case, Case(LATER, case.dataset, scores_options=True)], tmp_path)
    first = Checkpoint(5, Path("step_000005"), {"delta_digest": "d5"})
    assert subject.due_checkpoints(first, {"step_000005", "step_000010"}) == [LATER]
    assert subject.due_checkpoints(first, {}) == []
    assert subject.due_checkpoints(BASE, {"step_000010"}) == [BASE]
