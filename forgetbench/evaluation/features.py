"""Keep picture features while the vision tower and projector stay the same: over questions, decodings, checkpoints.

Pictures are encoded together with the batch that shows them first, whichever batch asks (see `batches`).
Shapes: R picture tokens of all pictures of a batch, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
class _Features:
    """One dataset's, as far as they were asked for."""

    n_bytes: int
    """Of all of them."""
    of: dict[Pictures, Tensor]


class FeatureCache:
    """Features by dataset and pictures, for one state of the vision tower and projector."""

    def __init__(self, encoder: PictureEncoder, max_bytes: int) -> None:
        """Start empty.

        Args:
            encoder: of the model that is asked.
            max_bytes: memory for all features; a dataset that would exceed it is given pixels every time.
        """
        self._encoder = encoder
        self._state = ""
        self._held: LRUCache[BatchedSet, _Features] = LRUCache(max_bytes, getsizeof=lambda one: one.n_bytes)
        self._too_large: set[BatchedSet] = set()

    def begin(self, state: str) -> None:
        """Say which weights encode pictures now; features of other weights are dropped.

        Args:
            state: digest of what differs from the base in vision tower and projector.
        """
        if state != self._state:
            self._state = state
            self._held.clear()

    def inputs(self, dataset: BatchedSet, number: int, move: Move) -> dict[str, Any]:
        """Inputs that replace the pixels of one batch; empty where pixels are to be given."""
        shown = [images for item in dataset.batches[number] if (images := dataset.samples[item].images)]
        if not shown or not self._encoder.usable:
            return {}
        if dataset not in self._held and dataset not in self._too_large:
            self._begin(dataset, dataset.first_positions[shown[0]][0], move)
        if dataset in self._too_large:
            return {}
        held = self._held[dataset].of
        for images in shown:
            if images not in held:
                held |= self._encoded(dataset, dataset.first_positions[images][0], move)
        features_RD = torch.cat([held[images] for images in shown])
        return self._encoder.inputs(move({"": features_RD})[""])

    def _begin(self, dataset: BatchedSet, number: int, move: Move) -> None:
        """Keep the first features of a dataset, or that all of its features would not fit.

        That is a matter of this dataset alone: others make room, so that what was asked before decides nothing.
        """
        first = self._encoded(dataset, number, move)
        one_RD = next(iter(first.values()))
        rows = sum(self._rows(dataset, item) for _, item in dataset.first_positions.values())
        n_bytes = rows * one_RD.shape[1] * one_RD.element_size()
        if n_bytes > self._held.maxsize:
            self._too_large.add(dataset)
        else:
            self._held[dataset] = _Features(n_bytes, first)

    def _encoded(self, dataset: BatchedSet, number: int, move: Move) -> dict[Pictures, Tensor]:
        """Features of the pictures that a batch is the first to show."""
        items = dataset.items_with_new_pictures(number)
        pictures = join_pictures([dataset.prompts.prompt(item) for item in items])
        parts = torch.split(self._encoder.encode(move(pictures)).cpu(), [self._rows(dataset, item) for item in items])
        return {dataset.samples[item].images: part for item, part in zip(items, parts, strict=True)}

    def _rows(self, dataset: BatchedSet, item: int) -> int:
        return self._encoder.rows(dataset.prompts.tokens(item)["input_ids"])
