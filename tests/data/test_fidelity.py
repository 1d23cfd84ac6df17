"""The comparison with other trainers: its conversations, its measure of a difference, and our side by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fidelity_causes import FACTORY, SAME, UNEXPLAINED, Case, cause_of
from benchmarks.fidelity_compare import Difference, Encoding, differences
from benchmarks.fidelity_families import FAMILIES
from benchmarks.fidelity_items import SPELLED, conversations, factory_row, trl_row
from forgetbench.config import ModelConfig
from forgetbench.core.records import AnswerKind, Part, Sample, Speaker, Turn
from forgetbench.data.collate import Encoder
from forgetbench.models.pretrained import load_processor

# A first token of its own, a blank before each stretch between special tokens: Llama's tokenizer, 4 tokens a picture.
LLAVA = (
    "<s>▁Be▁brief.▁USER:▁Look:▁" + "<image>" * 4 + "▁▁red?▁ASSISTANT:",
    "▁yes</s>",
    "▁USER:▁And<0x0A>▁ASSISTANT:",
    "▁<0x0A>no</s>",
)
# A picture of 84x56 pixels is 3 by 2 blocks of 28x28; the line break behind an end is trained.
QWEN = (
    "<|im_start|>systemĊBeĠbrief.<|im_end|>Ċ<|im_start|>userĊLook:Ġ<|vision_start|>"
    + "<|image_pad|>" * 6
    + "<|vision_end|>Ġred?<|im_end|>Ċ<|im_start|>assistantĊ",
    "yes<|im_end|>Ċ",
    "<|im_start|>userĊAndĊ<|im_end|>Ċ<|im_start|>assistantĊ",
    "Ċno<|im_end|>Ċ",
)
GEMMA = (
    "<bos><start_of_turn>user\nBe▁brief.\n\nLook:▁\n\n<start_of_image>"
    + "<image_soft_token>" * 4
    + "<end_of_image>\n\n▁red?<end_of_turn>\n<start_of_turn>model\n",
    "yes<end_of_turn>\n",
    "<start_of_turn>user\nAnd\n<end_of_turn>\n<start_of_turn>model\n",
    "\nno<end_of_turn>\n",
)
EncoderOf = Callable[[int], Encoder]


@pytest.fixture(scope="module")
def encoder_of(tmp_path_factory: pytest.TempPathFactory) -> EncoderOf:
    made: dict[int, Encoder] = {}

    def encoder(number: int) -> Encoder:
        if number not in made:
            family, folder = FAMILIES[number], tmp_path_factory.mktemp("checkpoint")
            family.build(folder)
            made[number] = Encoder(
                load_processor(ModelConfig(path=str(folder), chat_template=str(family.template(SAME))))
            )
        return made[number]

    return encoder


def encoding(encoder: Encoder, sample: Sample) -> Encoding:
    ids, labels = encoder.example(sample, train_after_end=True).ids_and_labels
    return Encoding.of(ids.tolist(), labels.tolist(), encoder.tokenizer.convert_ids_to_tokens)


@pytest.mark.parametrize(("number", "expected"), [(0, LLAVA), (1, QWEN), (2, GEMMA)])
def test_a_conversation_of_two_questions_reads_as_its_template_says_and_trains_both_replies(
    number: int, expected: tuple[str, ...], encoder_of: EncoderOf, tmp_path: Path
) -> None:
    image = next(
        image for sample in conversations(tmp_path) for image in sample.images if image.name == "picture_1.png"
    )
    turns = (
        Turn(Speaker.system, ("Be brief.",)),
        Turn(Speaker.user, ("Look: ", image, " red?")),
        Turn(Speaker.assistant, ("yes",)),
        Turn(Speaker.user, ("And\n",)),
    )
    encoded = encoding(encoder_of(number), Sample("one", turns, "\nno", AnswerKind.text))
    stretches = [""]
    for token, trained, before in zip(encoded.tokens, encoded.trained, (False, *encoded.trained), strict=False):
        if trained != before:
            stretches.append("")
        stretches[-1] += token
    assert tuple(stretches) == expected


@pytest.mark.parametrize("number", range(len(FAMILIES)))
def test_a_text_that_spells_a_control_token_adds_none(number: int, encoder_of: EncoderOf, tmp_path: Path) -> None:
    def plain(part: Part) -> Part:
        return re.sub("|".join(map(re.escape, SPELLED)), "plain", part) if isinstance(part, str) else part

    encoder = encoder_of(number)
    special = set(encoder.tokenizer.all_special_tokens)
    n_spelled = 0
    for sample in conversations(tmp_path):
        turns = tuple(replace(turn, parts=tuple(map(plain, turn.parts))) for turn in sample.turns)
        twin = replace(sample, turns=turns, answer=str(plain(sample.answer)))
        if twin == sample:
            continue
        n_spelled += 1
        control, expected = (
            [token for token in encoding(encoder, any_sample).tokens if token in special]
            for any_sample in (sample, twin)
        )
        assert control == expected, sample.id
    assert n_spelled == 39  # of 40: a picture cuts one in two


def test_the_conversations_are_the_same_every_time_and_hold_what_they_promise(tmp_path: Path) -> None:
    samples = conversations(tmp_path)
    assert samples == conversations(tmp_path)
    assert {sum(turn.speaker is Speaker.user for turn in sample.turns) for sample in samples} == set(range(1, 9))
    assert {len(sample.images) for sample in samples} == {0, 1, 2, 3}
    assert {sample.turns[0].speaker for sample in samples} == {Speaker.system, Speaker.user}
    for sample in samples:
        factory, trl = factory_row(sample), trl_row(sample)
        spelled = sum("Put <image> where" in message["content"] for message in factory["messages"])
        marks = sum(message["content"].count("<image>") for message in factory["messages"])
        parts = [part["type"] for message in trl["messages"] for part in message["content"]]
        assert marks - spelled == parts.count("image") == len(factory["images"]) == len(trl["images"])


def test_differences_are_stretches_of_other_tokens_or_of_other_losses() -> None:
    ours = Encoding(("<s>", "a", "b", "c", "d"), (False, False, True, True, True))
    theirs = Encoding(("a", "x", "y", "c", "d"), (False, True, True, False, True))
    first, tokens, losses = differences(ours, theirs, "<s>")
    assert first == Difference(("<s>",), (), (), ("a", "b", "c"))
    assert tokens == Difference(("b",), ("x", "y"), ("a",), ("c", "d"))
    assert losses == Difference(("c",), ("c",), ("a", "b"), ("d",), "ours")
    assert differences(ours, ours) == []


def test_labels_of_other_tokens_are_refused() -> None:
    assert Encoding.of([5, 6], [-100, 6], str) == Encoding(("5", "6"), (False, True))
    with pytest.raises(ValueError, match="other tokens"):
        Encoding.of([5, 6], [-100, 5], str)


def test_only_a_difference_of_a_known_kind_is_explained() -> None:
    sample = Sample.question("one", "Write </s> here.", "yes", AnswerKind.text)
    case = Case(sample, FACTORY, SAME, frozenset({"<s>", "</s>"}), "<s>")
    assert cause_of(Difference(("<", "/s>"), ("</s>",), ("Write",), ("here.",)), case).right == "forgetbench"
    assert cause_of(Difference(("here",), ("there",), ("Write",), ()), case) is UNEXPLAINED
    assert (
        cause_of(Difference((), ("</s>",), ("yes",), ()), replace(case, sample=replace(sample, turns=())))
        is UNEXPLAINED
    )
    assert cause_of(Difference(("yes",), ("yes",), (), (), "ours"), case) is UNEXPLAINED
