"""Models of real sizes with random weights made on the device, their processors, and items to train on and ask.

Nothing is downloaded: configurations are the published ones as far as sizes go, the tokenizer knows a few hundred
words of the same vocabulary, and pictures are prepared as the published processor prepares them.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from benchmarks.gpu.bits import checkpoint
from benchmarks.gpu.findings import Scope
from forgetbench.config import DataConfig, Dtype, FinetuneConfig, ModelConfig, RecipeConfig
from forgetbench.core.records import AnswerKind, ImageRef, Precision, Sample
from forgetbench.data.collate import Encoder
from forgetbench.methods.base import Method
from forgetbench.models.hidden import image_token
from forgetbench.models.load import LoadedModel
from forgetbench.models.memory import Setting, setting_of
from forgetbench.models.picture_sizes import PictureSize
from forgetbench.models.precision import resolve_attention
from forgetbench.models.pretrained import load_processor
from forgetbench.models.sizes import Sizes, sizes_of
from forgetbench.training.footprint import count_patches
from tests.support.published import CONFIGS

TINY_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "vocab_size": 1024,
}
OPTIONS = ("red", "green", "blue", "yellow")
TEXT_TOKENS = 64
"""Of a prompt, about; as many as `models plan` assumes."""


@dataclass(frozen=True)
class Shape:
    """A model, and the tokens of its pictures."""

    path: str
    """Its id on the Hub, which is not asked."""
    family: str
    """Of tests.support.families: where the tokenizer and the template come from."""
    side: int
    """Pixels of a prepared picture."""
    tiny_side: int
    tiny_vision: Mapping[str, Any]
    """Settings of the tiny form's tower."""
    heads: Mapping[str, Any]
    """Further settings that a configuration needs to run; both forms."""


SHAPES = {
    "llava_1_5_7b": Shape(
        "llava-hf/llava-1.5-7b-hf",
        "llava",
        336,
        56,
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
        {},
    ),
    "qwen2_5_vl_3b": Shape(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "qwen2_5_vl",
        448,
        112,
        {"hidden_size": 64, "intermediate_size": 128, "depth": 2, "num_heads": 4, "out_hidden_size": 64},
        {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    ),
}
"""By the names of conf/model."""


def processor(scope: Scope, name: str) -> Any:
    """Prepares pictures as the published one does."""
    shape = SHAPES[name]
    side = shape.tiny_side if scope.tiny else shape.side
    made = load_processor(ModelConfig(path=checkpoint(scope, shape.family)))
    if shape.family == "llava":
        made.image_processor.size = {"shortest_edge": side}
        made.image_processor.crop_size = {"height": side, "width": side}
        made.patch_size = 14
    else:
        made.image_processor.patch_size = 14
        made.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": side * side}
    return made


def configuration(scope: Scope, name: str, tokenizer: Any) -> Any:
    """The published configuration, small in the tiny form, with the tokens that the tokenizer has."""
    shape, config = SHAPES[name], CONFIGS[SHAPES[name].path]()
    text, vision = config.get_text_config(), config.vision_config
    if scope.tiny:
        for key, value in TINY_TEXT.items():
            setattr(text, key, value)
        for key, value in shape.tiny_vision.items():
            setattr(vision, key, value)
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[: text.num_hidden_layers]
    if shape.family == "llava":
        vision.image_size = shape.tiny_side if scope.tiny else shape.side
        config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    else:
        sections = [2, 3, 3] if scope.tiny else shape.heads["mrope_section"]
        text.rope_parameters = {**shape.heads, "mrope_section": sections}
        for key, token in (("image_token_id", "image_pad"), ("video_token_id", "video_pad")):
            setattr(config, key, tokenizer.convert_tokens_to_ids(f"<|{token}|>"))
        for key in ("vision_start", "vision_end"):
            setattr(config, f"{key}_token_id", tokenizer.convert_tokens_to_ids(f"<|{key}|>"))
    for holder in (config, text):
        holder.eos_token_id, holder.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    return config


def make(scope: Scope, name: str, device: str | None = None) -> LoadedModel:
    """A model held in bf16, its weights drawn on the device.

    Args:
        scope: whether it is tiny.
        name: of the shape.
        device: where to; by default the scope's.
    """
    made = processor(scope, name)
    attention = resolve_attention(ModelConfig(dtype=Dtype.bf16)).attention
    torch.manual_seed(0)
    with torch.device(device or scope.device):
        model = AutoModelForImageTextToText.from_config(
            configuration(scope, name, made.tokenizer), dtype=torch.bfloat16, attn_implementation=attention
        )
    model.eval()
    return LoadedModel(
        model=model,
        processor=made,
        name=name,
        digest="",
        inputs_digest="",
        reuses_prefix=True,
        keeps_logits="logits_to_keep" in inspect.signature(model.forward).parameters,
    )


def recipe(scope: Scope, parts: list[str], batch_size: int) -> RecipeConfig:
    """Gradient checkpointing, bf16 passes, every picture encoded anew."""
    return RecipeConfig(
        lr=1e-5,
        parts=parts,
        batch_size=2 if scope.tiny else batch_size,
        precision=Precision.bf16,
        gradient_checkpointing=True,
        reuse_features=False,
    )


def finetune_config(name: str, chosen: RecipeConfig, method: Method) -> FinetuneConfig:
    """The configuration that a user would write for it."""
    model = ModelConfig(path=SHAPES[name].path, dtype=Dtype.bf16)
    return FinetuneConfig(name=name, model=model, data=DataConfig(), recipe=chosen, method=method)


def items(shape_side: int, n: int, first: int = 0) -> list[Sample]:
    """Lettered questions of about the tokens that `models plan` assumes, each about a JPEG of its own.

    Args:
        shape_side: pixels along the picture's edge.
        n: how many.
        first: number of the first; items of other numbers have other pictures.
    """
    samples = []
    for i in range(first, first + n):
        noise = np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(noise).resize((shape_side, shape_side), Image.Resampling.BICUBIC).save(stream, "JPEG")
        picture = ImageRef("memory", f"{i}.jpg", stream.getvalue())
        samples.append(Sample.question(str(i), PROMPT, "A", AnswerKind.letter, (picture,), ("A",), OPTIONS))
    return samples


PROMPT = "What is in this picture? " * 6 + ", ".join(OPTIONS)


@dataclass(frozen=True)
class Measured:
    """Token counts of the items of a batch."""

    sizes: Sizes
    """Of the model, with these pictures."""
    text_tokens: int
    answer_tokens: int

    def setting(self, config: FinetuneConfig) -> Setting:
        """Input of the memory estimate for a recipe on these items."""
        return replace(setting_of(config), text_tokens=self.text_tokens, answer_tokens=self.answer_tokens)


def measure(loaded: LoadedModel, sample: Sample) -> Measured:
    """Count the tokens of an item; all of `items` have the same counts."""
    encoder = Encoder(loaded.processor)
    example = encoder.example(sample)
    pixels: Tensor = example.prompt.pictures["pixel_values"]
    shown = int(example.prompt.tokens["input_ids"].eq(image_token(loaded.model)).sum())
    picture = PictureSize(count_patches(loaded.model, pixels), shown, count_patches(loaded.model, pixels))
    sizes = sizes_of(loaded.model, picture, loaded.keeps_logits)
    return Measured(sizes, example.length - shown, len(example.answer))
