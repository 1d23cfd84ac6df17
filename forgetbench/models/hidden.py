"""Hidden states of the language model at picture tokens.

Layer 0 is the input of the first decoder layer, layer k the output of the k-th (before any final norm).
Shapes: B items, T tokens, D hidden size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from forgetbench.core.errors import UserError
from forgetbench.models.parts import language_layers

_DECODER_LAYER = re.compile(r"model\.(?:language_model|text_model)\.layers\.(\d+)$")
_PREFIX_FAMILIES = {"paligemma"}
"""Families whose picture tokens attend to the whole prompt, not only to preceding tokens."""


def image_token(model: Any) -> int:
    """Token id of picture tokens in a prompt; -1 if the family has none."""
    return config_image_token(model.config)


def config_image_token(settings: Any) -> int:
    """The `image_token` of a model's configuration."""
    token_id = getattr(settings, "image_token_id", getattr(settings, "image_token_index", None))
    return -1 if token_id is None else int(token_id)


def visible_tokens(model: Any, input_ids_T: Tensor) -> int:
    """Number of leading tokens of a prompt that its picture tokens attend to; 0 without a picture."""
    places = input_ids_T.eq(image_token(model)).nonzero()
    if not len(places):
        return 0
    sees_prompt = model.config.model_type in _PREFIX_FAMILIES
    return len(input_ids_T) if sees_prompt else int(places[-1]) + 1


def first_tokens(inputs: Mapping[str, Any], length: int) -> dict[str, Any]:
    """The inputs of a prompt cut to its first `length` tokens; picture tensors stay whole."""
    shape = inputs["input_ids"].shape
    return {
        key: value[:, :length] if isinstance(value, Tensor) and value.shape == shape else value
        for key, value in inputs.items()
    }


def resolve_layer(model: nn.Module, layer: int | None, key: str) -> int:
    """The index of a layer: negative numbers count from the end, None is the last layer.

    Raises:
        UserError: there is no such layer; `key` names the setting.
    """
    last = language_layers(model)
    resolved = last if layer is None else layer if layer >= 0 else last + 1 + layer
    if not 0 <= resolved <= last:
        raise UserError(f"{key}: there is no layer {layer}; give 0 to {last}, or -1 for the last.")
    return resolved


@contextmanager
def hidden_states(model: nn.Module, layers: Collection[int]) -> Iterator[dict[int, Tensor]]:
    """Collect hidden states (B, T, D) by layer during forward passes; each pass overwrites the previous states."""
    states: dict[int, Tensor] = {}
    modules = {int(match[1]): module for name, module in model.named_modules() if (match := _DECODER_LAYER.match(name))}
    handles = []

    def save_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states[0] = args[0] if args else kwargs["hidden_states"]

    def save_output(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            states[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    for layer in layers:
        if layer == 0:
            handles.append(modules[0].register_forward_pre_hook(save_input, with_kwargs=True))
        else:
            handles.append(modules[layer - 1].register_forward_hook(save_output(layer)))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
