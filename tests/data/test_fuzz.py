"""Whatever a file of data holds, reading it gives records or one `UserError`: never another error, never no end."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind, ImageRef, Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import Manifest, Source, SourceKind, Split
from forgetbench.data.pictures import decode_image
from forgetbench.data.predictions import ExternalPredictions, read_predictions
from forgetbench.data.sources import load_samples
from tests.support.fuzzing import SCALARS, as_json, damaged, examples, few_and_many, structures

SOUND: dict[str, Any] = {
    "source": {"root": ".", "columns": {"question": "asked"}},
    "splits": {"train": {"files": ["items.jsonl"], "n": 2, "limit": 1}},
    "image_domains": ["text"],
    "text_tasks": ["naming"],
    "prompt": "{question}\n{options}",
    "answer": "letter",
    "options": ["yes", "no"],
    "cluster_by": ["image"],
}
ROW: dict[str, Any] = {"id": "a", "question": "Which?", "options": ["cat", "dog"], "answer": "dog", "image": "a.png"}
TALK: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Which?"}]},
        {"role": "assistant", "content": "b"},
    ],
    "system": "Be brief.",
}
FIELDS = st.sampled_from([*SOUND, "mixture", "kind", "files", "train", "metric", "stop", "hub_id", "sha256", "notes"])
ROW_FIELDS = st.sampled_from(
    [*ROW, *TALK, "role", "content", "images", "bytes", "path", "conversations", "class_option"]
)
ANSWER = {"id": "a", "text": "A", "target": "cat"}
SCORES = {"doc_id": 0, "doc": {"id": "a"}, "target": "cat", "filtered_resps": [["-1.5", "True"], ["-2", "False"]]}
ANSWER_FIELDS = st.sampled_from([*ANSWER, *SCORES, "logprobs", "predict", "label", "resps", "filter", "input"])


def changed(sound: dict[str, Any], fields: SearchStrategy[str]) -> SearchStrategy[dict[str, Any]]:
    """A sound mapping with some of its values replaced, or others added."""
    return st.dictionaries(fields, structures(fields), min_size=1, max_size=3).map(lambda new: sound | new)


def try_all(n: int, contents: SearchStrategy[Any], read: Callable[[Any], object]) -> None:
    """Read every example; a bad one may be refused, in words."""

    @examples(n)
    @given(contents)
    def check(content: Any) -> None:
        try:
            read(content)
        except UserError as error:
            refusal = str(error)
        else:
            return
        assert refusal.strip()

    check()


MANIFESTS = {
    "bytes": st.binary(max_size=200),
    "damaged": damaged(as_json(SOUND)),
    "structures": structures(FIELDS).map(as_json),
    "changed": changed(SOUND, FIELDS).map(as_json),
    "signs of YAML": st.text(alphabet="&*!?|>%@`{}[],:#-<~'\"ab1\n\t ", max_size=80).map(str.encode),
}


@few_and_many
@pytest.mark.parametrize("contents", MANIFESTS.values(), ids=MANIFESTS)
def test_any_manifest_is_read_or_refused(contents: SearchStrategy[bytes], n: int, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    catalogue = [tmp_path]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        assert isinstance(Catalogue(catalogue).load("mine"), Manifest)

    try_all(n, contents, read)


ROWS = {
    "bytes": st.binary(max_size=200),
    "damaged": damaged(as_json(ROW) + b"\n" + as_json(ROW | {"id": "b"})),
    "structures": st.lists(structures(ROW_FIELDS).map(as_json), max_size=3).map(b"\n".join),
    "changed": changed(ROW, ROW_FIELDS).map(as_json),
    "changed conversations": changed(TALK, ROW_FIELDS).map(as_json),
}


@few_and_many
@pytest.mark.parametrize("answer", AnswerKind)
@pytest.mark.parametrize("contents", ROWS.values(), ids=ROWS)
def test_any_rows_are_read_or_refused(
    contents: SearchStrategy[bytes], answer: AnswerKind, n: int, tmp_path: Path
) -> None:
    for name in ("items.jsonl", "items.json", "items.csv", "items.jsonl.gz"):
        manifest = Manifest(
            name="mine",
            path=str(tmp_path / "mine.yaml"),
            source=Source(root="."),
            splits={"train": Split(files=[name])},
            image_domains=["photos", "text"],
            text_tasks=["naming"],
            prompt="{question}\n{options}",
            answer=answer,
        )

        def read(content: bytes, name: str = name, manifest: Manifest = manifest) -> None:
            (tmp_path / name).write_bytes(content)
            assert all(isinstance(sample, Sample) for sample in load_samples(manifest, "train"))

        try_all(n if name == "items.jsonl" else n // 4, contents, read)


@few_and_many
def test_any_columns_of_parquet_are_read_or_refused(n: int, tmp_path: Path) -> None:
    values = SCALARS | structures(ROW_FIELDS) | st.dates() | st.decimals() | st.binary(max_size=9)
    columns = st.dictionaries(ROW_FIELDS, values, min_size=1)
    manifest = Manifest(
        name="mine",
        path=str(tmp_path / "mine.yaml"),
        source=Source(root=".", kind=SourceKind.parquet),
        splits={"train": Split(files=["t.parquet"])},
        image_domains=["photos", "text"],
        text_tasks=["naming"],
    )

    def read(row: dict[str, Any]) -> None:
        try:
            pq.write_table(pa.Table.from_pylist([row]), tmp_path / "t.parquet")
        except Exception:  # what Arrow cannot store, no file holds
            return
        load_samples(manifest, "train")

    try_all(n, columns, read)


@few_and_many
def test_any_damage_of_a_table_or_a_picture_is_refused_or_harmless(n: int, tmp_path: Path) -> None:
    held = io.BytesIO()
    pq.write_table(pa.table({"question": ["Which?"] * 3, "answer": ["red"] * 3}), held)
    manifest = Manifest(
        name="mine",
        path=str(tmp_path / "mine.yaml"),
        source=Source(root=".", kind=SourceKind.parquet),
        splits={"train": Split(files=["t.parquet"])},
        image_domains=["text"],
        text_tasks=["naming"],
    )

    def read(content: bytes) -> None:
        (tmp_path / "t.parquet").write_bytes(content)
        load_samples(manifest, "train")

    try_all(n, damaged(held.getvalue()), read)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        held = io.BytesIO()
        Image.new("RGB", (6, 5), (200, 10, 90)).save(held, kind)
        try_all(n, damaged(held.getvalue()), lambda content: decode_image(ImageRef("memory", "a", content)))


PREDICTIONS = {
    "bytes": st.binary(max_size=200),
    "structures": structures(ANSWER_FIELDS).map(as_json),
    "damaged": damaged(as_json(ANSWER) + b"\n"),
    "damaged scores": damaged(as_json(SCORES) + b"\n"),
    "changed": changed(ANSWER, ANSWER_FIELDS).map(as_json),
    "changed scores": changed(SCORES, ANSWER_FIELDS).map(as_json),
}


@few_and_many
@pytest.mark.parametrize("contents", PREDICTIONS.values(), ids=PREDICTIONS)
def test_any_predictions_are_read_or_refused(contents: SearchStrategy[bytes], n: int, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    sample = Sample.question(id="a", prompt="Which?", answer="A", kind=AnswerKind.letter, options=("cat", "dog"))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        assert isinstance(read_predictions(path, [sample]), ExternalPredictions)

    try_all(n, contents, read)
