"""A model that can be dropped to free memory, and is loaded again when it is needed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a finished matrix is read again without torch
    from forgetbench.config import ModelConfig
    from forgetbench.models.load import LoadedModel

    Loaded = tuple[LoadedModel, ModelConfig]
    """A model, and the configuration it was loaded with."""


class HeldModel:
    """A model that is loaded at first use and can be dropped."""

    def __init__(self, load: Callable[[], Loaded]) -> None:
        """Store the function that loads the model."""
        self._load = load
        self._loaded: Loaded | None = None

    def get(self) -> Loaded:
        """The model; loads it if necessary."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def drop(self) -> None:
        """Free the model's memory; there must be no other references to it."""
        import torch

        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
