"""A model's sizes, as the estimate of its memory needs them: of published checkpoints, or read from a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from forgetbench.core.records import PARTS

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Layers:
    """A stack of transformer layers, all alike."""

    count: int
    hidden: int
    inner: int
    """Width inside the feed-forward block."""
    heads: int
    key_value_heads: int
    head_size: int
    gated: bool = True
    """The feed-forward block multiplies two projections (SwiGLU and the like); norms are RMSNorm then."""
    norms: int = 2
    """Of the residual stream, in one layer; Gemma has 4."""
    head_norms: bool = False
    """Queries and keys are normed, too."""
    narrow: bool = False
    """What enters the first layer is bf16 under autocast, as no table of fp32 positions is added to it."""

    @property
    def query(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head_size

    @property
    def key_value(self) -> int:
        """Width of all keys of a token."""
        return self.key_value_heads * self.head_size

    @property
    def linear(self) -> int:
        """Entries of the linear layers' weights."""
        inner = (3 if self.gated else 2) * self.hidden * self.inner
        return self.count * (2 * self.hidden * (self.query + self.key_value) + inner)

    @property
    def sides(self) -> int:
        """Inputs plus outputs over all linear layers: what one rank of an adapter has parameters."""
        attention = 4 * self.hidden + 2 * self.query + 2 * self.key_value
        return self.count * (attention + (3 if self.gated else 2) * (self.hidden + self.inner))


@dataclass(frozen=True)
class Sizes:
    """What of a model and its pictures takes memory."""

    parameters: Mapping[str, int]
    """By part."""
    vision: Layers
    language: Layers
    vocabulary: int
    patches: int
    """Tokens of one picture in the vision tower."""
    tokens: int
    """Tokens of one picture in the language model."""
    keeps_logits: bool = True
    """Only answer positions meet the vocabulary."""
    nominal: bool = True
    """Written down from publications and memory, not read from the checkpoint's own configuration."""
    recurrent: bool = False
    """Some layers of the language model have linear attention, whose kernels keep what no formula here knows."""

    @property
    def linear(self) -> Mapping[str, int]:
        """Entries of linear weights by part, the head left out; the rest of a projector is not worth telling apart."""
        return {
            "vision": self.vision.linear,
            "projector": self.parameters["projector"],
            "language": self.language.linear,
        }


def _nominal(vision: Layers, language: Layers, vocabulary: int, pictures: tuple[int, int], *parts: float) -> Sizes:
    """Parts in millions of parameters: vision, projector, language."""
    counts = {part: round(millions * 1e6) for part, millions in zip(PARTS, parts, strict=True)}
    return Sizes(counts, vision, language, vocabulary, *pictures)


_CLIP = Layers(24, 1024, 4096, 16, 16, 64, gated=False)
_SIGLIP_SO = Layers(27, 1152, 4304, 16, 16, 72, gated=False)
_SIGLIP_26 = replace(_SIGLIP_SO, count=26)
"""LLaVA-OneVision leaves its last layer out."""
_SIGLIP_B = Layers(12, 768, 3072, 12, 12, 64, gated=False)
_QWEN2_VISION = Layers(32, 1280, 5120, 16, 16, 80, gated=False, narrow=True)
_QWEN25_VISION = Layers(32, 1280, 3420, 16, 16, 80, narrow=True)
_QWEN2_05B = Layers(24, 896, 4864, 14, 2, 64)
_QWEN2_7B = Layers(28, 3584, 18944, 28, 4, 128)

NOMINAL: Mapping[str, Sizes] = {
    "llava-hf/llava-1.5-7b-hf": _nominal(
        _CLIP, Layers(32, 4096, 11008, 32, 32, 128), 32064, (577, 576), 303.5, 20.98, 6739
    ),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": _nominal(
        _SIGLIP_26, _QWEN2_05B, 152000, (3645, 3699), 397.7, 1.84, 494
    ),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": _nominal(
        _SIGLIP_26, _QWEN2_7B, 152128, (3645, 3699), 397.7, 16.98, 7616
    ),
    "Qwen/Qwen2-VL-2B-Instruct": _nominal(
        _QWEN2_VISION, Layers(28, 1536, 8960, 12, 2, 128), 151936, (1296, 324), 631.2, 34.09, 1544
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": _nominal(
        _QWEN25_VISION, Layers(36, 2048, 11008, 16, 2, 128), 151936, (1296, 324), 632.0, 36.71, 3086
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": _nominal(_QWEN25_VISION, _QWEN2_7B, 152064, (1296, 324), 632.0, 44.57, 7616),
    "Qwen/Qwen3-VL-2B-Instruct": _nominal(
        _CLIP, Layers(28, 2048, 6144, 16, 8, 128, head_norms=True), 151936, (1024, 256), 306.2, 100.7, 1721
    ),
    "Qwen/Qwen3-VL-4B-Instruct": _nominal(
        _CLIP, Layers(36, 2560, 9728, 32, 8, 128, head_norms=True), 151936, (1024, 256), 306.2, 109.1, 4022
    ),
    "OpenGVLab/InternVL3-1B-hf": _nominal(_CLIP, _QWEN2_05B, 151674, (1025, 256), 304.0, 4.48, 630),
    "HuggingFaceTB/SmolVLM-256M-Instruct": _nominal(
        _SIGLIP_B, Layers(30, 576, 1536, 9, 3, 64), 49280, (17 * 1024, 17 * 64), 86.4, 7.08, 163
    ),
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": _nominal(
        _SIGLIP_B, Layers(32, 960, 2560, 15, 5, 64), 49280, (17 * 1024, 17 * 64), 86.4, 11.8, 409
    ),
    "HuggingFaceM4/Idefics3-8B-Llama3": _nominal(
        _SIGLIP_SO, Layers(32, 4096, 14336, 32, 8, 128), 128259, (17 * 676, 17 * 169), 412.9, 18.9, 8030
    ),
    "google/paligemma2-3b-mix-224": _nominal(
        _SIGLIP_SO, Layers(26, 2304, 9216, 8, 4, 256, norms=4), 257216, (256, 256), 412.4, 2.66, 2617
    ),
    "google/gemma-3-4b-it": _nominal(
        _SIGLIP_SO, Layers(34, 2560, 10240, 8, 4, 256, norms=4, head_norms=True), 262208, (4096, 256), 416.9, 2.95, 3880
    ),
}
"""Published checkpoints by Hub id, with pictures of 512 x 512 pixels."""


def sizes_of(model: nn.Module, patches: int, tokens: int, keeps_logits: bool) -> Sizes:
    """The sizes of a model, which may be on the meta device.

    Args:
        model: any supported one.
        patches: of a picture, in its vision tower.
        tokens: of a picture, in its language model.
        keeps_logits: its forward takes `logits_to_keep`.
    """
    from forgetbench.models.parts import audit, part_of

    config: Any = model.config
    text, names = config.get_text_config(), [name for name, _ in model.named_parameters()]
    # Of the first layer: its norms tell how much of the residual stream is kept in fp32.
    first = {name.rpartition("layers.0.")[2] for name in names if part_of(name) == "language" and "layers.0." in name}
    norms = sum("norm" in name and "self_attn" not in name for name in first)
    towers = [name for name in names if part_of(name) == "vision"]
    vision = _layers(config.vision_config, hasattr(config.vision_config, "fullatt_block_indexes"))
    return Sizes(
        parameters={count.part: count.total for count in audit(model).parts},
        vision=replace(vision, narrow=not any("pos" in name for name in towers)),
        language=replace(_layers(text, gated=True), norms=norms, head_norms=any("q_norm" in name for name in first)),
        vocabulary=text.vocab_size,
        patches=patches,
        tokens=tokens,
        keeps_logits=keeps_logits,
        nominal=False,
        recurrent="linear_attention" in (getattr(text, "layer_types", None) or ()),
    )


def _layers(config: Any, gated: bool) -> Layers:
    """A stack by its configuration, in any family's words."""
    depth = _first(config, "num_hidden_layers", "depth")
    # Qwen2-VL calls the width of its tower embed_dim, and what it puts out hidden_size.
    hidden = _first(config, "embed_dim", "hidden_size")
    heads = _first(config, "num_attention_heads", "num_heads")
    inner = _first(config, "intermediate_size", default=math.floor(hidden * getattr(config, "mlp_ratio", 4)))
    pairs = _first(config, "num_key_value_heads", default=heads)
    return Layers(depth, hidden, inner, heads, pairs, _first(config, "head_dim", default=hidden // heads), gated)


def _first(config: Any, *names: str, default: int = 0) -> int:
    """The first of these that the configuration gives."""
    found = (getattr(config, name, None) for name in names)
    return int(next((value for value in found if value is not None), default))
