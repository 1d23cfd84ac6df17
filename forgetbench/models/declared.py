"""Check the sizes that a model's configuration declares against limits and against the stored weights.

The checks run before the model is built, because a configuration with a billion layers would exhaust memory or time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.core.json_files import read_json
from forgetbench.models.weight_files import CONFIG, SINGLE, indexed

_LAYERS, _WIDTH, _WORDS, _EDGE, _PATCHES = 2_000, 2**24, 2**27, 2**16, 2**20
LIMITS: Mapping[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "depth", "num_layers", "n_layer", "n_layers", "num_experts"), _LAYERS),
    **dict.fromkeys(("hidden_size", "intermediate_size", "embed_dim", "head_dim", "out_hidden_size"), _WIDTH),
    **dict.fromkeys(("projection_dim", "num_attention_heads", "num_key_value_heads", "num_heads"), _WIDTH),
    **dict.fromkeys(("vocab_size", "max_position_embeddings"), _WORDS),
    **dict.fromkeys(("image_size", "patch_size", "num_channels", "image_seq_length"), _EDGE),
}
"""Largest allowed values in a configuration, far beyond all published models; the smallest is 1."""
_MAY_BE_ZERO = {"num_experts", "projection_dim", "image_seq_length"}


def check_sizes(path: Path) -> None:
    """Refuse a configuration with sizes outside the limits.

    Args:
        path: a config.json.

    Raises:
        UserError: names the key.
    """
    for key, value in _sizes(read_json(path)):
        sizes = value if isinstance(value, list) else [value]
        minimum, maximum = int(key.rpartition(".")[2] not in _MAY_BE_ZERO), LIMITS[key.rpartition(".")[2]]
        if invalid := [size for size in sizes if type(size) is not int or not minimum <= size <= maximum]:
            raise UserError(
                f"{path}: {key} is {_shortened(invalid[0])}, and a number from {minimum} to {maximum:,} is expected; "
                "restore the file."
            )
    _check_pictures(path)


def _sizes(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every declared size with its dotted key; null values, which have a default, are left out."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _sizes(value, f"{prefix}{key}.")
        elif key in LIMITS and value is not None:
            yield f"{prefix}{key}", value


def _check_pictures(path: Path) -> None:
    """Refuse too many patches per picture for a table of positions, and a feature layer that does not exist."""
    content = read_json(path)
    vision = content.get("vision_config")
    if not isinstance(vision, dict):
        return
    layers, layer = vision.get("num_hidden_layers"), content.get("vision_feature_layer")
    if isinstance(layers, int) and isinstance(layer, int) and not -layers - 1 <= layer <= layers:
        raise UserError(f"{path}: vision_feature_layer is {layer}, and there are {layers} layers; restore the file.")
    image_size, patch_size = vision.get("image_size"), vision.get("patch_size")
    if isinstance(image_size, int) and isinstance(patch_size, int) and (image_size // patch_size) ** 2 > _PATCHES:
        raise UserError(
            f"{path}: image_size {image_size} in patches of {patch_size} (patch_size) are "
            f"{(image_size // patch_size) ** 2:,} places, and at most {_PATCHES:,} are expected; restore the file."
        )


def check_against_weights(model: Any, folder: Path) -> None:
    """Refuse a configuration that declares more parameters than the stored weights hold.

    Args:
        model: built from the configuration on the meta device, where it takes no memory.
        folder: the folder of the weights; skipped if it has no safetensors.

    Raises:
        UserError: gives both numbers.
    """
    files = [path for name in (indexed(folder) or [SINGLE]) if (path := folder / name).is_file()]
    if not files:
        return
    declared = sum(parameter.numel() for parameter in model.parameters())
    stored = sum(path.stat().st_size for path in files)
    # In packed weights, a byte holds two or four values.
    if declared > stored * (4 if getattr(model.config, "quantization_config", None) else 1):
        raise UserError(
            f"{folder / CONFIG} declares {declared:,} parameters, and the weights beside it have {stored:,} bytes; "
            "they are of another model, or one of the files was changed. Copy the whole folder again."
        )


def check_finite(model: Any, source: str) -> None:
    """Refuse weights that are NaN or infinite.

    Args:
        model: a PreTrainedModel.
        source: name of the model in messages.

    Raises:
        UserError: names the tensor.
    """
    import torch

    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise UserError(
                f"{source}: the weights in {name} are not all finite numbers (NaN or infinity); copy or download them "
                "again, or take a checkpoint from before training diverged."
            )


def _shortened(value: object) -> str:
    """A short text for a value of any type."""
    if isinstance(value, int) and abs(value) >= 10**12:
        return f"about 10^{math.floor(math.log10(abs(value)))}"
    return repr(value)[:60]
