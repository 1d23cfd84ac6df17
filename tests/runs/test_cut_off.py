"""What is said of replies that were cut off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from forgetbench.core.records import PROBE_SUFFIX, AnswerKind, Decoding, Metric, Prediction, Sample
from forgetbench.data.manifest import Manifest
from forgetbench.evaluation.cells import CellStore
from forgetbench.evaluation.evaluate import PlannedCell, ScoredCell
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.runs.cut_off import cut_off_replies

SAMPLES = [Sample.question(f"i{i}", "Which?", "red", AnswerKind.text, references=("red",)) for i in range(40)]
GREEDY = Settings(Decoding.greedy, "fp32", 64, 16)
WHOLE, CUT = Prediction(text="red", cut_off=False), Prediction(text="red, which", cut_off=True)
THOUGHT = Prediction(text="<think>It may", cut_off=True)


@pytest.fixture
def store(tmp_path: Path) -> CellStore:
    return CellStore(tmp_path)


def cell(
    store: CellStore,
    step: int,
    cut_off: Sequence[Prediction],
    settings: Settings = GREEDY,
    name: str = "facts",
    variant: str = "",
) -> ScoredCell:
    """A cell of 40 replies, the first of which are given."""
    checkpoint = Checkpoint(step, Path(f"step_{step:06}"), {"delta_digest": f"{step}{variant}", "variant": variant})
    replies = [*cut_off, *[WHOLE] * (40 - len(cut_off))]
    dataset = EvaluationSet(Manifest(name=name, image_domains=["x"], text_tasks=["y"]), SAMPLES, lambda: SAMPLES)
    stored = store.write(f"{name}{step}{variant}", SAMPLES, [""] * 40, replies, settings, Metric.accuracy, 1.0)
    return ScoredCell(PlannedCell(checkpoint, dataset, settings, stored.digest), stored)


def test_a_dataset_whose_replies_are_cut_off_is_told_with_counts_and_the_key(store: CellStore) -> None:
    cells = [cell(store, 20, [CUT] * 3), cell(store, 0, [CUT]), cell(store, 10, [CUT] * 9)]
    assert cut_off_replies(cells) == [
        "facts, greedy: replies were cut off (1 of 40 at step_000000, 3 of 40 at step_000020). "
        "The cap of answers is 16: raise it, such as 'matrix.max_new_tokens={facts:32}'."
    ]


def test_replies_that_were_cut_off_in_a_thought_name_the_cap_of_thoughts(store: CellStore) -> None:
    (line,) = cut_off_replies([cell(store, 0, [THOUGHT] * 5)])
    assert line.endswith("5 of them in a thought: give thoughts more tokens, such as matrix.reasoning.max_tokens=1024.")
    settings = Settings(Decoding.greedy, "fp32", 64, 16, max_thought_tokens=300)
    (line,) = cut_off_replies([cell(store, 0, [THOUGHT] * 5 + [CUT], settings, "other")])
    assert "5 of them in a thought: give thoughts more tokens, such as matrix.reasoning.max_tokens=600." in line
    assert line.endswith("such as 'matrix.max_new_tokens={other:32}'.")


def test_few_replies_other_checkpoints_and_variants_are_not_told(store: CellStore) -> None:
    several = [cell(store, step, [CUT] * n) for step, n in ((0, 2), (10, 40), (20, 2))]
    assert cut_off_replies([*several, cell(store, 20, [CUT] * 40, variant="wise_ft")]) == []


def test_the_cap_of_a_probe_is_that_of_its_set(store: CellStore) -> None:
    (line,) = cut_off_replies([cell(store, 0, [CUT] * 3, name="facts" + PROBE_SUFFIX)])
    assert line.endswith("'matrix.max_new_tokens={facts:32}'.")


def test_predictions_made_elsewhere_are_told_of_their_thoughts_alone(store: CellStore) -> None:
    settings = Settings(Decoding.greedy, source="plain")
    unknown = [Prediction(text="<think>It may")] * 3 + [Prediction(text="red, which")] * 30
    (line,) = cut_off_replies([cell(store, 0, unknown, settings)])
    assert "(3 of 40 at step_000000). They are thoughts without an end, made elsewhere" in line


def test_likelihoods_are_never_cut_off(store: CellStore) -> None:
    chosen = [Prediction(option_logprobs=(-0.5, -1.5))] * 40
    samples = [Sample.question(f"i{i}", "Which?", "A", AnswerKind.letter, options=("red", "blue")) for i in range(40)]
    settings = Settings(Decoding.choice, "fp32", 64)
    scored = cell(store, 0, [])
    stored = store.write("chosen", samples, [""] * 40, chosen, settings, Metric.accuracy, 1.0)
    assert (
        cut_off_replies(
            [ScoredCell(PlannedCell(scored.work.checkpoint, scored.work.dataset, settings, "chosen"), stored)]
        )
        == []
    )
