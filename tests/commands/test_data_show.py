"""`data show`: a set as it is, and with a model as that model gets it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.config import ModelConfig
from forgetbench.core.records import AnswerKind, Sample
from forgetbench.data.collate import Encoder
from forgetbench.data.rendered import render
from forgetbench.models import load
from forgetbench.models.pretrained import load_processor


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def show(*words: str) -> str:
    done = CliRunner().invoke(app, ["data", "show", *words])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_without_a_model_an_item_is_shown_as_it_is_written() -> None:
    shown = show("emoji_use")
    assert "train item" in shown
    assert "tokens" not in shown


def test_with_a_model_the_prompt_has_its_special_tokens_and_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "load_model", None)  # no weights are read
    shown = show("emoji_use", "model=tiny")
    assert "USER: <image> (x 16)" in shown
    assert "</s>" in shown
    assert re.search(r"\d+: \d+ of text, 16 of 1 picture, 2 of the reply", shown)
    assert shown.count("train prompt") == 3


def test_the_counts_of_a_rendered_item_add_up_to_what_training_reads() -> None:
    encoder = Encoder(load_processor(ModelConfig(path="embedded:tiny")))
    sample = Sample.question("one", "What is it?", "boot", AnswerKind.text)
    rendered, example = render(encoder, sample), encoder.example(sample)
    assert (rendered.text_tokens, rendered.picture_tokens, rendered.n_pictures) == (example.prompt.length, 0, 0)
    assert rendered.counted == f"{example.length}: {example.prompt.length} of text, 0 of 0 pictures, " + (
        f"{len(example.answer)} of the reply"
    )
    assert rendered.prompt == encoder.tokenizer.decode(example.prompt.tokens["input_ids"])
