"""Sizes of a model and its pictures, read without its weights, and a warning if training may not fit the GPU."""

from __future__ import annotations

import inspect
import io
import math
import os
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import CONFIG_NAME
from PIL import Image
from torch import Tensor

from forgetbench.config import FinetuneConfig, ModelConfig
from forgetbench.core.errors import UserError, reading
from forgetbench.core.json_files import AGAIN
from forgetbench.core.records import AnswerKind, ImageRef, Sample
from forgetbench.data.collate import Encoder
from forgetbench.models.hidden import image_token
from forgetbench.models.load import empty_model
from forgetbench.models.memory import GIB, estimate, setting_of
from forgetbench.models.picture_sizes import COUNTED_PIXELS, PictureSize
from forgetbench.models.pretrained import load_processor
from forgetbench.models.processor_check import check_pictures, check_tokens
from forgetbench.models.sizes import NOMINAL, Sizes, sizes_of


def read_sizes(config: ModelConfig) -> Sizes:
    """Sizes from the model's configuration and processor; nominal sizes for a known model that is not downloaded.

    Raises:
        UserError: there are no nominal sizes, and the configuration cannot be read.
    """
    # No download if nominal sizes are enough for an estimate.
    if config.path in NOMINAL and not isinstance(try_to_load_from_cache(config.path, CONFIG_NAME), str):
        return NOMINAL[config.path].sizes(config.max_pixels)
    return _measure_sizes(config)


def _measure_sizes(config: ModelConfig) -> Sizes:
    model, processor = empty_model(config), load_processor(config)
    source = f"model.path={config.path}"
    check_tokens(processor, model.config, source)
    check_pictures(processor, model.config, source)
    side = math.isqrt(config.max_pixels or COUNTED_PIXELS)
    stream = io.BytesIO()
    Image.new("RGB", (side, side)).save(stream, "PNG")
    shown = Sample.question("", "", "", AnswerKind.text, (ImageRef("", "blank.png", stream.getvalue()),))
    with reading(f"{source}: its processor", f"{AGAIN} all of its files"):
        encoded = Encoder(processor, config.max_pixels, config.system_prompt).prompt(shown)
        pixels = encoded.pictures["pixel_values"]
        patches = count_patches(model, pixels)
    tiles = math.prod(pixels.shape[:-3]) if pixels.ndim >= 4 else 1
    return sizes_of(
        model,
        PictureSize(patches, int(encoded.tokens["input_ids"].eq(image_token(model)).sum()), patches // tiles),
        keeps_logits="logits_to_keep" in inspect.signature(model.forward).parameters,
    )


def count_patches(model: Any, pixels: Tensor) -> int:
    """Number of patches in the vision tower for some pixel values."""
    vision = model.config.vision_config
    side = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    return pixels.numel() // (3 * side**2 * getattr(vision, "temporal_patch_size", 1))


def memory_warning(config: FinetuneConfig) -> str | None:
    """A warning if training will hardly fit the GPU; None if it fits, or if there is no GPU."""
    if not torch.cuda.is_available():
        return None
    try:
        sizes = read_sizes(config.model)
    except UserError:  # loading the model will report it
        return None
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    needed = estimate(sizes, setting_of(config, devices))
    if needed.fits(memory / GIB):
        return None
    return (
        f"About {needed.total / GIB:.0f} GiB are needed for each GPU, which has {memory / GIB:.0f}; "
        "`forgetbench models plan` with the same words tells what takes them, and what to change."
    )
