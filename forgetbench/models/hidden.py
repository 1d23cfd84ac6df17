"""Hidden states of the language model at picture tokens.

Layer 0 is what enters the first decoder layer, layer k what leaves the k-th (before any final norm).
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
"""Their picture tokens see the whole prompt, not only what precedes them."""


def image_token(model: Any) -> int:
    """Token id that stands for a picture in a prompt; -1 where the family has none."""
    return token_of_pictures(model.config)


def token_of_pictures(settings: Any) -> int:
    """The same, by the configuration of a model."""
    found = getattr(settings, "image_token_id", getattr(settings, "image_token_index", None))
    return -1 if found is None else int(found)


def visible_tokens(model: Any, input_ids_T: Tensor) -> int:
    """How many leading tokens of one prompt its picture tokens see; 0 without a picture."""
    places = input_ids_T.eq(image_token(model)).nonzero()
    if not len(places):
        return 0
    whole = model.config.model_type in _PREFIX_FAMILIES
    return len(input_ids_T) if whole else int(places[-1]) + 1


def first_tokens(inputs: Mapping[str, Any], length: int) -> dict[str, Any]:
    """The inputs of one prompt cut to its first tokens; pictures stay whole."""
    shape = inputs["input_ids"].shape
    return {
        key: value[:, :length] if isinstance(value, Tensor) and value.shape == shape else value
        for key, value in inputs.items()
    }


def resolve_layer(model: nn.Module, layer: int | None, key: str) -> int:
    """A layer's number, negative ones counted from the end and None the last.

    Raises:
        UserError: there is no such layer; `key` names the setting.
    """
    last = language_layers(model)
    found = last if layer is None else layer if layer >= 0 else last + 1 + layer
    if not 0 <= found <= last:
        raise UserError(f"{key}: there is no layer {layer}; give 0 to {last}, or -1 for the last.")
    return found


@contextmanager
def hidden_states(model: nn.Module, layers: Collection[int]) -> Iterator[dict[int, Tensor]]:
    """Collect hidden states (B, T, D) by layer during forward passes; each pass replaces the last one's."""
    found: dict[int, Tensor] = {}
    modules = {int(match[1]): one for name, one in model.named_modules() if (match := _DECODER_LAYER.match(name))}
    handles = []

    def enters(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found[0] = args[0] if args else kwargs["hidden_states"]

    def leaves(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    for layer in layers:
        if layer == 0:
            handles.append(modules[0].register_forward_pre_hook(enters, with_kwargs=True))
        else:
            handles.append(modules[layer - 1].register_forward_hook(leaves(layer)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
