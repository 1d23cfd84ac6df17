"""Cells: one file of per-item predictions per checkpoint x dataset x decoding, keyed by content.

Equal key, no work; different weights can never share a result. A file that is truncated, edited or of another key is
named and made again; one that was read by other scoring rules is scored again, without a model.
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

_LATER = ("text_cut_off", "cut_off")
"""Columns that older files lack: read as absent."""
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
_OF_ASKING = ("seconds", "versions", "beyond_context", "blocks")
"""What a cell's file says of how its predictions were made; scoring again changes none of it."""


@dataclass(frozen=True)
class CellKey:
    """Everything that decides a cell's predictions."""

    model: str
    """Digest of the base model, or of the predictions themselves if they were made elsewhere."""
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
    """The items of a cell that are longer than the model's context; what it says of them is noise."""

    items: int
    longest_id: str
    tokens: int
    """Of the longest, with the longest candidate where there are any."""
    context: int
    """Positions that the model was made for."""


@dataclass(frozen=True)
class Block:
    """Some items of a cell, which cells of other limits may hold too."""

    digest: str
    """Of its items and of those before it (see `EvaluationSet.block_digests`)."""
    seconds: float
    """What asking it took."""


@dataclass(frozen=True)
class Answered:
    """The first blocks of a dataset, from a cell that was made at another limit."""

    blocks: Sequence[Block]
    predictions: Mapping[str, Prediction]
    """By item."""
    settings: Settings
    """With every default in place."""
    versions: Mapping[str, str]
    has_beyond: bool
    """Whether an item of that cell is longer than the model's context."""


@dataclass(frozen=True)
class Cell:
    """One stored cell."""

    digest: str
    frame: pd.DataFrame
    seconds: float | None
    """What asking the model took, summed over batches; None where it was asked elsewhere."""
    metric: Metric
    beyond_context: BeyondContext | None = None
    """None where every item fits, or the model is not known."""
    marks: Marks = THOUGHT_MARKS
    """What thoughts stand between, by which the replies were read."""


class CellStore:
    """The folder of cells shared by all runs and sweep points under one outputs folder."""

    def __init__(self, outputs: Path, marks: Marks | None = None) -> None:
        """Use `<outputs>/.cells`.

        Args:
            outputs: the folder.
            marks: what thoughts stand between; None reads every cell by those that it was last read by.
        """
        self._files = Store(outputs / ".cells", ".parquet", damage=(OSError, pa.ArrowException))
        self._families = outputs / ".cells" / ".families"
        self._marks = None if marks is None else [list(pair) for pair in marks]

    def path(self, digest: str) -> Path:
        """Where a cell is, whether or not it exists."""
        return self._files.path(digest)

    def partial(self, digest: str) -> Path:
        """Where the finished batches of an unfinished cell are."""
        return self.path(digest).with_suffix(".partial")

    def locked(self, digest: str, wait_s: float) -> AbstractContextManager[bool]:
        """Be the only one that makes a cell; False if another still does after `wait_s`."""
        return self._files.locked(digest, wait_s)

    def remove_leftovers(self, digest: str) -> None:
        """Remove what making a stored cell left behind: by a kill, or at its end."""
        shutil.rmtree(self.partial(digest), ignore_errors=True)
        self._files.remove_leftovers(digest)

    def read(self, digest: str, metric: Metric, remedy: str = "it is made again") -> Cell | None:
        """A stored cell, scored by the present rules; None if it is absent or damaged (which is said on stderr).

        Args:
            digest: its name.
            metric: how open answers are scored.
            remedy: what the message says that happens to a damaged one.
        """
        stored = self._files.read(digest, _load, remedy)
        if stored is None:
            return None
        table, facts = stored
        marks = facts.get("marks", _MARKS)
        if (facts["rules"], facts["metric"], marks) != (rules_digest(), metric, self._marks or marks):
            return self._score(digest, table.to_pylist(), metric, facts)
        return Cell(digest, _frame(table), facts["seconds"], metric, _beyond(facts), marks)

    def join_family(self, family: str, digest: str) -> None:
        """Note that a cell begins as others do which differ in their limit alone.

        Args:
            family: the name of what their first blocks have in common; empty for a cell that has no whole block.
            digest: the cell.
        """
        if family and not (noted := self._families / family / digest).exists():
            noted.parent.mkdir(parents=True, exist_ok=True)
            noted.touch()

    def answered(self, family: str, digest: str, blocks: Mapping[str, Sequence[str]]) -> Answered | None:
        """The first blocks of a cell, from one of its family that is whole; of several, from the one with most.

        Args:
            family: as of `join_family`.
            digest: the cell, which is not there itself.
            blocks: ids of the items of each of its blocks, by the block's digest.
        """
        if not family or not (self._families / family).is_dir():
            return None
        remedy, shared = "its answers are not used", dict[str, int]()
        for other in sorted(path.name for path in (self._families / family).iterdir() if path.name != digest):
            shared[other] = self._files.read(other, lambda path: len(_in_common(_facts(path), blocks)), remedy) or 0
        for other in sorted(shared, key=lambda name: -shared[name]):
            if shared[other] and (found := self._files.read(other, partial(_answered, blocks=blocks), remedy)):
                return found
        return None

    def prompts(self, digest: str) -> dict[str, str]:
        """What a stored cell's items asked, by id."""
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
            digest: its name.
            samples: the items.
            images: sha256 of each item's pictures; empty where it has none.
            predictions: one per item.
            settings: how they were made.
            metric: how open answers are scored.
            seconds: what making them took.
            beyond_context: the items that are longer than the model's context.
            blocks: what cells of other limits may hold too.
            versions: of the libraries that made the predictions; None: those that are installed.
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
        # Of those that asked: scoring again, later, changes neither.
        if versions is None:
            versions = {} if seconds is None else {name: version(name) for name in ("torch", "transformers")}
        asked = {
            "seconds": seconds if seconds is None else round(seconds, 3),
            "versions": dict(versions),
            **({"beyond_context": asdict(beyond_context)} if beyond_context else {}),
            **({"blocks": [asdict(one) for one in blocks]} if blocks else {}),
        }
        return self._score(digest, rows, metric, asked)

    def _score(
        self,
        digest: str,
        rows: Sequence[dict[str, Any]],
        metric: Metric,
        asked: Mapping[str, Any],
    ) -> Cell:
        """Read and score stored predictions, and keep what came out."""
        samples, predictions = [_sample(row) for row in rows], [_prediction(row) for row in rows]
        marks = self._marks or asked.get("marks", _MARKS)
        answers = score_answers(samples, predictions, metric, marks)
        scored = [{**row, **asdict(answer)} for row, answer in zip(rows, answers, strict=True)]
        table = pa.Table.from_pylist(scored, schema=SCHEMA)
        facts = {
            "cell": digest,
            "content": _content(table),
            "metric": metric,
            "rules": rules_digest(),
            "marks": marks,
            **{key: asked[key] for key in _OF_ASKING if key in asked},
        }
        with self._files.writing(digest) as temporary:
            pq.write_table(table.replace_schema_metadata({"facts": json.dumps(facts)}), temporary, compression="zstd")
        return Cell(digest, _frame(table), asked["seconds"], metric, _beyond(asked), marks)


def _beyond(facts: Mapping[str, Any]) -> BeyondContext | None:
    return BeyondContext(**facts["beyond_context"]) if "beyond_context" in facts else None


def _facts(path: Path) -> dict[str, Any]:
    """What a cell's file says of it, without its rows."""
    facts: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {})[b"facts"])
    return facts


def _in_common(facts: Mapping[str, Any], blocks: Iterable[str]) -> list[Block]:
    """The blocks that a cell begins with and these are."""
    theirs = [Block(one["digest"], float(one["seconds"])) for one in facts.get("blocks", ())]
    return [one for one, _ in takewhile(lambda pair: pair[0].digest == pair[1], zip(theirs, blocks, strict=False))]


def _answered(path: Path, blocks: Mapping[str, Sequence[str]]) -> Answered:
    table, facts = _load(path)
    shared = _in_common(facts, blocks)
    rows = table.select(["sample_id", "option_logprobs", "text", "text_cut_off"]).to_pylist()
    known = {row["sample_id"]: _prediction(row) for row in rows}
    wanted = {item: known[item] for one in shared for item in blocks[one.digest]}
    settings = Settings.read(table["settings"][0].as_py())
    return Answered(shared, wanted, settings, dict(facts["versions"]), "beyond_context" in facts)


def _load(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """A cell's rows and what its file says of them."""
    # Read in one go: another command may be putting a new file in its place.
    table = pq.read_table(pa.BufferReader(path.read_bytes()))
    facts = json.loads((table.schema.metadata or {})[b"facts"])
    _check_facts(facts)
    known = pa.schema([field for field in SCHEMA if field.name in table.column_names or field.name not in _LATER])
    table = table.cast(known)
    verify((facts["cell"], facts["content"]), (path.stem, _content(table)))
    for name in _LATER:
        if name not in table.column_names:
            table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
    return table, facts


def _check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse what no file of ours says of itself; no checksum is over it.

    Raises:
        LookupError, TypeError, ValueError: something is absent or of another kind.
    """
    for key, kinds in {"rules": str, "metric": str, "seconds": int | float | None}.items():
        if not isinstance(facts[key], kinds):
            raise TypeError(f"`{key}` is {facts[key]!r}")
    for pair in facts.get("marks", ()):
        if [type(one) for one in pair] != [str, str]:
            raise ValueError(f"`marks` holds {pair!r}")
    _beyond(facts)


def _frame(table: pa.Table) -> pd.DataFrame:
    """A cell as the tables use it; prompts are long, and a matrix holds many cells at a time."""
    frame: pd.DataFrame = table.drop_columns(["prompt"]).to_pandas()
    if not frame["kind"].eq(AnswerKind.text).any():
        return frame.assign(asks_number=False)
    return frame.assign(asks_number=[asks_for_number(prompt) for prompt in table["prompt"].to_pylist()])


def _sample(row: dict[str, Any]) -> Sample:
    """The item of a stored row, as far as scoring needs it."""
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


def _content(table: pa.Table) -> str:
    """Checksum of a cell's rows; a changed value breaks it."""
    return checksum(json.dumps(table.to_pydict()).encode())


def samples_digest(samples: Sequence[Sample], image_digests: Sequence[str]) -> str:
    """Digest of what the model sees and what counts as right, item by item."""
    digest = hashlib.sha256()
    for sample, image in zip(samples, image_digests, strict=True):
        fields = [sample.id, sample.prompt, sample.kind, sample.references, sample.options, sample.clusters]
        digest.update(json.dumps([*fields, sample.class_option, image, *sample.layout]).encode())
    return digest.hexdigest()
