"""What the vision tower and the projector make of pictures, computed once and given to the language model again.

transformers' forwards take such features in place of pixels. Shapes: R picture tokens of all pictures, D numbers for
each: one hidden state, and where the tower feeds several decoder layers (Qwen3-VL's DeepStack) one more per layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from forgetbench.models.hidden import image_token


class PictureEncoder:
    """The vision tower and projector of one loaded model, apart from its language model."""

    def __init__(self, model: Any) -> None:
        """Look at what the family offers."""
        self._encode: Callable[..., Any] | None = getattr(getattr(model, "model", None), "get_image_features", None)
        self._token = image_token(model)
        self._as_list, self._layers = False, 0
        self._output: Callable[..., Any] = BaseModelOutputWithPooling
        takes_features = "mm_encoder_outputs" in inspect.signature(model.forward).parameters
        self.usable = self._encode is not None and self._token >= 0 and takes_features
        """Whether features can stand in for pixels; otherwise pixels are given every time."""

    def rows(self, input_ids: Tensor) -> int:
        """How many feature rows one prompt takes."""
        return int(input_ids.eq(self._token).sum())

    def encode(self, pictures: Mapping[str, Tensor]) -> Tensor:
        """Features (R, D) of all pictures of some prompts, end to end."""
        assert self._encode is not None
        wanted = inspect.signature(self._encode).parameters.keys() & pictures.keys()
        output = self._encode(**{key: pictures[key] for key in wanted})
        deeper = getattr(output, "deepstack_features", None) or []
        self._output, self._as_list = type(output), isinstance(output.pooler_output, list | tuple)
        self._layers = len(deeper)
        return torch.cat([_rows(one) for one in (output.pooler_output, *deeper)], -1)

    def inputs(self, features_RD: Tensor) -> dict[str, Any]:
        """Keyword arguments of a forward pass that hold features instead of pixels."""
        parts = features_RD.tensor_split(1 + self._layers, -1)
        pooled, *deeper = ([part] if self._as_list else part for part in parts)
        more = {"deepstack_features": deeper} if deeper else {}
        return {"mm_encoder_outputs": {"image": self._output(pooler_output=pooled, **more)}}


def _rows(pooled: Any) -> Tensor:
    """One row per picture token, from one tensor or from one per picture."""
    parts = pooled if isinstance(pooled, list | tuple) else [pooled]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
