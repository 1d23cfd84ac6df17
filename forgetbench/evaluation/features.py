"""Cache picture features as long as vision tower and projector do not change: over questions, decodings, checkpoints.

A picture is always encoded with the batch that shows it first, even if a later batch asks first (see `batches`).
Shapes: R picture tokens of all pictures of a batch, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from cachetools import LRUCache
from torch import Tensor

from forgetbench.data.batching import join_pictures
from forgetbench.evaluation.batches import BatchedSet, Pictures
from forgetbench.models.features import PictureEncoder

Move = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Puts tensors on the model's device."""


@dataclass(frozen=True)
class _CacheBudget:
    """How much of a dataset fits into the cache; depends on this dataset only, not on earlier ones."""

    n_blocks: int
    """Number of first blocks that fit; later blocks get pixels."""
    n_bytes: int
    """Size of the features of these blocks."""


@dataclass(frozen=True)
class _CachedFeatures:
    """The features of one dataset that were encoded so far."""

    n_bytes: int
    """Size of all features of the dataset's cached blocks."""
    by_pictures: dict[Pictures, Tensor]


class FeatureCache:
    """Features by dataset and pictures, for one state of the vision tower and projector."""

    def __init__(self, encoder: PictureEncoder, max_bytes: int) -> None:
        """Start empty.

        Args:
            encoder: of the model.
            max_bytes: memory for all features; blocks of a dataset beyond it get pixels.
        """
        self._encoder = encoder
        self._state = ""
        self._cache: LRUCache[BatchedSet, _CachedFeatures] = LRUCache(
            max_bytes, getsizeof=lambda features: features.n_bytes
        )
        self._budgets: dict[BatchedSet, _CacheBudget] = {}

    def set_state(self, state: str) -> None:
        """Set which weights encode pictures from now on; features of other weights are dropped.

        Args:
            state: digest of the changed weights of vision tower and projector; empty at the base.
        """
        if state != self._state:
            self._state = state
            self._cache.clear()

    def inputs(self, dataset: BatchedSet, number: int, move: Move) -> dict[str, Any]:
        """Model inputs that replace the pixels of one batch; empty if the batch needs pixels."""
        shown = [images for item in dataset.batches[number] if (images := dataset.samples[item].images)]
        if not shown or not self._encoder.usable:
            return {}
        first: dict[Pictures, Tensor] = {}
        if dataset not in self._budgets:
            first = self._encode(dataset, dataset.first_positions[shown[0]][0], move)
            self._budgets[dataset] = self._budget(dataset, next(iter(first.values())))
        budget = self._budgets[dataset]
        if dataset.block_of_batch[number] >= budget.n_blocks:
            return {}
        if dataset not in self._cache:
            self._cache[dataset] = _CachedFeatures(budget.n_bytes, first)
        cached = self._cache[dataset].by_pictures
        for images in shown:
            if images not in cached:
                cached |= self._encode(dataset, dataset.first_positions[images][0], move)
        features_RD = torch.cat([cached[images] for images in shown])
        return self._encoder.inputs(move({"": features_RD})[""])

    def _budget(self, dataset: BatchedSet, example_RD: Tensor) -> _CacheBudget:
        rows = [0] * (dataset.block_of_batch[-1] + 1)
        for number, item in dataset.first_positions.values():
            rows[dataset.block_of_batch[number]] += self._rows(dataset, item)
        sizes = [total * example_RD.shape[1] * example_RD.element_size() for total in accumulate(rows)]
        fitting = [n_bytes for n_bytes in sizes if n_bytes <= self._cache.maxsize]
        return _CacheBudget(len(fitting), max(fitting, default=0))

    def _encode(self, dataset: BatchedSet, number: int, move: Move) -> dict[Pictures, Tensor]:
        """Features of the pictures that this batch shows first."""
        items = dataset.items_with_new_pictures(number)
        pictures = join_pictures([dataset.prompts.prompt(item) for item in items])
        parts = torch.split(self._encoder.encode(move(pictures)).cpu(), [self._rows(dataset, item) for item in items])
        return {dataset.samples[item].images: part for item, part in zip(items, parts, strict=True)}

    def _rows(self, dataset: BatchedSet, item: int) -> int:
        return self._encoder.rows(dataset.prompts.tokens(item)["input_ids"])
