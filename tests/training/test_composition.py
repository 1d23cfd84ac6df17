"""Micro-batches composed by length: the same items, the same loss, less padding, and the same bytes whenever."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind, Sample
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.methods.base import Method
from forgetbench.training.composition import order_by_length
from forgetbench.training.loop import Resume, Trainer
from forgetbench.training.plan import Stage
from tests.support.conversations import TALKS, talk
from tests.support.families import llava
from tests.support.runs import ITEMS, all_same_bits, snapshot, trainer

LONG = [talk(f"long {i}", "Why? " * (3 + i), "Because. " * (1 + i % 3), "And?", "So.") for i in range(6)]
MIXED = [*TALKS, *LONG, *ITEMS[:5]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


def stage(steps: int = 3, items: list[Sample] = MIXED) -> Stage:
    aside = [WeightedSet("aside", LONG, 1.0)]
    return Stage(
        "toy", MixedStream([WeightedSet("toy", items, 1.0)], aside, 0.25, seed=3), steps, "digest", items=items
    )


def made(folder: Path, **changes: Any) -> Trainer:
    return trainer(folder, Method(), **{"batch_size": 8, "lr": 1e-4, "gradient_accumulation": 4, **changes})


@given(st.lists(st.integers(1, 9), min_size=4, max_size=16), st.sampled_from([1, 2, 4]))
def test_every_item_stays_and_micro_batches_are_sorted(lengths: list[int], micro_batches: int) -> None:
    lengths = lengths[: len(lengths) // micro_batches * micro_batches]
    order = order_by_length(range(len(lengths)), lengths, micro_batches)
    assert sorted(order) == list(range(len(lengths)))
    size = len(lengths) // micro_batches
    parts = [[lengths[place] for place in order[start : start + size]] for start in range(0, len(order), size)]
    assert parts == sorted(parts, reverse=True)
    assert all(part == sorted(part) for part in parts)


def test_equal_lengths_keep_the_order_within_a_micro_batch() -> None:
    assert order_by_length("abcd", [5, 5, 5, 5], 2) == list("cdab")


def test_a_composed_step_has_the_drawn_items_and_less_padding(folder: Path) -> None:
    subject = made(folder)
    drawn = stage().stream.batch(1, 8)
    batches = subject.passes.step(stage(), 1)
    assert sorted(sample.id for batch in batches for sample in batch.samples) == sorted(sample.id for sample in drawn)
    assert sum(batch.share for batch in batches) == pytest.approx(1)
    composed = sum(batch.inputs["input_ids"].numel() for batch in batches)
    as_drawn = sum(subject.passes.batch(drawn[i : i + 2]).inputs["input_ids"].numel() for i in range(0, 8, 2))
    assert composed < as_drawn


def test_accumulation_changes_neither_loss_nor_update(folder: Path) -> None:
    subjects = [made(folder, gradient_accumulation=n) for n in (1, 2, 4)]
    losses = [[report.loss for report in subject.run([stage()])] for subject in subjects]
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-5)
    first, *others = (snapshot(subject) for subject in subjects)
    for other in others:
        assert max(float((first[name] - other[name]).abs().max()) for name in first) < 2e-6


def test_reuse_of_features_changes_no_bit_of_composed_steps_and_conversations(folder: Path) -> None:
    for accumulation in (1, 4):
        changes = {"parts": ["language"], "gradient_accumulation": accumulation}
        on, off = made(folder, **changes), made(folder, **changes, reuse_features=False)
        for subject in (on, off):
            list(subject.run([stage()]))
        assert on.passes.features.n_cached > 0
        assert off.passes.features.n_cached == 0
        assert all_same_bits(snapshot(on), snapshot(off))


def test_a_picture_of_several_items_of_a_step_is_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = made(folder, parts=["language"], gradient_accumulation=1)
    calls: list[int] = []
    encode = subject.passes.features._encode
    monkeypatch.setattr(subject.passes.features, "_encode", lambda *args: calls.append(1) or encode(*args))
    shown = [talk(str(i), (TALKS[0].images[0], f"What {i}?"), "A", "Why?", "So.") for i in range(8)]
    list(subject.run([Stage("toy", MixedStream([WeightedSet("toy", shown, 1.0)], [], 0.0, 3), 2, "digest")]))
    assert len(calls) == 1


def test_where_the_language_part_is_frozen_items_stay_as_they_were_drawn(folder: Path) -> None:
    # A micro-batch of text alone would train nothing; sorted by length, texts would come together.
    subject = made(folder, parts=["projector"])
    drawn = stage().stream.batch(1, 8)
    shared = [list(micro_batch) for micro_batch in subject.passes._local_micro_batches(subject.passes._recipe, drawn)]
    assert [sample for part in shared for sample in part] == drawn


def test_a_run_that_was_killed_among_conversations_ends_with_the_same_bytes(folder: Path) -> None:
    for accumulation in (1, 4):
        changes = {"parts": ["projector", "language"], "gradient_accumulation": accumulation}
        whole, killed, resumed = (made(folder, **changes) for _ in range(3))
        list(whole.run([stage(4)]))
        list(islice(killed.run([stage(4)]), 2))
        left = Resume(killed.resume_point(2))
        list(resumed.run([stage(4)], left))
        assert all_same_bits(snapshot(whole), snapshot(resumed))


def digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + str(tuple(value.shape)).encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


QUESTIONS = {1: "87a315c542c41ab7", 2: "33f29cbcf56f0257", 3: "1b199c24a27f0a51"}
"""Digests of the inputs and labels of three steps of questions, made by the version before conversations."""


def test_one_micro_batch_of_questions_is_what_it_was_before_there_were_conversations(folder: Path) -> None:
    subject = made(folder, gradient_accumulation=1, reuse_features=False)
    stream = MixedStream([WeightedSet("toy", ITEMS, 1.0)], [], 0.0, seed=3)
    for step, expected in QUESTIONS.items():
        (batch,) = subject.passes.step(Stage("toy", stream, 3, "digest"), step)
        assert digest({**batch.inputs, "labels": batch.labels}) == expected


def test_a_long_item_is_refused_by_name_when_it_turns_up(folder: Path) -> None:
    endless = Sample.question("endless", "Why? " * 1000, "So.", AnswerKind.text)
    with pytest.raises(UserError, match=r"Item 'endless' has \d+ tokens, more than 1024, the model's context"):
        made(folder).passes.batch([endless])
    with pytest.raises(UserError, match=r"Item 'two' has \d+ tokens, more than 5,"):
        made(folder, max_length=5).passes.batch(TALKS[:1])
