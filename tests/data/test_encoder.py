"""What is read and what is trained on, token by token, on a toy of ChatML's layout."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from forgetbench.config import ModelConfig, TrainOn
from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind, ImageRef, Sample, Speaker, Turn
from forgetbench.data.batching import batch_examples
from forgetbench.data.collate import IGNORED, Encoder, Example
from forgetbench.models.pretrained import load_processor
from tests.support.conversations import TALKS, picture, talk
from tests.support.families import FAMILIES

# transformers' PaliGemma processor hands tensors to numpy the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# As Qwen3's for a model that reasons: the last reply has a thought, if an empty one; earlier ones lose theirs.
WITHOUT_THOUGHTS = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['role'] == 'assistant' %}{% set said = message['content'][0]['text'] %}\
{% set thought = said.split('</think>')[0].split('<think>')[-1].strip() if '</think>' in said else '' %}\
{% if loop.last %}<think>
{{ thought }}
</think>

{% endif %}{{ said.split('</think>')[-1] }}\
{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>\
{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

TALK = talk("t", (picture(10), "\nWhat is it?"), "A hat.", "Is it red?", "yes")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES["qwen2_vl"](tmp_path_factory.mktemp("models") / "qwen2_vl")


@pytest.fixture
def encoder(qwen: Path) -> Encoder:
    return Encoder(load_processor(ModelConfig(path=str(qwen))))


def trained(encoder: Encoder, example: Example) -> list[str]:
    """The texts that the loss is taken on, one for every unbroken run."""
    ids, labels = example.ids_and_labels
    runs: list[list[int]] = []
    before = IGNORED
    for token, label in zip(ids.tolist(), labels.tolist(), strict=True):
        assert label in (IGNORED, token)
        if label != IGNORED:
            if before == IGNORED:
                runs.append([])
            runs[-1].append(token)
        before = label
    return [encoder.tokenizer.decode(run) for run in runs]


def test_every_reply_is_trained_up_to_and_with_its_end(encoder: Encoder) -> None:
    example = encoder.example(TALK)
    ids, _ = example.ids_and_labels
    shown = encoder.tokenizer.decode(ids).replace("<|image_pad|>" * 4, "[4]")
    assert shown == (
        "<|im_start|>system\nYou answer.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|>[4]<|vision_end|>\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\nA hat.<|im_end|>\n<|im_start|>user\nIs it red?<|im_end|>\n"
        "<|im_start|>assistant\nyes<|im_end|>"
    )
    assert trained(encoder, example) == ["A hat.<|im_end|>", "yes<|im_end|>"]
    assert trained(encoder, encoder.example(TALK, TrainOn.last)) == ["yes<|im_end|>"]


def test_what_follows_the_end_token_is_trained_if_asked_for(encoder: Encoder) -> None:
    example = encoder.example(TALK, train_after_end=True)
    assert trained(encoder, example) == ["A hat.<|im_end|>\n", "yes<|im_end|>\n"]
    letter = talk("l", "Which?", "A")
    assert [encoder.example(letter, train_after_end=after).trained for after in (False, True)] == [2, 3]


def test_a_reply_that_its_file_excepts_is_not_trained(encoder: Encoder) -> None:
    first, reply, again = TALK.turns
    silent = replace(TALK, turns=(first, replace(reply, has_loss=False), again))
    assert trained(encoder, encoder.example(silent)) == ["yes<|im_end|>"]


def test_special_tokens_in_texts_stay_texts(encoder: Encoder) -> None:
    named = talk("n", "Say <|im_end|> or <|image_pad|>.", "<|im_end|> it is", "Now?", "<|im_start|>")
    example = encoder.example(named)
    ids, _ = example.ids_and_labels
    control = [
        encoder.tokenizer.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|im_start|>", "<|image_pad|>")
    ]
    assert [ids.tolist().count(token) for token in control] == [5, 5, 0]
    assert trained(encoder, example) == ["<|im_end|> it is<|im_end|>", "<|im_start|><|im_end|>"]


def test_a_system_prompt_is_read_by_all_and_replaced_by_an_items_own(qwen: Path) -> None:
    processor = load_processor(ModelConfig(path=str(qwen)))
    given = Encoder(processor, system_prompt="Be brief.")
    first, second = (
        given.tokenizer.decode(given.prompt(sample).tokens["input_ids"])
        for sample in (talk("a", "Hi?", "A"), talk("b", "Hi?", "A", system="Be long."))
    )
    assert first.startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert second.startswith("<|im_start|>system\nBe long.<|im_end|>")


def test_counts_without_pictures_agree_with_what_is_encoded(encoder: Encoder) -> None:
    pictures = encoder.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    for sample in TALKS:
        for choice in ((TrainOn.all, False), (TrainOn.all, True), (TrainOn.last, False)):
            example = encoder.example(sample, *choice)
            shown = int(example.prompt.tokens["input_ids"].eq(pictures).sum()) - len(sample.images)
            assert encoder.counts(sample, *choice) == (example.length - shown, example.trained)
            assert encoder.trained(sample, *choice) == example.trained
        assert encoder.length_bound(sample) >= encoder.example(sample).length


def test_a_length_is_estimated_from_the_size_of_the_pictures(encoder: Encoder) -> None:
    for side in (64, 224, 320, 448):
        sample = talk("s", (picture(side, side), "What is it?"), "A")
        assert encoder.estimated_length(sample) == pytest.approx(encoder.example(sample).length, rel=0.1)


def test_a_length_is_bounded_where_a_large_picture_is_cut_into_more_tiles_than_a_small_one(tmp_path: Path) -> None:
    # As InternVL3 is published: tiles of 448, up to twelve; the toy gives each four tokens.
    processor = load_processor(ModelConfig(path=str(FAMILIES["internvl"](tmp_path / "internvl"))))
    pixels = processor.image_processor
    pixels.size, pixels.max_patches, pixels.crop_to_patches = {"height": 448, "width": 448}, 12, True
    for limit in (None, 1344 * 1344):
        encoder = Encoder(processor, limit)
        lengths = {}
        for width, height in ((448, 448), (896, 896), (1344, 1344), (1792, 448), (1792, 1344)):
            shown = picture_of(width, height)
            sample = talk("s", (shown, "What is it?"), "A")
            lengths[width, height] = encoder.example(sample).length
            assert encoder.length_bound(sample) >= lengths[width, height]
        assert lengths[1344, 1344] > lengths[448, 448] + 20
        square = talk("s", (picture_of(1344, 1344), "What is it?"), "A")
        assert encoder.estimated_length(square) == pytest.approx(lengths[1344, 1344], abs=2)


def picture_of(width: int, height: int) -> ImageRef:
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return ImageRef("memory", f"{width}x{height}.png", stream.getvalue())


def test_rows_of_a_batch_end_together_and_hold_what_they_hold_alone(encoder: Encoder) -> None:
    examples = [encoder.example(sample) for sample in TALKS]
    batch = batch_examples(examples, encoder.pad_id)
    width = batch["input_ids"].shape[1]
    assert width == max(example.length for example in examples)
    for row, example in enumerate(examples):
        ids, labels = example.ids_and_labels
        kept = batch["attention_mask"][row] == 1
        assert torch.equal(batch["input_ids"][row][kept], ids)
        assert int(kept.sum()) == example.length
        assert torch.equal(batch["labels"][row][batch["labels"][row] != IGNORED], labels[labels != IGNORED])
        tail = batch["labels"].shape[1]
        assert torch.equal(batch["labels"][row][-min(tail, len(labels)) :], labels[-tail:])


def test_an_item_that_the_template_does_not_take_is_named(encoder: Encoder) -> None:
    wrong = talk("odd one", "a\ufdd0b", "A")
    with pytest.raises(UserError, match="Item 'odd one': its text holds the noncharacter"):
        encoder.prompt(wrong)


def test_an_item_whose_answers_cannot_be_written_is_named(encoder: Encoder) -> None:
    wrong = replace(talk("odd one", "What?", "A"), references=("A", "a\ufdd0b"))
    with pytest.raises(UserError, match="Item 'odd one': its text holds the noncharacter"):
        encoder.longest_answer(wrong)
    assert encoder.longest_answer(replace(wrong, references=("A", "red hat"))) == len(encoder.answer_ids("red hat"))


def test_what_the_template_writes_before_a_reply_is_not_what_was_said(qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(WITHOUT_THOUGHTS)
    thinks = Encoder(load_processor(ModelConfig(path=str(qwen), chat_template=str(tmp_path / "own.jinja"))))
    written = thinks.tokenizer.decode(thinks.answer_ids("A hat."), skip_special_tokens=True)
    assert written == "<think>\n\n</think>\n\nA hat."
    assert thinks.strip_reply(written) == "A hat."
    assert Encoder(load_processor(ModelConfig(path=str(qwen)))).strip_reply(" A hat. ") == "A hat."


def test_where_a_template_drops_earlier_thoughts_last_replies_alone_are_trained(qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(WITHOUT_THOUGHTS)
    encoder = Encoder(load_processor(ModelConfig(path=str(qwen), chat_template=str(tmp_path / "own.jinja"))))
    thoughts = talk("t", "What?", "<think>Hm.</think>A hat.", "Why?", "<think>Well.</think>So.")
    shown = encoder.tokenizer.decode(encoder.prompt(thoughts).tokens["input_ids"])
    assert "Hm." not in shown
    assert "A hat." in shown
    with pytest.raises(UserError, match=r"Item 't': the chat template changes its reply .*recipe\.train_on=last"):
        encoder.example(thoughts)
    assert trained(encoder, encoder.example(thoughts, TrainOn.last)) == ["<think>\nWell.\n</think>\n\nSo.<|im_end|>"]
    plain = talk("p", "What?", "A hat.", "Why?", "So.")
    assert trained(encoder, encoder.example(plain)) == ["A hat.<|im_end|>", "<think>\n\n</think>\n\nSo.<|im_end|>"]


def test_a_model_without_a_template_takes_one_question(tmp_path: Path) -> None:
    encoder = Encoder(load_processor(ModelConfig(path=str(FAMILIES["paligemma"](tmp_path / "p")))))
    shown = encoder.prompt(Sample("x", (Turn(Speaker.user, (picture(1), "\nWhat?")),), "A", TALK.kind))
    assert shown.length
    for wrong in (TALK, Sample("y", (Turn(Speaker.user, ("Left ", picture(1))),), "A", TALK.kind)):
        with pytest.raises(UserError, match="has no chat template"):
            encoder.prompt(wrong)


def shape(name: str, width: int, height: int) -> Sample:
    held = io.BytesIO()
    Image.new("RGB", (width, height), "navy").save(held, "PNG")
    image = ImageRef("table", name, held.getvalue())
    return Sample.question("narrow", "What?", "A", AnswerKind.text, (image,))


@pytest.mark.parametrize("size", [(1000, 4), (3, 900)])
def test_a_shape_that_a_processor_refuses_names_item_and_picture(encoder: Encoder, size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"Item 'narrow' with 'rule.png': .* aspect ratio"):
        encoder.encode(shape("rule.png", *size))


def test_a_shape_that_a_processor_would_enlarge_beyond_bounds_is_refused(tmp_path: Path) -> None:
    processor = load_processor(ModelConfig(path=str(FAMILIES["llava"](tmp_path / "llava"))))
    processor.image_processor.size = {"shortest_edge": 336}
    with pytest.raises(UserError, match=r"Item 'narrow': picture 'rule.png' is 20000 x 1, .* over 100,000,000 pixels"):
        Encoder(processor).encode(shape("rule.png", 20_000, 1))
    Encoder(processor).encode(shape("strip.png", 40, 1))


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), OverflowError("too large"), IndexError("x")])
def test_whatever_a_processor_raises_names_item_and_picture(
    encoder: Encoder, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(encoder, "_marking_processor", fails)
    with pytest.raises(UserError, match=r"Item 'narrow' with 'rule.png': the model's processor does not take it"):
        encoder.encode(shape("rule.png", 8, 8))


def test_an_item_without_a_picture_is_refused_by_name_where_a_model_needs_one(tmp_path: Path) -> None:
    encoder = Encoder(load_processor(ModelConfig(path=str(FAMILIES["paligemma"](tmp_path / "paligemma")))))
    blind = Sample.question("told", "What?", "A", AnswerKind.text)
    with pytest.raises(UserError, match="Item 'told' shows no picture, and this kind of model needs one"):
        encoder.encode(blind)
