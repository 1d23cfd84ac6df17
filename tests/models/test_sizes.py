"""Sizes that are written down: against the publishers' configurations and image processors, read by transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from PIL import Image
from transformers import AutoModelForImageTextToText
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.core.paths import shipped
from forgetbench.data.collate import _limits
from forgetbench.models.picture_sizes import COUNTED_PIXELS, PictureSize
from forgetbench.models.sizes import NOMINAL, sizes_of
from tests.support.published import CONFIGS

QWEN2 = {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 12_845_056}}
QWEN3 = {"patch_size": 16, "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}}
SMOL = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}
PINPOINTS = [[384 * a, 384 * b] for a in range(1, 7) for b in range(1, 7)]


def tiles(processor: Any, side: int, limits: dict[str, Any]) -> int:
    """How many tiles a processor makes of a square picture."""
    pixels = processor(images=[[Image.new("RGB", (side, side))]], return_tensors="pt", **limits)["pixel_values"]
    return math.prod(pixels.shape[:-3])


CASES: dict[str, tuple[str, Callable[[], Any], int]] = {
    "smolvlm": ("HuggingFaceTB/SmolVLM-256M-Instruct", lambda: transformers.Idefics3ImageProcessorPil(**SMOL), 1024),
    "smolvlm2": (
        "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        lambda: transformers.SmolVLMImageProcessorPil(**SMOL),
        1024,
    ),
    "idefics3": ("HuggingFaceM4/Idefics3-8B-Llama3", transformers.Idefics3ImageProcessorPil, 676),
    "llava_onevision": (
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        lambda: transformers.LlavaOnevisionImageProcessorPil(
            image_grid_pinpoints=PINPOINTS, size={"height": 384, "width": 384}
        ),
        729,
    ),
    "internvl": (
        "OpenGVLab/InternVL3-1B-hf",
        lambda: transformers.GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, crop_to_patches=True),
        1025,
    ),
}


@pytest.mark.parametrize("max_pixels", [150 * 150, 512 * 512, 700 * 700, 1100 * 1100, 1456 * 1456, 2048 * 2048])
@pytest.mark.parametrize("family", CASES)
def test_a_picture_is_cut_into_as_many_tiles_as_its_processor_cuts(family: str, max_pixels: int) -> None:
    path, make, patches = CASES[family]
    processor = make()
    size = NOMINAL[path].pictures.size(max_pixels)
    expected = tiles(processor, math.isqrt(max_pixels), _limits(processor, max_pixels))
    assert (size.patches, size.tile) == (expected * patches, patches)


@pytest.mark.parametrize("max_pixels", [300 * 300, 512 * 512, 1_003_520, 1_310_720, 4096 * 4096])
@pytest.mark.parametrize(
    ("path", "given"), [("Qwen/Qwen2-VL-2B-Instruct", QWEN2), ("Qwen/Qwen3-VL-2B-Instruct", QWEN3)]
)
def test_blocks_of_pictures_that_keep_their_size(path: str, given: dict[str, Any], max_pixels: int) -> None:
    processor = transformers.Qwen2VLImageProcessorPil(**given)
    side = math.isqrt(max_pixels)
    grid = processor(images=[Image.new("RGB", (side, side))], return_tensors="pt")["image_grid_thw"]
    patches = int(grid.prod())
    assert NOMINAL[path].pictures.size(max_pixels) == PictureSize(patches, patches // 4, patches)


@pytest.mark.parametrize("side", [100, 448, 512, 700, 1000, 1344, 2000])
def test_slices_of_pictures_are_those_of_their_processor(side: int) -> None:
    processor = transformers.MiniCPMV4_6ImageProcessorPil()
    sizes = processor(images=[Image.new("RGB", (side, side))], return_tensors="pt")["target_sizes"]
    size = NOMINAL["openbmb/MiniCPM-V-4.6"].pictures.size(side * side)
    assert size.patches == int(sizes.prod(-1).sum())
    assert size.tokens == size.patches // 16


@pytest.mark.parametrize(
    ("path", "max_pixels", "tokens"),
    [
        # An overview of 27 x 27, and 81 rows of 81 and a line's end.
        ("llava-hf/llava-onevision-qwen2-7b-ov-hf", 2304 * 2304, 729 + 81 * 82),
        ("llava-hf/llava-onevision-qwen2-7b-ov-hf", 512 * 512, 729 + 54 * 55),
        ("HuggingFaceTB/SmolVLM-256M-Instruct", 2048 * 2048, 17 * 64),
        ("HuggingFaceTB/SmolVLM-256M-Instruct", 512 * 512, 64),
        ("HuggingFaceM4/Idefics3-8B-Llama3", 1456 * 1456, 17 * 169),
        ("HuggingFaceM4/Idefics3-8B-Llama3", 512 * 512, 5 * 169),
        ("google/gemma-3-4b-it", None, 256),
        ("Qwen/Qwen2.5-VL-3B-Instruct", None, 324),
    ],
)
def test_tokens_of_a_picture_by_hand(path: str, max_pixels: int | None, tokens: int) -> None:
    assert NOMINAL[path].sizes(max_pixels).tokens == tokens


@pytest.mark.parametrize("path", NOMINAL)
def test_written_down_sizes_are_those_of_the_published_configuration(path: str) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(CONFIGS[path]())
    written = NOMINAL[path].sizes(COUNTED_PIXELS)
    read = sizes_of(model, NOMINAL[path].pictures.size(COUNTED_PIXELS), written.keeps_logits)
    assert written.parameters == read.parameters
    assert (written.vision, written.language, written.vocabulary) == (read.vision, read.language, read.vocabulary)
    assert written.recurrent == read.recurrent


def test_minicpm_has_as_many_parameters_as_its_checkpoint() -> None:
    assert sum(NOMINAL["openbmb/MiniCPM-V-4.6"].parts) == 1_300_428_016


SEEN = {
    "llava_1_5_7b": 576,
    "llava_onevision_0_5b": 7371,
    "llava_onevision_7b": 7371,
    "qwen2_vl_2b": 324,
    "qwen2_5_vl_3b": 324,
    "qwen2_5_vl_7b": 324,
    "qwen3_vl_2b": 256,
    "qwen3_vl_4b": 256,
    "internvl3_1b": 10 * 256,
    "smolvlm_256m": 17 * 64,
    "smolvlm2_500m": 17 * 64,
    "idefics3_8b": 17 * 169,
    "paligemma2_3b": 256,
    "gemma3_4b": 256,
    "minicpm_v_4_6": 640,
}


@pytest.mark.parametrize("name", SEEN)
def test_shipped_configurations_see_what_their_publishers_do(name: str) -> None:
    content = yaml.safe_load((shipped("conf") / "model" / f"{name}.yaml").read_text("utf-8"))
    assert NOMINAL[content["path"]].sizes(content["max_pixels"]).tokens == SEEN[name]


def test_a_plan_follows_the_configuration_where_sizes_are_written_down() -> None:
    given = ["recipe.parts=[vision,projector,language]", "recipe.gradient_accumulation=32"]

    def total(*more: str) -> float:
        rows = json.loads(CliRunner().invoke(app, ["models", "plan", "smolvlm_256m", *given, *more, "--json"]).output)
        return next(row["total"] for row in rows if (row["recipe"], row["devices"]) == ("as given", 1))

    assert total("model.max_pixels=262144") == pytest.approx(4.8, abs=0.05)
    assert total() == pytest.approx(12.1, abs=0.05)  # 17 tiles, each of which sees itself alone


def test_every_shipped_configuration_is_in_the_table_of_tokens() -> None:
    names = {path.stem for path in Path(shipped("conf") / "model").glob("*.yaml")}
    assert names - {"local", "tiny", "tiny_random"} == set(SEEN)
