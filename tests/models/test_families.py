"""The contract that every family meets: parts, prompts, padding, likelihoods, text, training, checkpoints, pixels."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, ProcessorMixin

from forgetbench.config import ModelConfig, RecipeConfig, TrainOn
from forgetbench.core.errors import UserError
from forgetbench.core.part_words import MODULES, WORDS, part_word
from forgetbench.core.records import THOUGHT_MARKS, AnswerKind, Decoding, ImageRef, Precision, Prediction, Sample
from forgetbench.data.batching import batch_prompts
from forgetbench.data.collate import IGNORED, Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.data.pictures import decode_image
from forgetbench.evaluation.engine import Engine
from forgetbench.evaluation.settings import Settings
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.models.chat_template import ChatTemplate
from forgetbench.models.checkpoint import save_checkpoint
from forgetbench.models.features import PictureEncoder
from forgetbench.models.load import LoadedModel, load_model
from forgetbench.models.modules import module_of
from forgetbench.models.parts import (
    PARTS,
    audit,
    choose_trainable,
    covers,
    linear_layers,
    module_counts,
    part_of,
)
from forgetbench.training.loop import Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.prepare import prepare
from tests.support.asking import asked, choice, greedy
from tests.support.conversations import TALKS, talk, told_one_by_one
from tests.support.families import FAMILIES, MARKED

# transformers' PaliGemma processor hands tensors to numpy the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COPIES_NO_CACHE = {"minicpmv4_6", "minicpmv4_7"}
"""Families whose cache cannot be handed to several answers: the state of linear attention has no rows to choose."""
OTHER_REPLY_HEAD = {"llava_onevision"}
"""Families whose template writes the head of a reply in two ways: when it asks for one, and when it shows one."""
NEVER_TRAINED = {
    "llava": r"vision_tower\.(encoder\.layers\.1\.|post_layernorm)",  # features are those of the last layer but one
    "llava_onevision": r"vision_tower\.post_layernorm",  # features are those before it
}
"""Parameters that no loss depends on."""
FIXED_GRID = {"llava", "paligemma", "gemma3"}
"""Families that give every picture the same number of tokens."""
FEW = ["llava", "qwen3_vl", "minicpmv4_6"]
"""Positions in one and in three dimensions, and a cache of its own kind: all that generating can trip over."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module", params=MARKED)
def loaded(request: pytest.FixtureRequest, folder: Path) -> LoadedModel:
    """Read-only: tests that train take a copy of their own."""
    path = folder / request.param
    return load_model(ModelConfig(path=str(path if path.exists() else FAMILIES[request.param](path))))


@pytest.fixture
def fresh(loaded: LoadedModel, folder: Path) -> LoadedModel:
    return load_model(ModelConfig(path=str(folder / loaded.name)))


@pytest.fixture
def encoder(loaded: LoadedModel) -> Encoder:
    return Encoder(loaded.processor)


def has_template(loaded: LoadedModel) -> bool:
    return loaded.processor.chat_template is not None


@cache
def picture(index: int, width: int, height: int) -> ImageRef:
    """One colour throughout; -1 is noise."""
    colour = random.Random(index).randbytes(3)
    image = Image.new("RGB", (width, height), tuple(colour))
    image.putpixel((index % width, 0), (255, 255, 255))
    if index == -1:
        image = Image.frombytes("RGB", (width, height), random.Random(0).randbytes(3 * width * height))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return ImageRef("memory", f"{index}.png", stream.getvalue())


OPTIONS = {
    AnswerKind.letter: (("red", "green", "blue", "yellow"), ("red", "green")),
    AnswerKind.option: (("yes", "no"), ("red", "dark red", "light blue"), ("black", "blue", "green")),
}
SIZES = ((20, 20), (40, 20), (17, 33), (30, 10))


def items(loaded: LoadedModel, count: int = 9) -> list[Sample]:
    """Letters and words, short and long prompts, pictures of four sizes; some items have none or two."""
    samples = []
    for i in range(count):
        kind = AnswerKind.letter if i % 3 else AnswerKind.option
        options = OPTIONS[kind][i % len(OPTIONS[kind])]
        images = [picture(i, *SIZES[i % 4])]
        if has_template(loaded) and i % 5 == 2:
            images = []
        if has_template(loaded) and i % 5 == 4:
            images.append(picture(100 + i, *SIZES[(i + 1) % 4]))
        prompt = "What is in this picture? " + "Answer directly. " * (i % 4) + ", ".join(options)
        answer = options[0] if kind is AnswerKind.option else "A"
        samples.append(Sample.question(str(i), prompt, answer, kind, tuple(images), (answer,), options))
    return samples


def rendered(loaded: LoadedModel, sample: Sample, answer: str | None = None) -> str:
    """The conversation as the processor itself writes it."""
    if not has_template(loaded):
        return "<image>" * len(sample.images) + sample.prompt
    content = [{"type": "image"}] * len(sample.images) + [{"type": "text", "text": sample.prompt}]
    turns = [{"role": "user", "content": content}]
    if answer is not None:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return loaded.processor.apply_chat_template(turns, add_generation_prompt=answer is None, tokenize=False)


def processed(loaded: LoadedModel, samples: Sequence[Sample], **kwargs: object) -> dict[str, Tensor]:
    """What the processor makes of whole conversations, padded on the left by its own tokenizer."""
    text = [rendered(loaded, sample) for sample in samples]
    bos = loaded.processor.tokenizer.bos_token
    images = [[decode_image(image) for image in sample.images] for sample in samples]
    features = loaded.processor(
        text=text,
        images=images if any(images) else None,
        return_tensors="pt",
        padding=True,
        padding_side="left",
        add_special_tokens=not (bos and text[0].startswith(bos)),
        **kwargs,
    )
    return {key: value for key, value in features.items() if key != "labels"}


def pictures_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Picture tensors, tiles in one row, without tiles that are padding."""
    sizes = ("image_grid_thw", "target_sizes", "image_sizes", "batch_num_images")
    tensors = {key: batch[key] for key in sizes if key in batch}
    values = batch["pixel_values"]
    if values.ndim < 5:
        return {**tensors, "pixel_values": values}
    flat = values.flatten(0, 1)
    real = flat.flatten(1).any(1)
    if "pixel_attention_mask" in batch:
        tensors["mask"] = batch["pixel_attention_mask"].flatten(0, 1)[real]
    return {**tensors, "pixel_values": flat[real]}


@torch.no_grad()
def naive_logprob(loaded: LoadedModel, sample: Sample, candidate: Sequence[int]) -> float:
    """One candidate of one item: a full forward pass without padding, cache or positions of ours."""
    inputs = processed(loaded, [sample])
    n, extra = inputs["input_ids"].shape[1], torch.tensor([candidate])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], extra], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "token_type_ids" in inputs:
        # PaliGemma's answers are of type 1; elsewhere 1 is a picture.
        answer_type = torch.full_like(extra, 0 if has_template(loaded) else 1)
        inputs["token_type_ids"] = torch.cat([inputs["token_type_ids"], answer_type], 1)
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(extra)], 1)
    logprobs = loaded.model(**inputs, use_cache=False).logits[0, n - 1 : -1].log_softmax(-1)
    return float(logprobs.gather(1, extra.T).sum())


def ask(
    loaded: LoadedModel, samples: Sequence[Sample], batch_size: int, feature_bytes: int = 1 << 30
) -> list[tuple[float, ...]]:
    engine = Engine(loaded, Encoder(loaded.processor), feature_bytes)
    logprobs = [prediction.option_logprobs for prediction in asked(loaded, samples, choice(batch_size), engine)]
    assert all(logprobs)
    return logprobs


def largest_gap(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    pairs = [
        (x, y)
        for first_values, second_values in zip(first, second, strict=True)
        for x, y in zip(first_values, second_values, strict=True)
    ]
    return max(abs(x - y) for x, y in pairs)


def test_every_parameter_belongs_to_exactly_one_part_and_no_part_is_empty(loaded: LoadedModel) -> None:
    counts = audit(loaded.model)
    assert counts.total == sum(parameter.numel() for parameter in loaded.model.parameters())
    assert [count.part for count in counts.parts if count.total] == list(PARTS)


@pytest.mark.parametrize(
    "model_type",
    ["llava_next", "qwen3_5", "mistral3", "lfm2_vl", "mllama", "glm4v"],
)
def test_families_without_a_tiny_checkpoint_here_have_every_parameter_in_one_part(model_type: str) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(model_type))
    named = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert {part_of(name) for name in named} == set(PARTS)
    assert [name for name in named if module_of(name, part_of(name)) is None] == []


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("model.language_model.layers.0.mlp.gate_up_proj.weight", "mlp_gate_up"),  # both in one tensor
        ("model.language_model.layers.0.mlp.experts.gate_up_proj", "mlp_gate_up"),  # experts in one tensor
        ("model.language_model.layers.0.mlp.experts.gate_up_proj_bias", "mlp_gate_up"),
        ("model.language_model.layers.0.mlp.experts.down_proj", "mlp_down"),
        ("model.language_model.layers.0.mlp.experts.11.down_proj.weight", "mlp_down"),
        ("model.language_model.layers.0.mlp.shared_experts.up_proj.weight", "mlp_gate_up"),
        ("model.language_model.layers.0.mlp.gate.weight", "other"),  # a router, and no gate of the block
        ("model.language_model.layers.0.block_sparse_moe.experts.3.w2.weight", "mlp_down"),
        ("model.language_model.layers.0.linear_attn.A_log", "attention"),
        ("model.language_model.layers.0.linear_attn.norm.weight", "norms"),
        ("model.language_model.layers.0.self_attn.q_norm.weight", "norms"),
        ("model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight", "attention"),
        ("model.language_model.layers.0.self_attn.q_proj.base_layer.bias", "attention"),
        ("model.language_model.layers.0.cross_attn_attn_gate", "other"),
        ("model.language_model.layers.0.conv.in_proj.weight", "other"),
        ("model.text_model.embed_tokens.weight", "embeddings"),
        ("model.visual.blocks.3.attn.qkv.bias", "attention"),
        ("model.vision_tower.encoder.layer.0.lambda_1", "other"),
        ("model.vision_tower.pre_layrnorm.bias", "norms"),
        ("model.connector.perceiver_resampler.latents", "other"),
        ("model.connector.perceiver_resampler.layers.0.self_attn.q_proj.weight", "attention"),
        ("model.visual.merger.mlp.0.weight", "mlp"),
        ("model.language_model.layers.0.something_new.weight", None),
    ],
)
def test_names_of_many_families_belong_to_the_module_that_they_are_part_of(name: str, module: str | None) -> None:
    assert module_of(name, part_of(name)) == module


def test_every_parameter_belongs_to_exactly_one_module_and_modules_sum_up_to_their_part(loaded: LoadedModel) -> None:
    single = [part_word(f"{part}.{module}") for part in PARTS for module in MODULES[part]]
    single = [word for word in single if len(word.modules) == 1]
    for name, _ in loaded.model.named_parameters():
        assert sum(covers(word, name) for word in single) == 1, name
    counts = module_counts(loaded.model)
    for part in audit(loaded.model).parts:
        assert sum(count.total for count in counts if count.part.startswith(part.part)) == part.total


def test_every_word_frees_its_own_weights_or_is_refused_by_name(loaded: LoadedModel) -> None:
    layered = [f"{part}.layers_1_to_1{module}" for part in ("vision", "language") for module in ("", ".attention")]
    refused = set()
    for word in (*WORDS, *layered):
        named = any(covers(part_word(word), name) for name, _ in loaded.model.named_parameters())
        if not named:
            with pytest.raises(UserError, match=re.escape(f"'{word}'")):
                choose_trainable(loaded.model, [word])
            refused.add(word)
            continue
        choose_trainable(loaded.model, [word])
        names = audit(loaded.model, [word]).names
        assert names
        assert set(names) == {name for name, _ in loaded.model.named_parameters() if covers(part_word(word), name)}
        assert audit(loaded.model, [word]).label == word
    tied = loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
    assert ("language.head" in refused) is tied
    lacking = {"projector.attention", "projector.norms", "projector.other", "vision.other", "language.other"}
    assert refused <= {*lacking, "language.head"}


def test_layers_beyond_the_last_are_refused_with_how_many_there_are(loaded: LoadedModel) -> None:
    with pytest.raises(UserError, match="language part has 2 layers, from 0 to 1"):
        choose_trainable(loaded.model, ["language.layers_1_to_2.mlp"])


def test_a_name_that_belongs_to_no_module_stops_words_of_its_part_alone(fresh: LoadedModel) -> None:
    layers = next(
        module for name, module in fresh.model.named_modules() if name.endswith(("language_model", "text_model"))
    )
    layers.layers[0].something_new = torch.nn.Linear(2, 2)
    choose_trainable(fresh.model, ["language", "vision.attention"])
    with pytest.raises(UserError, match=r"something_new.*belongs to no known module"):
        choose_trainable(fresh.model, ["language.attention"])


def test_layers_of_two_stacks_are_not_numbered_through() -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model("mllama"))
    choose_trainable(model, ["vision.attention"])
    with pytest.raises(UserError, match="several stacks"):
        choose_trainable(model, ["vision.layers_0_to_3"])


def test_an_unknown_prefix_is_refused() -> None:
    with pytest.raises(UserError, match="belongs to no known part"):
        part_of("model.audio_tower.layers.0.weight")


@pytest.mark.parametrize("part", PARTS)
def test_choosing_one_part_frees_that_part_and_nothing_else(loaded: LoadedModel, part: str) -> None:
    choose_trainable(loaded.model, [part])
    for name, parameter in loaded.model.named_parameters():
        assert parameter.requires_grad is (part_of(name) == part), name
    assert audit(loaded.model).label == part


def test_the_last_language_layers_can_be_freed_alone(loaded: LoadedModel) -> None:
    choose_trainable(loaded.model, ["language"], last_layers=1)
    names = audit(loaded.model).names
    assert names
    assert all(".layers.1." in name and part_of(name) == "language" for name in names)
    with pytest.raises(UserError, match="has 2 layers"):
        choose_trainable(loaded.model, ["language"], last_layers=3)


def test_linear_layers_are_looked_up_inside_their_part(loaded: LoadedModel) -> None:
    names = linear_layers(loaded.model, "language", ["up_proj"])
    assert len(names) == 2
    assert all(part_of(name + ".") == "language" for name in names)


def test_the_processor_reads_pictures_without_torchvision(loaded: LoadedModel) -> None:
    assert isinstance(loaded.processor, ProcessorMixin)
    assert loaded.processor.image_processor is not None


@pytest.mark.parametrize("which", [slice(0, 9), slice(2, 3)], ids=str)
def test_prompts_encoded_one_by_one_equal_the_processors_padded_batch(
    loaded: LoadedModel, encoder: Encoder, which: slice
) -> None:
    samples = items(loaded)[which]
    theirs = processed(loaded, samples)
    ours = batch_prompts([encoder.prompt(sample) for sample in samples], encoder.pad_id)
    assert "labels" not in ours
    for key in theirs.keys() & {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"}:
        assert torch.equal(ours[key], theirs[key]), key
    if "pixel_values" in theirs:
        mine = pictures_of(ours)
        for key, value in pictures_of(theirs).items():
            # A prompt without a picture shows none; only in a batch of the processor's is that a number.
            expected = value[value > 0] if key == "batch_num_images" else value
            assert torch.equal(mine[key], expected), key
    else:
        assert "pixel_values" not in ours
    with torch.no_grad():
        gap = loaded.model(**ours).logits[:, -1] - loaded.model(**theirs).logits[:, -1]
    assert gap.abs().max() < 1e-4


def test_log_probabilities_do_not_depend_on_batch_size_or_order(loaded: LoadedModel) -> None:
    samples = items(loaded)
    single = ask(loaded, samples, 1)
    assert largest_gap(single, ask(loaded, samples, 32)) < 1e-4
    shuffled = random.Random(0).sample(range(len(samples)), len(samples))
    again = dict(zip(shuffled, ask(loaded, [samples[i] for i in shuffled], 7), strict=True))
    again_in_order = [again[i] for i in range(len(samples))]
    assert largest_gap(single, again_in_order) < 1e-4
    best = [logprobs.index(max(logprobs)) for logprobs in single]
    assert best == [logprobs.index(max(logprobs)) for logprobs in again_in_order]
    assert len({round(logprobs[0], 3) for logprobs in single}) > len(samples) / 2


def test_log_probabilities_equal_a_naive_forward_pass(loaded: LoadedModel, encoder: Encoder) -> None:
    samples = items(loaded)
    naive = [
        [naive_logprob(loaded, sample, encoder.answer_ids(text, end=False)) for text in sample.candidates]
        for sample in samples
    ]
    for sample, expected, logprobs in zip(samples, naive, ask(loaded, samples, 7), strict=True):
        ids = [encoder.answer_ids(text, end=False) for text in sample.candidates]
        shift = 0.0 if max(map(len, ids)) == 1 or len({i[:-1] for i in ids}) > 1 else expected[0] - logprobs[0]
        assert largest_gap([expected], [[value + shift for value in logprobs]]) < 1e-4


def test_an_option_that_begins_another_is_scored_with_the_end_of_the_turn(
    loaded: LoadedModel, encoder: Encoder
) -> None:
    options = ("red", "red and blue", "green")
    images = (picture(3, *SIZES[0]),)
    sample = Sample.question("p", "Which colours?", "red", AnswerKind.option, images, ("red",), options)
    expected = [naive_logprob(loaded, sample, encoder.answer_ids(text)) for text in options]
    bare = [naive_logprob(loaded, sample, encoder.answer_ids(text, end=False)) for text in options]
    assert bare[0] >= bare[1]  # whatever a model has learnt
    assert largest_gap([expected], ask(loaded, [sample], 1)) < 1e-4
    assert largest_gap([expected], [bare]) > 1e-3


def test_the_picture_and_the_question_both_matter(loaded: LoadedModel) -> None:
    base = items(loaded)[1]
    other_picture = Sample.question("p", base.prompt, "A", base.kind, (picture(7, *SIZES[1]),), ("A",), base.options)
    other_prompt = Sample.question("q", "Is it?", "A", base.kind, base.images, ("A",), base.options)
    logprobs = ask(loaded, [base, other_picture, other_prompt], 1)
    assert largest_gap([logprobs[0]], [logprobs[1]]) > 1e-3
    assert largest_gap([logprobs[0]], [logprobs[2]]) > 1e-3


def test_greedy_answers_do_not_depend_on_the_batch_size(loaded: LoadedModel) -> None:
    samples = items(loaded)
    texts = [[prediction.text for prediction in asked(loaded, samples, greedy(size))] for size in (1, 7)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1


@torch.no_grad()
def test_greedy_answers_are_the_likeliest_tokens_whatever_the_checkpoint_samples_with(
    loaded: LoadedModel, encoder: Encoder
) -> None:
    sample = items(loaded)[1]
    written: list[int] = []
    ends = loaded.model.generation_config.eos_token_id
    while len(written) < 6 and ends not in written:
        batch = batch_prompts([encoder.prompt(sample)], encoder.pad_id, [(*written, 0)])
        batch.pop("labels")
        written.append(int(loaded.model(**batch, use_cache=False).logits[0, -2].argmax()))
    expected = encoder.tokenizer.decode(written, skip_special_tokens=True).strip()
    assert asked(loaded, [sample], greedy(1))[0].text == expected


ODD_GENERATION = {
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 6,
    "min_length": 500,
    "suppress_tokens": list(range(3, 60)),
    "begin_suppress_tokens": list(range(3, 60)),
    "forced_bos_token_id": 61,
    "forced_eos_token_id": 62,
    "bad_words_ids": [[11]],
    "encoder_repetition_penalty": 2.0,
    "exponential_decay_length_penalty": [1, 5.0],
    "guidance_scale": 3.0,
    "sequence_bias": [[[12], 50.0]],
    "num_beams": 3,
    "do_sample": True,
    "temperature": 5.0,
    "max_time": 0.0,
}


@pytest.mark.parametrize("loaded", FEW, indirect=True)
def test_greedy_answers_do_not_depend_on_the_checkpoints_generation_settings(loaded: LoadedModel) -> None:
    samples, generation_config = items(loaded, 4), loaded.model.generation_config
    plain = [prediction.text for prediction in asked(loaded, samples, greedy(2))]
    loaded.model.generation_config = GenerationConfig(eos_token_id=generation_config.eos_token_id, **ODD_GENERATION)
    try:
        odd = [prediction.text for prediction in asked(loaded, samples, greedy(2))]
        assert loaded.model.generation_config.num_beams == 3  # it stays the model's own
    finally:
        loaded.model.generation_config = generation_config
    assert odd == plain
    assert any(plain)


@pytest.mark.parametrize("where", ["generation_config", "template"])
@pytest.mark.parametrize("loaded", FEW[:1], indirect=True)
def test_every_end_token_of_folder_and_template_ends_an_answer(
    loaded: LoadedModel, encoder: Encoder, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, generation_config = items(loaded, 4), loaded.model.generation_config
    plain = [prediction.text or "" for prediction in asked(loaded, samples, greedy(2))]
    ids = [encoder.tokenizer.encode(text, add_special_tokens=False) for text in plain]
    end = next(token_ids[1] for token_ids in ids if len(token_ids) > 2 and token_ids[0] != token_ids[1])
    if where == "template":
        form = replace(encoder.template.reply_form, end=encoder.tokenizer.decode([end]))
        monkeypatch.setattr(ChatTemplate, "reply_form", form)
    else:
        ends = (
            [generation_config.eos_token_id, end]
            if isinstance(generation_config.eos_token_id, int)
            else [*generation_config.eos_token_id, end]
        )
        monkeypatch.setattr(loaded.model, "generation_config", GenerationConfig(eos_token_id=ends))
    ended = [prediction.text or "" for prediction in asked(loaded, samples, greedy(2))]
    assert ended != plain
    for short, long in zip(ended, plain, strict=True):
        assert long.startswith(short)


@pytest.mark.parametrize("answer", ["A", "The answer is light blue."])
def test_prompt_and_answer_tokens_are_those_of_the_whole_conversation(
    loaded: LoadedModel, encoder: Encoder, answer: str
) -> None:
    sample = items(loaded)[1]
    ours = [*encoder.prompt(sample).tokens["input_ids"].tolist(), *encoder.answer_ids(answer)]
    tokenizer = encoder.tokenizer
    images = [[decode_image(image) for image in sample.images]]
    if not has_template(loaded):
        whole = loaded.processor(text=[rendered(loaded, sample)], images=images, suffix=[answer])["input_ids"][0]
        assert ours == list(whole)
        return
    head, text = rendered(loaded, sample), rendered(loaded, sample, answer)
    assert text.startswith(head) is (loaded.name not in OTHER_REPLY_HEAD)
    if loaded.name in OTHER_REPLY_HEAD:  # what answers is what the model was asked for
        text = head + text[text.rindex(answer) :]
    bos = tokenizer.bos_token
    special = not (bos and text.startswith(bos))
    whole = loaded.processor(text=[text], images=images, add_special_tokens=special, return_tensors="pt")["input_ids"]
    whole = whole[0].tolist()
    assert ours == whole[: len(ours)]
    assert not tokenizer.decode(whole[len(ours) :]).strip()
    assert ours[-1] == tokenizer.eos_token_id


def test_blanks_around_a_reply_are_kept_unless_the_template_drops_them(encoder: Encoder) -> None:
    dropped = encoder.template.trims_replies or not encoder.template.has_template
    assert (encoder.answer_ids(" yes\n") == encoder.answer_ids("yes")) is dropped


@torch.no_grad()
def test_answers_appended_to_a_padded_batch_score_as_they_do_alone(loaded: LoadedModel, encoder: Encoder) -> None:
    samples = items(loaded)[:5]
    answers = [encoder.answer_ids(text) for text in ("A", "dark red", "yes", "light blue", "B")]
    batch = batch_prompts([encoder.prompt(sample) for sample in samples], encoder.pad_id, answers)
    labels = batch.pop("labels")
    width = labels.shape[1]
    logprobs = loaded.model(**batch, use_cache=False).logits[:, -width - 1 : -1].log_softmax(-1)
    picked = logprobs.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels >= 0)
    for sample, answer, total in zip(samples, answers, picked.sum(-1), strict=True):
        assert abs(float(total) - naive_logprob(loaded, sample, answer)) < 1e-4


def test_no_state_leaks_from_one_batch_into_the_next(loaded: LoadedModel) -> None:
    first, second = items(loaded)[:5], items(loaded)[5:]
    fresh = ask(loaded, second, 4)
    engine = Engine(loaded, Encoder(loaded.processor))
    asked(loaded, first, choice(4), engine)
    asked(loaded, first[:3], greedy(4, 3), engine)
    assert [prediction.option_logprobs for prediction in asked(loaded, second, choice(4), engine)] == fresh


def test_picture_features_that_are_reused_change_nothing(loaded: LoadedModel) -> None:
    samples = items(loaded)
    without = ask(loaded, samples, 4, feature_bytes=0)
    engine = Engine(loaded, Encoder(loaded.processor))
    first, again = (
        [prediction.option_logprobs for prediction in asked(loaded, samples, choice(4), engine)] for _ in range(2)
    )
    assert PictureEncoder(loaded.model).usable
    assert first == again
    assert largest_gap(first, without) < 1e-5
    texts = [
        asked(loaded, samples, greedy(4), any_engine)
        for any_engine in (engine, Engine(loaded, Encoder(loaded.processor), 0))
    ]
    assert texts[0] == texts[1]


def test_candidates_that_go_on_from_one_prefix_score_as_whole_conversations(loaded: LoadedModel) -> None:
    assert loaded.reuses_prefix is (loaded.name not in COPIES_NO_CACHE)
    samples = [sample for sample in items(loaded, 12) if sample.kind is AnswerKind.option]
    whole = ask(replace(loaded, reuses_prefix=False), samples, 3)
    assert largest_gap(ask(loaded, samples, 3), whole) < 1e-4


@pytest.mark.parametrize("loaded", ["llava_onevision"], indirect=True)
def test_what_trains_does_not_show_in_a_bit_of_the_scores(fresh: LoadedModel) -> None:
    samples = items(fresh, 4)
    frozen = ask(replace(fresh, model=fresh.model.requires_grad_(False)), samples, 4)
    assert ask(replace(fresh, model=fresh.model.requires_grad_(True)), samples, 4) == frozen


@pytest.mark.parametrize("loaded", FEW, indirect=True)
def test_a_stop_text_ends_an_answer_and_is_left_out(loaded: LoadedModel) -> None:
    samples = items(loaded)
    plain = [prediction.text or "" for prediction in asked(loaded, samples, greedy(4))]
    stop = next(text[1:3] for text in plain if len(text) > 3)
    stopped = [prediction.text for prediction in asked(loaded, samples, greedy(4, stop=(stop,)))]
    assert stopped == [text.partition(stop)[0].strip() for text in plain]


@pytest.mark.parametrize("loaded", FEW, indirect=True)
def test_a_thought_that_is_longer_than_an_answer_may_be_is_read_whole_whatever_the_batch(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = items(loaded, 5)
    long = next(prediction.text or "" for prediction in asked(loaded, samples[:1], greedy(4, 24)))
    opening, closing = long[0], long[len(long) // 2 :][:2]
    engine = Engine(loaded, Encoder(loaded.processor), marks=[*THOUGHT_MARKS, (opening, closing)])

    def predict(size: int, **more: object) -> list[Prediction]:
        return asked(loaded, samples, greedy(size, 2, **more), engine)

    capped, whole = predict(4)[0].text or "", predict(4, max_thought_tokens=22)
    thought = long[: long.index(closing) + len(closing)]
    assert len(capped) < len(thought) < len(whole[0].text or "") < len(long)
    assert long.startswith(whole[0].text or "")
    assert predict(1, max_thought_tokens=22) == whole
    generate = loaded.model.generate
    monkeypatch.setattr(loaded.model, "generate", lambda **given: generate(**given | {"stopping_criteria": None}))
    assert predict(4, max_thought_tokens=22) == whole  # stopping early saves tokens and changes nothing


@pytest.mark.parametrize("loaded", FEW[:1], indirect=True)
def test_a_reply_says_whether_it_was_cut_off_whatever_the_batch(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = items(loaded)
    long = [prediction.text or "" for prediction in asked(loaded, samples, greedy(4, 12))]
    ids = [Encoder(loaded.processor).tokenizer.encode(text, add_special_tokens=False) for text in long]
    monkeypatch.setattr(loaded.model, "generation_config", GenerationConfig(eos_token_id=[ids[0][3]]))
    cut_off = [[prediction.cut_off for prediction in asked(loaded, samples, greedy(size, 6))] for size in (1, 4)]
    assert cut_off[0] == cut_off[1]
    assert set(cut_off[0]) == {True, False}
    assert [prediction.cut_off for prediction in asked(loaded, samples, choice(4))] == [None] * len(samples)


@pytest.mark.parametrize("loaded", FEW, indirect=True)
def test_samples_are_drawn_item_by_item_whatever_the_batch(loaded: LoadedModel) -> None:
    samples = items(loaded)
    drawn = [
        [
            prediction.text
            for prediction in asked(loaded, samples, Settings(Decoding.sample, "fp32", size, 6, (), 1.0, 0.9, seed))
        ]
        for size, seed in ((1, 0), (4, 0), (4, 1))
    ]
    assert drawn[0] == drawn[1]
    assert drawn[1] != drawn[2]


def test_pictures_of_equal_label_and_different_content_are_not_confused(loaded: LoadedModel, encoder: Encoder) -> None:
    base = items(loaded)[1]
    twin = ImageRef("memory", base.images[0].name, picture(9, *SIZES[1]).data)
    other = Sample.question("twin", base.prompt, "A", base.kind, (twin,), ("A",), base.options)
    first, second = (encoder.prompt(sample).pictures["pixel_values"] for sample in (base, other))
    assert not torch.equal(first, second)


def test_loading_twice_gives_the_same_digest(loaded: LoadedModel, folder: Path) -> None:
    again = load_model(ModelConfig(path=str(folder / loaded.name)))
    assert again.digest == loaded.digest


ANSWERS = ("A", "dark red", "The answer is light blue.")


def lessons(count: int = 6) -> list[Sample]:
    """Pictures of one size, some of them twice, with answers of one to many tokens."""
    return [
        Sample.question(
            str(i), "What is it? " * (1 + i % 2), ANSWERS[i % 3], AnswerKind.text, (picture(i % 4, 16, 16),)
        )
        for i in range(count)
    ]


def trainer(subject: LoadedModel, parts: Sequence[str], method: Method | None = None, **changes: Any) -> Trainer:
    values = {"lr": 1e-2, "batch_size": 4, "warmup": 0.0, "precision": Precision.fp32, **changes}
    recipe, method = RecipeConfig(parts=list(parts), **values), method or Method()
    prepare(subject.model, [recipe], method, seed=0)
    return Trainer(subject, Encoder(subject.processor), method, recipe, seed=0)


def trained(subject: LoadedModel, parts: Sequence[str], *args: Any, steps: int = 2, **changes: Any) -> Trainer:
    """After some steps on the lessons."""
    subject_trainer = trainer(subject, parts, *args, **changes)
    list(subject_trainer.run(stages(steps)))
    return subject_trainer


def stages(steps: int) -> list[Stage]:
    return [Stage("toy", MixedStream([WeightedSet("toy", lessons(), 1.0)], [], 0.0, seed=3), steps, "digest")]


def weights(model: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(before: dict[str, Tensor], model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def test_training_a_part_moves_all_of_it_and_nothing_else(fresh: LoadedModel) -> None:
    silent = re.compile(NEVER_TRAINED.get(fresh.name, "$^"))
    assert any(map(silent.search, weights(fresh.model))) is (fresh.name in NEVER_TRAINED)
    for part in PARTS:
        before = weights(fresh.model)
        trained(fresh, [part])
        expected = {name for name in before if part_of(name) == part and not silent.search(name)}
        assert moved(before, fresh.model) == expected, part


def test_the_loss_is_the_mean_over_answer_tokens_and_looks_at_nothing_else(fresh: LoadedModel) -> None:
    subject, samples = trainer(fresh, PARTS), lessons(4)
    encoder = Encoder(fresh.processor)
    ids = [encoder.answer_ids(sample.answer) for sample in samples]
    tokens = sum(map(len, ids))
    expected = (
        -sum(naive_logprob(fresh, sample, token_ids) for sample, token_ids in zip(samples, ids, strict=True)) / tokens
    )
    passes = subject.passes
    batch = passes.batch(samples)
    outputs = passes.forward(batch)
    outputs.logits = outputs.logits.detach().requires_grad_()
    loss = passes.loss(batch, outputs) / batch.answers
    assert batch.answers == tokens
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)
    loss.backward()
    reached = outputs.logits.grad.abs().sum(-1) > 0
    width = batch.labels.shape[1]
    assert torch.equal(reached[:, -width - 1 : -1], batch.labels != IGNORED)
    assert int(reached.sum()) == tokens


def test_features_that_training_reuses_change_no_bit(fresh: LoadedModel, folder: Path) -> None:
    other = load_model(ModelConfig(path=str(folder / fresh.name)))
    reusing, expected = trained(fresh, ["language"]), trained(other, ["language"], reuse_features=False)
    # Where this machine's kernels give a picture other bits in another place, nothing is reused.
    assert (reusing.passes.features.n_cached > 0) is reusing.passes.features.active
    assert not moved(weights(other.model), fresh.model)
    assert not expected.passes.features.active


@torch.no_grad()
def logits(subject: LoadedModel) -> Tensor:
    encoder = Encoder(subject.processor)
    batch = batch_prompts([encoder.prompt(sample) for sample in lessons(3)], encoder.pad_id)
    return subject.model.eval()(**batch, use_cache=False).logits


@pytest.mark.parametrize("method", [Method(), LoRA(rank=2)], ids=["full", "lora"])
def test_a_checkpoint_comes_back_to_the_bit_in_another_model(
    fresh: LoadedModel, folder: Path, tmp_path: Path, method: Method
) -> None:
    lora = isinstance(method, LoRA)
    parts = ["language"] if lora else PARTS
    subject = trainer(fresh, parts, method)
    base, before = logits(fresh), weights(fresh.model)
    list(subject.run(stages(2)))
    if lora:
        adapters = {name for name in before if ".lora_" in name}
        assert moved(before, fresh.model) == adapters
        assert {part_of(name) for name in adapters} == {"language"}
        assert len(adapters) == 2 * len(
            [layer_name for layer_name in linear_layers(fresh.model, "language") if "base_layer" in layer_name]
        )
    after = logits(fresh)
    assert not torch.equal(after, base)
    checkpoint = save_checkpoint(tmp_path, 2, subject.delta(), {"method": {}})

    other = load_model(ModelConfig(path=str(folder / fresh.name)))
    prepare(other.model, [RecipeConfig(lr=0.0, parts=list(parts))], method, seed=5)
    swap = WeightSwap(other.model)
    swap.to(checkpoint.delta())
    assert torch.equal(logits(other), after)
    swap.to({})
    assert torch.equal(logits(other), base)


def test_max_pixels_makes_pictures_smaller(loaded: LoadedModel) -> None:
    large = Sample.question("large", "What is it?", "A", AnswerKind.text, (picture(-1, 64, 32),))
    whole, same, small = (Encoder(loaded.processor, max_pixels).encode(large) for max_pixels in (None, 64 * 32, 16 * 8))
    assert whole.length == same.length
    if loaded.name in FIXED_GRID:
        assert small.length == whole.length
        assert not torch.equal(small.pictures["pixel_values"], whole.pictures["pixel_values"])
        return
    assert small.length < whole.length
    assert small.pictures["pixel_values"].numel() < whole.pictures["pixel_values"].numel()
    with torch.no_grad():
        loaded.model(**batch_prompts([whole, small], 0))  # the model finds as many tokens as it makes features


@pytest.fixture
def talks(loaded: LoadedModel) -> list[Sample]:
    """Conversations; the family without a template takes questions alone."""
    return [sample for sample in TALKS if has_template(loaded) or (sample.is_question and sample.images)]


def test_the_loss_of_a_conversation_is_the_sum_over_its_replies(fresh: LoadedModel, talks: list[Sample]) -> None:
    """Each as if it were asked for alone, though an item of several replies is one sequence."""
    subject, of_last = trainer(fresh, PARTS), trainer(fresh, PARTS, train_on=TrainOn.last)
    fresh.model.eval()
    for sample in talks:
        whole, n = loss_of(subject, [sample])
        parts = [loss_of(of_last, [reply]) for reply in told_one_by_one(sample)]
        assert n == sum(count for _, count in parts)
        if fresh.name not in OTHER_REPLY_HEAD:
            assert whole == pytest.approx(sum(loss for loss, _ in parts), rel=1e-4), sample.id


@torch.no_grad()
def loss_of(subject: Trainer, samples: Sequence[Sample]) -> tuple[float, int]:
    """Summed over tokens, and their number."""
    batch = subject.passes.batch(samples)
    assert batch.answers == int((batch.labels != IGNORED).sum())
    return float(subject.passes.loss(batch, subject.passes.forward(batch))), batch.answers


def test_a_conversations_loss_does_not_depend_on_its_batch(fresh: LoadedModel, talks: list[Sample]) -> None:
    subject = trainer(fresh, PARTS)
    fresh.model.eval()
    together, n = loss_of(subject, talks)
    single = [loss_of(subject, [sample]) for sample in talks]
    assert together == pytest.approx(sum(loss for loss, _ in single), rel=1e-4)
    assert n == sum(count for _, count in single)


def test_earlier_turns_are_context_when_an_answer_is_scored(loaded: LoadedModel) -> None:
    if not has_template(loaded):
        pytest.skip("takes one question")
    shown = (picture(3, 20, 20), "What is it?")
    options = ("red", "green")
    asked_twice = [
        replace(talk(str(i), shown, reply, "Which?", "A"), kind=AnswerKind.letter, options=options)
        for i, reply in enumerate(("It is red.", "It is green."))
    ]
    engine = Engine(loaded, Encoder(loaded.processor))
    together = asked(loaded, asked_twice, choice(2), engine)
    assert together[0].option_logprobs != together[1].option_logprobs
    for sample, prediction in zip(asked_twice, together, strict=True):
        (single,) = asked(loaded, [sample], choice(1), engine)
        assert prediction.option_logprobs == pytest.approx(single.option_logprobs, abs=1e-4)
