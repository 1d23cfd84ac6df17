"""A model that may have to make room, and is loaded again when it is needed again."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a finished matrix is read again without torch
    from forgetbench.config import ModelConfig
    from forgetbench.models.load import LoadedModel

    Loaded = tuple[LoadedModel, ModelConfig]
    """A model, and what it was loaded by."""


class HeldModel:
    """Loaded at first use; dropped on request."""

    def __init__(self, load: Callable[[], Loaded], loaded: Loaded | None = None) -> None:
        """Prepare.

        Args:
            load: loads it.
            loaded: the model, if it is there already.
        """
        self._load, self._loaded = load, loaded

    def get(self) -> Loaded:
        """The model."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def drop(self) -> None:
        """Free its memory; whoever else holds it must have let go."""
        import torch

        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
