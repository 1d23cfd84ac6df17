"""What a model's configuration declares, held against limits and against the weights that are there.

Both are looked at before memory or time is taken: a configuration of a billion layers takes all there is of either.
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
"""The most that any family's configuration may say, far beyond all that is published; the least is 1."""
_MAY_BE_ZERO = {"num_experts", "projection_dim", "image_seq_length"}


def check_sizes(path: Path) -> None:
    """Refuse a configuration whose sizes no model has.

    Args:
        path: a config.json.

    Raises:
        UserError: names the key.
    """
    for key, value in _sizes(read_json(path)):
        sizes = value if isinstance(value, list) else [value]
        least, most = int(key.rpartition(".")[2] not in _MAY_BE_ZERO), LIMITS[key.rpartition(".")[2]]
        if wrong := [one for one in sizes if type(one) is not int or not least <= one <= most]:
            raise UserError(
                f"{path}: {key} is {_shown(wrong[0])}, and a number from {least} to {most:,} is expected; restore the "
                "file."
            )
    _check_pictures(path)


def _sizes(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every size that is declared, by its dotted key; one that is null has a default."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _sizes(value, f"{above}{key}.")
        elif key in LIMITS and value is not None:
            yield f"{above}{key}", value


def _check_pictures(path: Path) -> None:
    """Refuse more patches of a picture than a table of their places has room for, and features of no layer."""
    content = read_json(path)
    found = content.get("vision_config")
    if not isinstance(found, dict):
        return
    layers, layer = found.get("num_hidden_layers"), content.get("vision_feature_layer")
    if isinstance(layers, int) and isinstance(layer, int) and not -layers - 1 <= layer <= layers:
        raise UserError(f"{path}: vision_feature_layer is {layer}, and there are {layers} layers; restore the file.")
    image, patch = found.get("image_size"), found.get("patch_size")
    if isinstance(image, int) and isinstance(patch, int) and (image // patch) ** 2 > _PATCHES:
        raise UserError(
            f"{path}: image_size {image} in patches of {patch} (patch_size) are {(image // patch) ** 2:,} places, and "
            f"at most {_PATCHES:,} are expected; restore the file."
        )


def check_against_weights(model: Any, folder: Path) -> None:
    """Refuse a configuration that declares more than the weights beside it hold.

    Args:
        model: made of the configuration on the meta device, where it takes no memory.
        folder: with whole weights; one without safetensors is not looked at.

    Raises:
        UserError: gives both numbers.
    """
    files = [path for name in (indexed(folder) or [SINGLE]) if (path := folder / name).is_file()]
    if not files:
        return
    declared = sum(parameter.numel() for parameter in model.parameters())
    stored = sum(path.stat().st_size for path in files)
    # Of what is packed, a byte holds two values, or four.
    if declared > stored * (4 if getattr(model.config, "quantization_config", None) else 1):
        raise UserError(
            f"{folder / CONFIG} declares {declared:,} parameters, and the weights beside it have {stored:,} bytes; "
            "they are of another model, or one of the files was changed. Copy the whole folder again."
        )


def check_finite(model: Any, source: str) -> None:
    """Refuse weights that are not numbers: whatever is computed with them is none, either.

    Args:
        model: a PreTrainedModel.
        source: what messages call it.

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


def _shown(value: object) -> str:
    """A value of any kind, short."""
    if isinstance(value, int) and abs(value) >= 10**12:
        return f"about 10^{math.floor(math.log10(abs(value)))}"
    return repr(value)[:60]
