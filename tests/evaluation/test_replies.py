"""Replies as text: the marks of a thought stay, other special tokens do not."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from forgetbench.config import MatrixConfig, ModelConfig, RepresentationConfig
from forgetbench.core.records import THOUGHT_MARKS, AnswerKind, Prediction, Sample
from forgetbench.data.collate import Encoder
from forgetbench.data.manifest import Manifest
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.evaluation.replies import ReplyDecoder
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.evaluation.stopping import ThoughtThenAnswer
from forgetbench.models.load import load_model
from tests.support.asking import greedy


@pytest.fixture(scope="module")
def plain() -> Encoder:
    """Read-only."""
    return Encoder(load_model(ModelConfig(path="embedded:tiny", attention="eager")).processor)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(copy.deepcopy(load_model(ModelConfig(path="embedded:tiny", attention="eager")).processor))


def written(encoder: Encoder, text: str) -> str:
    ids = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ReplyDecoder(encoder, THOUGHT_MARKS).texts([ids])[0]


def with_tail(encoder: Encoder, tail: str) -> Encoder:
    """One whose template writes something before every reply."""
    template = encoder.processor.chat_template or encoder.tokenizer.chat_template
    encoder.processor.chat_template = (
        template + "{% if add_generation_prompt %}" + repr(tail)[1:-1].join(('{{ "', '" }}')) + "{% endif %}"
    )
    return Encoder(encoder.processor)


def read(encoder: Encoder, settings: Settings, *pieces: str | int) -> Prediction:
    """What a reply counts as whose tokens are those of the texts, and the ids."""
    ids = [token for piece in pieces for token in ([piece] if isinstance(piece, int) else tokens(encoder, piece))]
    return ReplyDecoder(encoder, THOUGHT_MARKS, [encoder.tokenizer.eos_token_id]).predictions([ids], settings)[0]


def tokens(encoder: Encoder, text: str) -> list[int]:
    return list(encoder.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_special_tokens_are_no_text(encoder: Encoder) -> None:
    assert written(encoder, "red" + encoder.tokenizer.eos_token) == "red"


def test_marks_that_are_special_tokens_stay(encoder: Encoder) -> None:
    end = encoder.tokenizer.eos_token
    encoder.tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "[PLAN]"]})
    assert written(encoder, f"[THINK]a[/THINK][PLAN]red{end}").replace(" ", "") == "[THINK]a[/THINK]red"


@pytest.mark.parametrize(("tail", "opening"), [("<think>\n", "<think>"), ("<think>\n\n</think>\n\n", ""), ("", "")])
def test_a_thought_that_the_template_begins_is_the_replys(encoder: Encoder, tail: str, opening: str) -> None:
    again = with_tail(encoder, tail)
    assert written(again, "red").startswith(opening)
    assert written(again, "red").removeprefix(opening) == "red"


END = 1
"""The embedded model's end of turn; every letter below is a token of its own."""


@pytest.mark.parametrize(
    ("pieces", "text", "cut_off"),
    [
        (["a b", END], "a b", False),
        (["a b c d"], "a b c d", True),
        (["a b c", END], "a b c", False),
        (["a b c d", END], "a b c d", True),  # nobody knows whether more would have come
        (["a b c d e f"], "a b c d", True),
        (["a b", END, END, "c d"], "a b", False),
        (["a\nb"], "a", False),
        (["a b\n"], "a b", False),  # the stop text is a blank, which is no part of what is said
        (["a b c d\n"], "a b c d", True),
        ([END], "", False),
        (["<think>a b"], "<think>", True),  # one cap for thought and answer
    ],
)
def test_a_reply_without_an_end_of_turn_or_a_stop_text_within_its_cap_is_cut_off(
    plain: Encoder, pieces: list[str | int], text: str, cut_off: bool
) -> None:
    assert read(plain, greedy(1, 4, stop=("\n",)), *pieces) == Prediction(text=text, cut_off=cut_off)


OPEN, CLOSE = "<think>", "</think>"
"""Four tokens, and five."""


@pytest.mark.parametrize(
    ("pieces", "text", "cut_off"),
    [
        ([OPEN, "a b c d e", CLOSE, "f g", END], "<think>a b c d e</think>f g", False),
        ([OPEN, "a b c d e f g", CLOSE, "h i j k", END], "<think>a b c d e f g</think>h i j k", True),
        ([OPEN, "a b c d e f g", CLOSE, "h i j k l m"], "<think>a b c d e f g</think>h i j k", True),
        ([OPEN, "a b c d e f g h", CLOSE, "i", END], "<think>a b c d e f g h</think", True),  # one token too long
        ([OPEN, "a b c d e f g h i j k l m"], "<think>a b c d e f g h i j k l", True),
        ([OPEN, "a b", END], "<think>a b", False),  # it ended by itself, and is no answer
        (["a b", END], "a b", False),
        (["a b c d e f g h i j k l m n o p q r"], "a b c d", True),  # no thought: its tokens are not the answer's
        ([OPEN, "a\nb", CLOSE, "\n\nf\ng"], "<think>a\nb</think>\n\nf", False),  # stop texts are the answer's
        ([OPEN, "a\nb", END], "<think>a\nb", False),
        ([OPEN, "a", CLOSE, "b ", OPEN, "c d"], "<think>a</think>b <th", True),  # a second thought is the answer's
    ],
)
def test_a_thought_has_a_cap_of_its_own_and_the_answers_counts_from_its_end(
    plain: Encoder, pieces: list[str | int], text: str, cut_off: bool
) -> None:
    settings = greedy(1, 4, stop=("\n",), max_thought_tokens=16)
    assert read(plain, settings, *pieces) == Prediction(text=text, cut_off=cut_off)


def test_a_thought_that_the_template_begins_counts_from_the_reply(encoder: Encoder) -> None:
    thinks, settings = with_tail(encoder, OPEN), greedy(1, 4, max_thought_tokens=8)
    assert read(thinks, settings, "a b c", CLOSE, "d e", END) == Prediction(
        text="<think>a b c</think>d e", cut_off=False
    )
    assert read(thinks, settings, "a b c d e f g h i") == Prediction(text="<think>a b c d e f g h", cut_off=True)


def test_a_cap_for_answers_in_place_of_a_thought_is_told(encoder: Encoder) -> None:
    plain = ReplyDecoder(encoder, THOUGHT_MARKS)
    thinks = ReplyDecoder(with_tail(encoder, OPEN), THOUGHT_MARKS)
    assert plain.thought_cap_warning(greedy(1, 16)) is None
    warning = thinks.thought_cap_warning(greedy(1, 16))
    assert warning is not None
    assert "matrix.reasoning.max_tokens" in warning
    assert thinks.thought_cap_warning(greedy(1, 2048)) is None
    assert thinks.thought_cap_warning(greedy(1, 16, max_thought_tokens=16)) is None


def test_a_model_that_begins_with_a_thought_and_has_no_room_for_it_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_model(ModelConfig(path="embedded:tiny"))
    encoder = with_tail(Encoder(copy.deepcopy(loaded.processor)), OPEN)
    config = MatrixConfig(datasets=["toy"], representation=RepresentationConfig(enabled=False))
    runner = ModelRunner(loaded, encoder, config, tmp_path)
    samples = [Sample.question("a", "Which?", "red", AnswerKind.text, references=("red",))]
    dataset = EvaluationSet(Manifest(name="toy", image_domains=["x"], text_tasks=["y"]), samples, lambda: samples)
    (settings,) = dataset.settings(config)
    caps = {runner.resolve(dataset, settings).max_new_tokens for _ in range(2)}
    assert capsys.readouterr().err.count(f"a reply may have {caps.pop()} tokens") == 1


@pytest.mark.parametrize("tail", ["", OPEN])
def test_generation_stops_each_row_where_its_caps_end_and_not_before(encoder: Encoder, tail: str) -> None:
    replies, settings = ReplyDecoder(with_tail(encoder, tail), THOUGHT_MARKS), greedy(1, 3, max_thought_tokens=20)
    texts = [
        OPEN + "a b" + CLOSE,
        "a b c d e f",
        OPEN + "a " * 19,
        OPEN + "a b c d e" + CLOSE,
        "a b c d e" + CLOSE,
        OPEN + CLOSE,
    ]
    rows = [(tokens(encoder, text + " z" * 40))[:40] for text in texts]
    stopping = ThoughtThenAnswer(replies, settings, start=2, rows=len(rows))
    first_B = [0] * len(rows)
    for n in range(1, 40):
        stops_B = stopping(torch.tensor([[5, 5, *row[:n]] for row in rows]), None)
        first_B = [first or n * stop for first, stop in zip(first_B, stops_B.tolist(), strict=True)]
    least = 0 if tail else 16  # so many tokens tell whether a thought begins
    assert first_B == [max(replies.max_length(row, settings), least) for row in rows]
    assert len(set(first_B)) > 2
