"""The benchmark's conversations: as long as mixed instructions, and the same in every program's layout."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import AutoTokenizer

from benchmarks.baselines.instructions import (
    conversations,
    export_messages,
    export_sharegpt,
    n_replies,
    turn_by_turn,
)
from forgetbench.core.paths import EMBEDDED
from forgetbench.core.records import AnswerKind, ImageRef, Sample, Speaker, Turn
from forgetbench.data.pictures import read_image

PICTURE_TOKENS = 16
POSITIONS = 512


@pytest.fixture(scope="module")
def mix() -> list[Sample]:
    return conversations(1000)


@pytest.fixture
def talk(tmp_path: Path) -> Sample:
    """Two replies about a picture."""
    Image.new("RGB", (2, 2), (200, 0, 0)).save(tmp_path / "red.png")
    red = ImageRef(str(tmp_path), "red.png")
    turns = (
        Turn(Speaker.user, (red, "what is it?")),
        Turn(Speaker.assistant, ("a square",)),
        Turn(Speaker.user, ("and its color?",)),
    )
    return Sample("talk", turns, "red", AnswerKind.text, ("red",))


def test_conversations_of_a_seed_are_the_same_however_many_are_drawn(mix: list[Sample]) -> None:
    assert conversations(20) == mix[:20]
    assert conversations(20, seed=1) != mix[:20]


def test_turns_spread_from_one_to_twenty_and_are_some_six(mix: list[Sample]) -> None:
    replies = Counter(map(n_replies, mix))
    assert (min(replies), max(replies)) == (1, 20)
    assert 5 < sum(n * count for n, count in replies.items()) / len(mix) < 7
    assert 0.2 < replies[1] / len(mix) < 0.4
    assert {len(sample.images) for sample in mix} == {0, 1}
    assert 0.03 < sum(not sample.images for sample in mix) / len(mix) < 0.1


def test_every_conversation_fits_the_embedded_models_context(mix: list[Sample]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / "tiny")
    lengths = []
    for sample in mix:
        turns = [*sample.turns, Turn(Speaker.assistant, (sample.answer,))]
        written = [
            {"role": turn.speaker, "content": [{"type": "text", "text": turn.text.replace("<image>", "")}]}
            for turn in turns
        ]
        text = tokenizer.apply_chat_template(written, tokenize=False)
        lengths.append(len(tokenizer(text)["input_ids"]) + len(sample.images) * (PICTURE_TOKENS + 1))
    assert max(lengths) <= POSITIONS
    assert 150 < sum(lengths) / len(lengths) < 210


def test_turn_by_turn_each_reply_has_its_question_and_the_picture_alone(talk: Sample) -> None:
    assert turn_by_turn([talk]) == [
        Sample.question("talk-0", "what is it?", "a square", AnswerKind.text, talk.images, ("a square",)),
        Sample.question("talk-1", "and its color?", "red", AnswerKind.text, talk.images, ("red",)),
    ]


def test_trl_gets_messages_as_texts_and_the_pictures_bytes(talk: Sample, tmp_path: Path) -> None:
    export_messages([talk], tmp_path / "mix.parquet")
    (row,) = pq.read_table(tmp_path / "mix.parquet").to_pylist()
    assert row["messages"] == [
        {"role": "user", "content": "what is it?"},
        {"role": "assistant", "content": "a square"},
        {"role": "user", "content": "and its color?"},
        {"role": "assistant", "content": "red"},
    ]
    assert [Image.open(io.BytesIO(image["bytes"])).getpixel((0, 0)) for image in row["images"]] == [(200, 0, 0)]


def test_llama_factory_gets_a_mark_where_the_picture_stands(talk: Sample, tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    export_sharegpt([talk], folder, "mix")
    (row,) = json.loads((folder / "mix.json").read_text("utf-8"))
    assert [message["content"] for message in row["messages"]] == [
        "<image>what is it?", "a square", "and its color?", "red",
    ]  # fmt: skip
    assert [Path(path).read_bytes() for path in row["images"]] == [read_image(talk.images[0])]
    assert list(json.loads((folder / "dataset_info.json").read_text("utf-8"))) == ["mix"]
