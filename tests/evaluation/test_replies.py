"""Replies as text: the marks of a thought stay, other special tokens do not."""

from __future__ import annotations

import copy

import pytest

from forgetbench.config import ModelConfig
from forgetbench.core.records import THOUGHT_MARKS
from forgetbench.data.collate import Encoder
from forgetbench.evaluation.replies import ReplyDecoder
from forgetbench.models.load import load_model


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(copy.deepcopy(load_model(ModelConfig(path="embedded:tiny", attention="eager")).processor))


def written(encoder: Encoder, text: str) -> str:
    ids = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ReplyDecoder(encoder, THOUGHT_MARKS).texts([ids])[0]


def test_special_tokens_are_no_text(encoder: Encoder) -> None:
    assert written(encoder, "red" + encoder.tokenizer.eos_token) == "red"


def test_marks_that_are_special_tokens_stay(encoder: Encoder) -> None:
    end = encoder.tokenizer.eos_token
    encoder.tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "[PLAN]"]})
    assert written(encoder, f"[THINK]a[/THINK][PLAN]red{end}").replace(" ", "") == "[THINK]a[/THINK]red"


@pytest.mark.parametrize(("tail", "opening"), [("<think>\n", "<think>"), ("<think>\n\n</think>\n\n", ""), ("", "")])
def test_a_thought_that_the_template_begins_is_the_replys(encoder: Encoder, tail: str, opening: str) -> None:
    template = encoder.processor.chat_template or encoder.tokenizer.chat_template
    encoder.processor.chat_template = (
        template + "{% if add_generation_prompt %}" + repr(tail)[1:-1].join(('{{ "', '" }}')) + "{% endif %}"
    )
    again = Encoder(encoder.processor)
    assert written(again, "red").startswith(opening)
    assert written(again, "red").removeprefix(opening) == "red"
