"""A larger limit repeats the batches of a smaller one, so that what was asked is not asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from forgetbench.config import MatrixConfig
from forgetbench.core.processes import ProcessGroup
from forgetbench.core.records import AnswerKind, Decoding, Prediction, Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import Manifest
from forgetbench.evaluation import sets
from forgetbench.evaluation.cells import BeyondContext, Cell, CellStore
from forgetbench.evaluation.evaluate import Evaluator, PlannedCell, plan, stored_cells
from forgetbench.evaluation.runner import Answers
from forgetbench.evaluation.sets import EvaluationSet, load_sets
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import BASE

SAMPLES = [Sample.question(f"i{i}", f"question {i}", "x", AnswerKind.text, references=("x",)) for i in range(12)]
DRAW = [7, 2, 9, 4, 0, 11, 5, 1, 3, 8, 10, 6]
BLOCK = 4


def dataset(limit: int, samples: Sequence[Sample] = SAMPLES) -> EvaluationSet:
    """The first `limit` items of the draw, in file order, in blocks of four."""
    drawn = sorted(DRAW[:limit])
    blocks = [sorted(map(drawn.index, DRAW[k : min(k + BLOCK, limit)])) for k in range(0, limit, BLOCK)]
    manifest = Manifest(name="facts", image_domains=["x"], text_tasks=["y"])
    return EvaluationSet(manifest, [samples[k] for k in drawn], lambda: samples, blocks, limit >= BLOCK)


@dataclass
class Layout:
    batches: list[list[int]]
    block_of_batch: list[int]


@dataclass
class StubRunner:
    """Answers every item with the ids of its whole batch, and fails after so many batches."""

    fails_after: int = 99
    beyond: BeyondContext | None = None
    asked: list[str] = field(default_factory=list)

    def use_checkpoint(self, checkpoint: object) -> None:
        """There is one checkpoint."""

    def batches(self, dataset: EvaluationSet) -> Layout:
        batches = [(items[k : k + 3], b) for b, items in enumerate(dataset.blocks) for k in range(0, len(items), 3)]
        return Layout([list(items) for items, _ in batches], [block for _, block in batches])

    def beyond_context(self, *_: object) -> BeyondContext | None:
        return self.beyond

    def resolve(self, dataset: EvaluationSet, settings: Settings) -> Settings:
        return replace(settings, max_new_tokens=9)

    def answers(self, dataset: EvaluationSet, numbers: Sequence[int], settings: Settings) -> Iterator[Answers]:
        for number in numbers:
            yield Answers(number, self.answer(dataset, number), 0.0)

    def answer(self, dataset: EvaluationSet, number: int) -> list[Prediction]:
        if len(self.asked) == self.fails_after:
            raise KeyboardInterrupt
        batch = self.batches(dataset).batches[number]
        together = " ".join(dataset.samples[item].id for item in batch)
        self.asked.append(together)
        return [Prediction(text=together, cut_off="i9" in together)] * len(batch)


def planned(evaluation_set: EvaluationSet, **more: Any) -> list[PlannedCell]:
    return plan(
        "model", [BASE], [evaluation_set], MatrixConfig(datasets=["facts"], decodings=[Decoding.greedy], **more)
    )


def score(folder: Path, evaluation_set: EvaluationSet, runner: StubRunner | None = None, **more: Any) -> Cell:
    loader: Any = lambda: runner or StubRunner()  # noqa: E731
    work = planned(evaluation_set, **more)
    (scored,) = Evaluator(loader, CellStore(folder), ProcessGroup()).score(work, lambda *_: None)
    return scored.cell


def content(folder: Path, cell: Cell) -> Any:
    path = CellStore(folder).path(cell.digest)
    return pq.read_table(path).replace_schema_metadata(), facts(path)["content"]


def facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(pq.read_schema(path).metadata[b"facts"])
    return facts


@pytest.mark.parametrize(
    ("before", "limit", "asked"),
    [
        ([4], 6, 1),
        ([4, 6], 8, 2),
        ([8], 6, 1),
        ([12], 9, 1),
        ([12], 8, 0),
        ([6, 12, 8], 4, 0),
        ([6], 3, 1),
        ([3], 6, 3),
    ],
)
def test_only_blocks_that_no_earlier_limit_asked_whole_are_asked(
    tmp_path: Path, before: list[int], limit: int, asked: int
) -> None:
    for earlier_limit in before:
        score(tmp_path / "grown", dataset(earlier_limit))
    runner = StubRunner()
    cell = score(tmp_path / "grown", dataset(limit), runner)
    fresh = score(tmp_path / "fresh", dataset(limit))
    assert len(runner.asked) == asked
    assert cell.digest == fresh.digest
    assert content(tmp_path / "grown", cell) == content(tmp_path / "fresh", fresh)


def test_a_killed_command_at_a_larger_limit_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    score(tmp_path / "grown", dataset(4))
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "grown", dataset(12), StubRunner(fails_after=2))
    runner = StubRunner()
    cell = score(tmp_path / "grown", dataset(12), runner)
    assert len(runner.asked) == 2
    assert content(tmp_path / "grown", cell) == content(tmp_path / "fresh", score(tmp_path / "fresh", dataset(12)))


def test_the_time_of_shared_blocks_is_that_of_asking_them(tmp_path: Path) -> None:
    store, cells = CellStore(tmp_path), [score(tmp_path, dataset(limit)) for limit in (8, 12)]
    small, large = (facts(store.path(cell.digest))["blocks"] for cell in cells)
    assert large[:2] == small
    assert cells[1].seconds == pytest.approx(sum(block["seconds"] for block in large), abs=1e-3)


def test_damaged_cells_of_another_limit_are_named_and_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = CellStore(tmp_path).path(score(tmp_path, dataset(4)).digest)
    path.write_bytes(path.read_bytes()[:-200])
    runner = StubRunner()
    score(tmp_path, dataset(6), runner)
    assert len(runner.asked) == 3
    assert capsys.readouterr().err == f"{path} is damaged; its answers are not used.\n"


def test_a_whole_cell_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    damaged = CellStore(tmp_path).path(score(tmp_path, dataset(8)).digest)
    score(tmp_path, dataset(4))
    damaged.write_bytes(b"")
    runner = StubRunner()
    score(tmp_path, dataset(12), runner)
    assert len(runner.asked) == 4  # the first block is that of the cell of four


def test_other_items_settings_or_weights_share_nothing(tmp_path: Path) -> None:
    score(tmp_path, dataset(4))
    changed = [replace(sample, answer="y", references=("y",)) if sample.id == "i9" else sample for sample in SAMPLES]
    for changed_set, more in ((dataset(6, changed), {}), (dataset(6), {"batch_size": 3})):
        runner = StubRunner()
        score(tmp_path, changed_set, runner, **more)
        assert len(runner.asked) == 3


def test_a_changed_later_item_keeps_the_blocks_before_it(tmp_path: Path) -> None:
    score(tmp_path, dataset(8))
    changed = [replace(sample, answer="y", references=("y",)) if sample.id == "i5" else sample for sample in SAMPLES]
    runner = StubRunner()
    score(tmp_path, dataset(8, changed), runner)
    assert len(runner.asked) == 2


def test_items_beyond_the_context_are_counted_anew_for_a_part_of_a_cell(tmp_path: Path) -> None:
    score(tmp_path, dataset(8), StubRunner(beyond=BeyondContext(2, "i9", 99, 50)))
    runner = StubRunner(beyond=BeyondContext(1, "i9", 99, 50))
    cell = score(tmp_path, dataset(4), runner)
    assert (runner.asked, cell.beyond_context) == ([], runner.beyond)


def test_scoring_without_a_model_takes_a_smaller_limit_from_a_larger_one(tmp_path: Path) -> None:
    score(tmp_path / "grown", dataset(12))
    store = CellStore(tmp_path / "grown")
    assert not stored_cells(planned(dataset(6)), store)  # its last block was asked in other company
    (scored,) = stored_cells(planned(dataset(8)), store)
    fresh = score(tmp_path / "fresh", dataset(8))
    assert content(tmp_path / "grown", scored.cell) == content(tmp_path / "fresh", fresh)


def test_small_sets_keep_their_names_and_have_nothing_to_share(tmp_path: Path) -> None:
    (small,), (one_block,), (two_blocks,) = (planned(dataset(limit)) for limit in (3, 4, 5))
    assert (small.family, small.settings.block, one_block.settings.block) == ("", None, None)
    assert "block" not in one_block.settings.named
    assert two_blocks.settings.named["block"] == sets.BLOCK
    assert one_block.family == two_blocks.family != ""
    score(tmp_path, dataset(3))
    assert [path.suffix for path in (tmp_path / ".cells").iterdir()] == [".parquet"]


def test_the_blocks_of_a_split_do_not_depend_on_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": f"i{k}", "question": f"q{k}", "answer": "a"} for k in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    source = "source: {root: ., kind: jsonl}\nsplits: {test: {files: [rows.jsonl]}}\n"
    (tmp_path / "facts.yaml").write_text(
        f"{source}image_domains: [text]\ntext_tasks: [t]\nanswer: text\nprompt: '{{question}}'\n", "utf-8"
    )
    monkeypatch.setattr(sets, "BLOCK", 5)

    def blocks(limit: int | None) -> tuple[list[set[str]], list[str]]:
        (loaded,) = load_sets(MatrixConfig(datasets=["facts"], limit=limit), Catalogue([str(tmp_path)]))
        return [{loaded.samples[k].id for k in block} for block in loaded.blocks], loaded.block_digests

    whole, digests = blocks(None)
    assert [len(block) for block in whole] == [5, 5, 2]
    for limit in (3, 5, 7, 10, 12):
        smaller, smaller_digests = blocks(limit)
        n_whole = 3 if limit == 12 else limit // 5
        assert smaller[:n_whole] == whole[:n_whole]
        assert smaller_digests[:n_whole] == digests[:n_whole]
        assert set().union(*smaller) <= set().union(*whole[: n_whole + 1])
        assert len(smaller_digests) == n_whole or smaller_digests[-1] not in digests
