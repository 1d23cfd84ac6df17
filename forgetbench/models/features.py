"""Compute picture features with the vision tower and projector once, and reuse them in the language model.

The forward methods of transformers accept these features instead of pixels. Shapes: R picture tokens of all pictures;
D numbers per token: a hidden state, plus another for each further decoder layer that the tower feeds (DeepStack of
Qwen3-VL).
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
    """The vision tower and projector of a loaded model, without its language model."""

    def __init__(self, model: Any) -> None:
        """Find the model's feature method and check that its forward accepts features."""
        self._encode: Callable[..., Any] | None = getattr(getattr(model, "model", None), "get_image_features", None)
        self._token = image_token(model)
        self._as_list, self._layers = False, 0
        self._output: Callable[..., Any] = BaseModelOutputWithPooling
        takes_features = "mm_encoder_outputs" in inspect.signature(model.forward).parameters
        self.usable = self._encode is not None and self._token >= 0 and takes_features
        """Whether features can replace pixels; if not, pixels must be given in every pass."""

    def rows(self, input_ids: Tensor) -> int:
        """Number of feature rows of a prompt."""
        return int(input_ids.eq(self._token).sum())

    def encode(self, pictures: Mapping[str, Tensor]) -> Tensor:
        """Features (R, D) of all pictures of a batch of prompts, concatenated."""
        assert self._encode is not None
        argument_names = inspect.signature(self._encode).parameters.keys() & pictures.keys()
        output = self._encode(**{key: pictures[key] for key in argument_names})
        deepstack = getattr(output, "deepstack_features", None) or []
        self._output, self._as_list = type(output), isinstance(output.pooler_output, list | tuple)
        self._layers = len(deepstack)
        return torch.cat([_rows(features) for features in (output.pooler_output, *deepstack)], -1)

    def inputs(self, features_RD: Tensor) -> dict[str, Any]:
        """Keyword arguments of a forward pass that hold features instead of pixels."""
        parts = features_RD.tensor_split(1 + self._layers, -1)
        pooled, *deepstack = ([part] if self._as_list else part for part in parts)
        extra = {"deepstack_features": deepstack} if deepstack else {}
        return {"mm_encoder_outputs": {"image": self._output(pooler_output=pooled, **extra)}}


def _rows(pooled: Any) -> Tensor:
    """One row per picture token, from a single tensor or a tensor per picture."""
    parts = pooled if isinstance(pooled, list | tuple) else [pooled]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
