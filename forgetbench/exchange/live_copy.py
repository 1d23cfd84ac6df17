"""A whole model beside one that is sliced over processes (FSDP2), asked in its place.

A sliced model is never run: it would gather every layer at every word that is written, and processes that ask
different questions would wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from forgetbench.config import ModelConfig
from forgetbench.exchange.live_model import same_random_numbers
from forgetbench.models.load import LoadedModel, load_model

_SENT = "FSDP_CPU_RAM_EFFICIENT_LOADING"
"""With it transformers reads weights in one process of a machine, and leaves it to FSDP to send them to the others."""


class WholeCopy:
    """The base, whole in this process; it waits in main memory between looks."""

    def __init__(self, config: ModelConfig) -> None:
        """Load it; every process must.

        Args:
            config: of the base.

        Raises:
            UserError: there is no such model.
        """
        with same_random_numbers(), _read_here():
            self.loaded: LoadedModel = load_model(config)

    @contextmanager
    def asked(self) -> Iterator[LoadedModel]:
        """The copy on its base weights, to be put on any device and at any checkpoint."""
        model = self.loaded.model
        held = [(parameter, parameter.data) for parameter in model.parameters()]
        with same_random_numbers():
            try:
                yield self.loaded
            finally:
                for parameter, value in held:
                    parameter.data = value
                model.to("cpu")  # the buffers
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()  # training needs it back, in other sizes


@contextmanager
def _read_here() -> Iterator[None]:
    before = os.environ.pop(_SENT, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[_SENT] = before
