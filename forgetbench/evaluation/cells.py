"""Cells: one file of per-item predictions per checkpoint x dataset x decoding, keyed by content.

A cell whose key is stored is never asked again, and different weights never share a result. A file that is truncated,
edited or has another key is reported and made again. A cell that was scored by other rules is scored again, without a
model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from forgetbench.core.records import THOUGHT_MARKS, AnswerKind, Metric, Prediction, Sample
from forgetbench.core.store import Store, checksum, json_digest, verify
from forgetbench.evaluation.settings import Settings
from forgetbench.scoring.answers import rules_digest, score_answers
from forgetbench.scoring.reply import Marks
from forgetbench.tables.number_words import asks_for_number

_LATER_COLUMNS = ("text_cut_off", "cut_off")
"""Columns that older files lack; they are read as absent."""
_TEXTS, _FLOATS = pa.list_(pa.string()), pa.list_(pa.float64())
SCHEMA = pa.schema(
    [
        ("cell", pa.string()),
        ("sample_id", pa.string()),
        ("cluster", _TEXTS),
        ("image_sha256", pa.string()),
        ("prompt", pa.string()),
        ("kind", pa.string()),
        ("options", _TEXTS),
        ("target", pa.string()),
        ("references", _TEXTS),
        ("class_option", pa.int64()),
        ("decoding", pa.string()),
        ("settings", pa.string()),
        ("option_logprobs", _FLOATS),
        ("text", pa.string()),
        ("text_cut_off", pa.bool_()),
        ("parsed", pa.string()),
        ("correct", pa.bool_()),
        ("score", pa.float64()),
        ("cut_off", pa.bool_()),
    ]
)
_MARKS = [list(pair) for pair in THOUGHT_MARKS]
_PREDICTION_FACTS = ("seconds", "versions", "beyond_context", "blocks")
"""Metadata on how the predictions were made; scoring again leaves it unchanged."""


@dataclass(frozen=True)
class CellKey:
    """Everything that decides a cell's predictions."""

    model: str
    """Digest of the base model; of the predictions, if they were made elsewhere."""
    delta: str
    """Digest of what a checkpoint changed; empty for the base."""
    samples: str
    """Digest of the rendered items, pictures included."""
    settings: Settings

    @property
    def digest(self) -> str:
        """sha256 of the key: the cell's name."""
        return json_digest({**asdict(self), "settings": self.settings.named})


@dataclass(frozen=True)
class BeyondContext:
    """The items of a cell that are longer than the model's context; their answers are noise."""

    items: int
    longest_id: str
    tokens: int
    """Length of the longest item, including its longest candidate if it has candidates."""
    context: int
    """Context length of the model, in tokens."""


@dataclass(frozen=True)
class Block:
    """Some items of a cell; cells with other limits may contain the same block."""

    digest: str
    """Of the block's items and of all items before it (see `EvaluationSet.block_digests`)."""
    seconds: float
    """Time that the model took to answer it."""


@dataclass(frozen=True)
class SharedBlocks:
    """The answers to the first blocks of a dataset, from a cell that was made with another limit."""

    blocks: Sequence[Block]
    predictions: Mapping[str, Prediction]
    """By item id."""
    settings: Settings
    """With all defaults filled in."""
    versions: Mapping[str, str]
    exceeds_context: bool
    """Whether an item of that cell is longer than the model's context."""


@dataclass(frozen=True)
class Cell:
    """One stored cell."""

    digest: str
    frame: pd.DataFrame
    seconds: float | None
    """Time that the model took to answer, summed over batches; None for predictions made elsewhere."""
    metric: Metric
    beyond_context: BeyondContext | None = None
    """None if every item fits, or if the model is unknown."""
    marks: Marks = THOUGHT_MARKS
    """Begin and end marks of thoughts, with which the replies were read."""


class CellStore:
    """The folder of cells shared by all runs and sweep points under one outputs folder."""

    def __init__(self, outputs: Path, marks: Marks | None = None) -> None:
        """Use `<outputs>/.cells`.

        Args:
            outputs: the folder.
            marks: begin and end marks of thoughts; None: each cell keeps the marks that it was last read with.
        """
        self._files = Store(outputs / ".cells", ".parquet", damage=(OSError, pa.ArrowException))
        self._families = outputs / ".cells" / ".families"
        self._marks = None if marks is None else [list(pair) for pair in marks]

    def path(self, digest: str) -> Path:
        """The path of a cell, whether or not it exists."""
        return self._files.path(digest)

    def partial(self, digest: str) -> Path:
        """The folder with the finished batches of an unfinished cell."""
        return self.path(digest).with_suffix(".partial")

    def locked(self, digest: str, wait_s: float) -> AbstractContextManager[bool]:
        """Lock a cell for this process; False if another process still holds the lock after `wait_s` seconds."""
        return self._files.locked(digest, wait_s)

    def remove_leftovers(self, digest: str) -> None:
        """Remove the temporary files of a stored cell, also those that a killed process left."""
        shutil.rmtree(self.partial(digest), ignore_errors=True)
        self._files.remove_leftovers(digest)

    def read(self, digest: str, metric: Metric, remedy: str = "it is made again") -> Cell | None:
        """A stored cell, scored by the present rules; None if it is absent or damaged (stderr says which).

        Args:
            digest: of the cell.
            metric: how open answers are scored.
            remedy: end of the message about a damaged cell: what happens to it.
        """
        stored = self._files.read(digest, _load, remedy)
        if stored is None:
            return None
        table, facts = stored
        marks = facts.get("marks", _MARKS)
        if (facts["rules"], facts["metric"], marks) != (rules_digest(), metric, self._marks or marks):
            return self._score(digest, table.to_pylist(), metric, facts)
        return Cell(digest, _frame(table), facts["seconds"], metric, _read_beyond_context(facts), marks)

    def add_to_family(self, family: str, digest: str) -> None:
        """Record that a cell belongs to a family: cells that differ only in their limit and share their first block.

        Args:
            family: digest of the shared first block and the other settings; empty for a cell without a whole block.
            digest: the cell.
        """
        if family and not (noted := self._families / family / digest).exists():
            noted.parent.mkdir(parents=True, exist_ok=True)
            noted.touch()

    def shared_blocks(self, family: str, digest: str, blocks: Mapping[str, Sequence[str]]) -> SharedBlocks | None:
        """The first blocks of a cell, read from the complete cell of its family that shares the most blocks.

        Args:
            family: as for `add_to_family`.
            digest: the cell to fill, which is not stored.
            blocks: item ids of each of its blocks, by block digest.
        """
        if not family or not (self._families / family).is_dir():
            return None
        remedy, n_shared = "its answers are not used", dict[str, int]()
        for other in sorted(path.name for path in (self._families / family).iterdir() if path.name != digest):
            n_shared[other] = (
                self._files.read(other, lambda path: len(_common_blocks(_read_facts(path), blocks)), remedy) or 0
            )
        for other in sorted(n_shared, key=lambda name: -n_shared[name]):
            if n_shared[other] and (
                loaded := self._files.read(other, partial(_load_shared_blocks, blocks=blocks), remedy)
            ):
                return loaded
        return None

    def prompts(self, digest: str) -> dict[str, str]:
        """The prompts of a stored cell's items, by id."""
        columns = pq.read_table(self.path(digest), columns=["sample_id", "prompt"])
        return dict(zip(*(columns[name].to_pylist() for name in columns.column_names), strict=True))

    def write(
        self,
        digest: str,
        samples: Sequence[Sample],
        images: Sequence[str],
        predictions: Sequence[Prediction],
        settings: Settings,
        metric: Metric,
        seconds: float | None,
        beyond_context: BeyondContext | None = None,
        blocks: Sequence[Block] = (),
        versions: Mapping[str, str] | None = None,
    ) -> Cell:
        """Score and store a finished cell, and return it as it will be read.

        Args:
            digest: of the cell.
            samples: the items.
            images: sha256 of each item's pictures; empty where it has none.
            predictions: one per item.
            settings: with which they were made.
            metric: how open answers are scored.
            seconds: time that making them took.
            beyond_context: the items that are longer than the model's context.
            blocks: the parts that cells with other limits may share.
            versions: of the libraries that made the predictions; None: the installed versions.
        """
        described = json.dumps(settings.described(), sort_keys=True)
        rows = [
            {
                "cell": digest,
                "sample_id": sample.id,
                "cluster": list(sample.clusters),
                "image_sha256": image,
                "prompt": sample.prompt,
                "kind": sample.kind.value,
                "options": list(sample.options),
                "target": sample.answer,
                "references": list(sample.references),
                "class_option": sample.class_option,
                "decoding": settings.decoding.value,
                "settings": described,
                "option_logprobs": prediction.option_logprobs,
                "text": prediction.text,
                "text_cut_off": prediction.cut_off,
            }
            for sample, image, prediction in zip(samples, images, predictions, strict=True)
        ]
        # The versions at the time of asking: scoring again later changes neither these nor the seconds.
        if versions is None:
            versions = {} if seconds is None else {name: version(name) for name in ("torch", "transformers")}
        prediction_facts = {
            "seconds": seconds if seconds is None else round(seconds, 3),
            "versions": dict(versions),
            **({"beyond_context": asdict(beyond_context)} if beyond_context else {}),
            **({"blocks": [asdict(block) for block in blocks]} if blocks else {}),
        }
        return self._score(digest, rows, metric, prediction_facts)

    def _score(
        self,
        digest: str,
        rows: Sequence[dict[str, Any]],
        metric: Metric,
        prediction_facts: Mapping[str, Any],
    ) -> Cell:
        """Score predictions and store the result."""
        samples, predictions = [_sample(row) for row in rows], [_prediction(row) for row in rows]
        marks = self._marks or prediction_facts.get("marks", _MARKS)
        answers = score_answers(samples, predictions, metric, marks)
        scored = [{**row, **asdict(answer)} for row, answer in zip(rows, answers, strict=True)]
        table = pa.Table.from_pylist(scored, schema=SCHEMA)
        facts = {
            "cell": digest,
            "content": _rows_checksum(table),
            "metric": metric,
            "rules": rules_digest(),
            "marks": marks,
            **{key: prediction_facts[key] for key in _PREDICTION_FACTS if key in prediction_facts},
        }
        with self._files.writing(digest) as temporary:
            pq.write_table(table.replace_schema_metadata({"facts": json.dumps(facts)}), temporary, compression="zstd")
        return Cell(
            digest, _frame(table), prediction_facts["seconds"], metric, _read_beyond_context(prediction_facts), marks
        )


def _read_beyond_context(facts: Mapping[str, Any]) -> BeyondContext | None:
    return BeyondContext(**facts["beyond_context"]) if "beyond_context" in facts else None


def _read_facts(path: Path) -> dict[str, Any]:
    """The metadata of a cell's file, without its rows."""
    facts: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {})[b"facts"])
    return facts


def _common_blocks(facts: Mapping[str, Any], blocks: Iterable[str]) -> list[Block]:
    """The first blocks of a stored cell, as far as they equal `blocks`."""
    stored = [Block(block["digest"], float(block["seconds"])) for block in facts.get("blocks", ())]
    return [block for block, _ in takewhile(lambda pair: pair[0].digest == pair[1], zip(stored, blocks, strict=False))]


def _load_shared_blocks(path: Path, blocks: Mapping[str, Sequence[str]]) -> SharedBlocks:
    table, facts = _load(path)
    shared = _common_blocks(facts, blocks)
    rows = table.select(["sample_id", "option_logprobs", "text", "text_cut_off"]).to_pylist()
    known = {row["sample_id"]: _prediction(row) for row in rows}
    wanted = {item: known[item] for block in shared for item in blocks[block.digest]}
    settings = Settings.read(table["settings"][0].as_py())
    return SharedBlocks(shared, wanted, settings, dict(facts["versions"]), "beyond_context" in facts)


def _load(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """A cell's rows and metadata."""
    # Read in one go: another command may be putting a new file in its place.
    table = pq.read_table(pa.BufferReader(path.read_bytes()))
    facts = json.loads((table.schema.metadata or {})[b"facts"])
    _check_facts(facts)
    known = pa.schema(
        [field for field in SCHEMA if field.name in table.column_names or field.name not in _LATER_COLUMNS]
    )
    table = table.cast(known)
    verify((facts["cell"], facts["content"]), (path.stem, _rows_checksum(table)))
    for name in _LATER_COLUMNS:
        if name not in table.column_names:
            table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
    return table, facts


def _check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse metadata that this program would not write; the checksum does not cover the metadata.

    Raises:
        LookupError, TypeError, ValueError: a key is absent or its value has another type.
    """
    for key, kinds in {"rules": str, "metric": str, "seconds": int | float | None}.items():
        if not isinstance(facts[key], kinds):
            raise TypeError(f"`{key}` is {facts[key]!r}")
    for pair in facts.get("marks", ()):
        if [type(mark) for mark in pair] != [str, str]:
            raise ValueError(f"`marks` holds {pair!r}")
    _read_beyond_context(facts)


def _frame(table: pa.Table) -> pd.DataFrame:
    """A cell as the tables use it, without prompts: they are long, and many cells are in memory at once."""
    frame: pd.DataFrame = table.drop_columns(["prompt"]).to_pandas()
    if not frame["kind"].eq(AnswerKind.text).any():
        return frame.assign(asks_number=False)
    return frame.assign(asks_number=[asks_for_number(prompt) for prompt in table["prompt"].to_pylist()])


def _sample(row: dict[str, Any]) -> Sample:
    """The item of a stored row, with the fields that scoring needs."""
    return Sample.question(
        id=row["sample_id"],
        prompt=row["prompt"],
        answer=row["target"],
        kind=AnswerKind(row["kind"]),
        references=tuple(row["references"]),
        options=tuple(row["options"]),
    )


def _prediction(row: dict[str, Any]) -> Prediction:
    logprobs = row["option_logprobs"]
    return Prediction(None if logprobs is None else tuple(logprobs), row["text"], row["text_cut_off"])


def _rows_checksum(table: pa.Table) -> str:
    """Checksum of a cell's rows."""
    return checksum(json.dumps(table.to_pydict()).encode())


def samples_digest(samples: Sequence[Sample], image_digests: Sequence[str]) -> str:
    """Digest of each item's prompt, pictures, options and references."""
    digest = hashlib.sha256()
    for sample, image in zip(samples, image_digests, strict=True):
        fields = [sample.id, sample.prompt, sample.kind, sample.references, sample.options, sample.clusters]
        digest.update(json.dumps([*fields, sample.class_option, image, *sample.layout]).encode())
    return digest.hexdigest()
