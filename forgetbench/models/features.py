"""What the vision tower and the projector make of pictures, computed once and given to the language model again.

transformers' forwards take such features in place of pixels. Shapes: R picture tokens of all pictures, D hidden size.
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
        self._as_list = False
        takes_features = "mm_encoder_outputs" in inspect.signature(model.forward).parameters
        # Qwen3-VL also feeds deeper layers; its features are more than one tensor.
        deep = hasattr(getattr(model.config, "vision_config", None), "deepstack_visual_indexes")
        self.usable = self._encode is not None and self._token >= 0 and takes_features and not deep
        """Whether features can stand in for pixels; otherwise pixels are given every time."""

    def rows(self, input_ids: Tensor) -> int:
        """How many feature rows one prompt takes."""
        return int(input_ids.eq(self._token).sum())

    def encode(self, pictures: Mapping[str, Tensor]) -> Tensor:
        """Features (R, D) of all pictures of some prompts, end to end."""
        assert self._encode is not None
        wanted = inspect.signature(self._encode).parameters.keys() & pictures.keys()
        pooled = self._encode(**{key: pictures[key] for key in wanted}).pooler_output
        self._as_list = isinstance(pooled, list | tuple)
        parts = pooled if self._as_list else [pooled]
        return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])

    def inputs(self, features_RD: Tensor) -> dict[str, Any]:
        """Keyword arguments of a forward pass that hold features instead of pixels."""
        pooled: Any = [features_RD] if self._as_list else features_RD
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=pooled)}}
