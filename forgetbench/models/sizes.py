"""The sizes of a model that memory estimates need: tables for published checkpoints, or read from a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from forgetbench.core.records import PARTS
from forgetbench.models.picture_sizes import (
    AdaptiveSlices,
    FixedResolution,
    NativeResolution,
    PictureRule,
    PictureSize,
    TiledBestGrid,
    TiledLongestEdge,
    TiledSmallestGrid,
)

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Layers:
    """A stack of identical transformer layers."""

    count: int
    hidden: int
    inner: int
    """Width inside the feed-forward block."""
    heads: int
    key_value_heads: int
    head_size: int
    gated: bool = True
    """The feed-forward block multiplies two projections (such as SwiGLU); then the norms are RMSNorm."""
    norms: int = 2
    """Number of norms of the residual stream per layer; Gemma has 4."""
    head_norms: bool = False
    """Queries and keys are normalised, too."""
    narrow: bool = False
    """The first layer's input is bf16 under autocast, because no fp32 position embeddings are added to it."""

    @property
    def query(self) -> int:
        """Total width of a token's queries."""
        return self.heads * self.head_size

    @property
    def key_value(self) -> int:
        """Total width of a token's keys."""
        return self.key_value_heads * self.head_size

    @property
    def linear(self) -> int:
        """Number of weights in the linear layers."""
        return sum(self.entries.values())

    @property
    def entries(self) -> Mapping[str, int]:
        """Number of weights in the linear layers, by module."""
        side = self.count * self.hidden * self.inner
        return {
            "attention": self.count * 2 * self.hidden * (self.query + self.key_value),
            "mlp_gate_up": (2 if self.gated else 1) * side,
            "mlp_down": side,
        }

    @property
    def sides(self) -> Mapping[str, int]:
        """Inputs plus outputs of the linear layers, by module: the parameters of adapters, per rank."""
        side = self.count * (self.hidden + self.inner)
        return {
            "attention": self.count * (4 * self.hidden + 2 * self.query + 2 * self.key_value),
            "mlp_gate_up": (2 if self.gated else 1) * side,
            "mlp_down": side,
        }


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model and its pictures that determine memory."""

    parameters: Mapping[str, int]
    """Part -> number of parameters."""
    vision: Layers
    language: Layers
    vocabulary: int
    patches: int
    """Tokens of a picture in the vision tower."""
    tokens: int
    """Tokens of a picture in the language model."""
    tile: int = 0
    """Patches that attend to each other; 0: all patches of a picture."""
    keeps_logits: bool = True
    """Logits are computed for answer positions only."""
    nominal: bool = True
    """Taken from the table of published checkpoints, not read from a configuration."""
    recurrent: bool = False
    """Some layers of the language model have linear attention; the memory of its kernels is not estimated."""

    @property
    def linear(self) -> Mapping[str, int]:
        """Number of weights in linear layers by part, without the head; all of a projector counts as linear."""
        return {
            "vision": self.vision.linear,
            "projector": self.parameters["projector"],
            "language": self.language.linear,
        }


@dataclass(frozen=True)
class Nominal:
    """The sizes of a published checkpoint; picture sizes depend on `model.max_pixels`."""

    vision: Layers
    language: Layers
    vocabulary: int
    pictures: PictureRule
    parts: tuple[int, int, int]
    """Parameters of vision, projector and language."""
    recurrent: bool = False

    def sizes(self, max_pixels: int | None) -> Sizes:
        """The checkpoint's sizes with the largest square picture within `max_pixels`."""
        picture = self.pictures.size(max_pixels)
        return Sizes(
            parameters=dict(zip(PARTS, self.parts, strict=True)),
            vision=self.vision,
            language=self.language,
            vocabulary=self.vocabulary,
            patches=picture.patches,
            tokens=picture.tokens,
            tile=picture.tile,
            recurrent=self.recurrent,
        )


_CLIP = Layers(24, 1024, 4096, 16, 16, 64, gated=False)
_SIGLIP_SO = Layers(27, 1152, 4304, 16, 16, 72, gated=False)
_SIGLIP_26 = replace(_SIGLIP_SO, count=26)
"""LLaVA-OneVision leaves out the last layer."""
_SIGLIP_B = Layers(12, 768, 3072, 12, 12, 64, gated=False)
_QWEN2_VISION = Layers(32, 1280, 5120, 16, 16, 80, gated=False, narrow=True)
_QWEN25_VISION = Layers(32, 1280, 3420, 16, 16, 80, narrow=True)
_QWEN2_05B = Layers(24, 896, 4864, 14, 2, 64)
_QWEN2_7B = Layers(28, 3584, 18944, 28, 4, 128)
_ANYRES = TiledSmallestGrid(384, 6, 27, 9)
_QWEN2_PICTURES = NativeResolution(14, 12_845_056)
_QWEN3_PICTURES = NativeResolution(16, 16_777_216)
_SMOL_PICTURES = TiledLongestEdge(4 * 512, 512, 1024, 64)

NOMINAL: Mapping[str, Nominal] = {
    "llava-hf/llava-1.5-7b-hf": Nominal(
        _CLIP,
        Layers(32, 4096, 11008, 32, 32, 128),
        32064,
        FixedResolution(577, 576),
        (303_507_456, 20_979_712, 6_738_939_904),
    ),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": Nominal(
        _SIGLIP_26, _QWEN2_05B, 152000, _ANYRES, (397_747_744, 1_837_696, 494_090_112)
    ),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": Nominal(
        _SIGLIP_26, _QWEN2_7B, 152128, _ANYRES, (397_747_744, 16_984_576, 7_616_075_264)
    ),
    "Qwen/Qwen2-VL-2B-Instruct": Nominal(
        _QWEN2_VISION,
        Layers(28, 1536, 8960, 12, 2, 128),
        151936,
        _QWEN2_PICTURES,
        (631_183_360, 34_087_936, 1_543_714_304),
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": Nominal(
        _QWEN25_VISION,
        Layers(36, 2048, 11008, 16, 2, 128),
        151936,
        _QWEN2_PICTURES,
        (631_975_680, 36_708_608, 3_085_938_688),
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": Nominal(
        _QWEN25_VISION, _QWEN2_7B, 152064, _QWEN2_PICTURES, (631_975_680, 44_574_464, 7_615_616_512)
    ),
    "Qwen/Qwen3-VL-2B-Instruct": Nominal(
        _CLIP,
        Layers(28, 2048, 6144, 16, 8, 128, head_norms=True),
        151936,
        _QWEN3_PICTURES,
        (306_242_560, 100_714_496, 1_720_574_976),
    ),
    "Qwen/Qwen3-VL-4B-Instruct": Nominal(
        _CLIP,
        Layers(36, 2560, 9728, 32, 8, 128, head_norms=True),
        151936,
        _QWEN3_PICTURES,
        (306_242_560, 109_105_152, 4_022_468_096),
    ),
    "OpenGVLab/InternVL3-1B-hf": Nominal(
        _CLIP, _QWEN2_05B, 151674, TiledBestGrid(448, 12, 1025, 256), (304_012_288, 4_482_816, 629_697_920)
    ),
    "HuggingFaceTB/SmolVLM-256M-Instruct": Nominal(
        _SIGLIP_B, Layers(30, 576, 1536, 9, 3, 64), 49280, _SMOL_PICTURES, (86_433_024, 7_077_888, 162_974_016)
    ),
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": Nominal(
        _SIGLIP_B, Layers(32, 960, 2560, 15, 5, 64), 49280, _SMOL_PICTURES, (86_433_024, 11_796_480, 409_252_800)
    ),
    "HuggingFaceM4/Idefics3-8B-Llama3": Nominal(
        _SIGLIP_SO,
        Layers(32, 4096, 14336, 32, 8, 128),
        128259,
        TiledLongestEdge(4 * 364, 364, 676, 169),
        (412_926_192, 18_874_368, 8_030_285_824),
    ),
    "google/paligemma2-3b-mix-224": Nominal(
        _SIGLIP_SO,
        Layers(26, 2304, 9216, 8, 4, 256, norms=4),
        257216,
        FixedResolution(256, 256),
        (412_442_352, 2_656_512, 2_617_143_552),
    ),
    "google/gemma-3-4b-it": Nominal(
        _SIGLIP_SO,
        Layers(34, 2560, 10240, 8, 4, 256, norms=4, head_norms=True),
        262208,
        FixedResolution(4096, 256),
        (416_866_032, 2_950_272, 3_880_263_168),
    ),
    "openbmb/MiniCPM-V-4.6": Nominal(
        _SIGLIP_SO,
        Layers(24, 1024, 3584, 8, 2, 256, norms=3),
        248094,
        AdaptiveSlices(448, 14, 9, 4),
        (417_792_240, 130_474_176, 752_161_600),
        recurrent=True,
    ),
}
"""Published checkpoints by Hub id; counted from their configurations, which the tests repeat."""


def sizes_of(model: nn.Module, picture: PictureSize, keeps_logits: bool) -> Sizes:
    """Read the sizes of a model, which may be on the meta device.

    Args:
        model: any supported model.
        picture: size of a picture in tokens.
        keeps_logits: whether its forward takes `logits_to_keep`.
    """
    from forgetbench.models.parts import audit, part_of

    config: Any = model.config
    text, names = config.get_text_config(), [name for name, _ in model.named_parameters()]
    # Names in the first layer: its norms tell how much of the residual stream is kept in fp32.
    first = {name.rpartition("layers.0.")[2] for name in names if part_of(name) == "language" and "layers.0." in name}
    norms = sum("norm" in name and "self_attn" not in name for name in first)
    towers = [name for name in names if part_of(name) == "vision"]
    vision = _layers_of(config.vision_config, hasattr(config.vision_config, "fullatt_block_indexes"))
    return Sizes(
        parameters={count.part: count.total for count in audit(model).parts},
        vision=replace(vision, narrow=not any("pos" in name for name in towers)),
        language=replace(_layers_of(text, gated=True), norms=norms, head_norms=any("q_norm" in name for name in first)),
        vocabulary=text.vocab_size,
        patches=picture.patches,
        tokens=picture.tokens,
        tile=picture.tile,
        keeps_logits=keeps_logits,
        nominal=False,
        recurrent="linear_attention" in (getattr(text, "layer_types", None) or ()),
    )


def _layers_of(config: Any, gated: bool) -> Layers:
    """Read a stack of layers from its configuration, with the key names of any family."""
    depth = _first_given(config, "num_hidden_layers", "depth")
    # In Qwen2-VL, embed_dim is the width of the vision tower, and hidden_size the width of its output.
    hidden = _first_given(config, "embed_dim", "hidden_size")
    heads = _first_given(config, "num_attention_heads", "num_heads")
    inner = _first_given(config, "intermediate_size", default=math.floor(hidden * getattr(config, "mlp_ratio", 4)))
    pairs = _first_given(config, "num_key_value_heads", default=heads)
    return Layers(depth, hidden, inner, heads, pairs, _first_given(config, "head_dim", default=hidden // heads), gated)


def _first_given(config: Any, *names: str, default: int = 0) -> int:
    """The value of the first of these keys that the configuration has."""
    values = (getattr(config, name, None) for name in names)
    return int(next((value for value in values if value is not None), default))
