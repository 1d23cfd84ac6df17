"""Keep picture features while the vision tower and projector stay the same: over questions, decodings, checkpoints.

Pictures are encoded together with the batch that shows them first, whichever batch asks (see `batches`).
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
class _Room:
    """How much of a dataset there is memory for; a matter of this dataset alone, whatever else was asked before."""

    n_blocks: int
    """Its first blocks, whose features fit; what comes after them is given pixels, however many blocks there are."""
    n_bytes: int
    """Of their features."""


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
            max_bytes: memory for all features; blocks of a dataset that would exceed it are given pixels every time.
        """
        self._encoder = encoder
        self._state = ""
        self._held: LRUCache[BatchedSet, _Features] = LRUCache(max_bytes, getsizeof=lambda one: one.n_bytes)
        self._rooms: dict[BatchedSet, _Room] = {}

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
        first: dict[Pictures, Tensor] = {}
        if dataset not in self._rooms:
            first = self._encoded(dataset, dataset.first_positions[shown[0]][0], move)
            self._rooms[dataset] = self._room(dataset, next(iter(first.values())))
        room = self._rooms[dataset]
        if dataset.block_of_batch[number] >= room.n_blocks:
            return {}
        if dataset not in self._held:
            self._held[dataset] = _Features(room.n_bytes, first)
        held = self._held[dataset].of
        for images in shown:
            if images not in held:
                held |= self._encoded(dataset, dataset.first_positions[images][0], move)
        features_RD = torch.cat([held[images] for images in shown])
        return self._encoder.inputs(move({"": features_RD})[""])

    def _room(self, dataset: BatchedSet, one_RD: Tensor) -> _Room:
        rows = [0] * (dataset.block_of_batch[-1] + 1)
        for number, item in dataset.first_positions.values():
            rows[dataset.block_of_batch[number]] += self._rows(dataset, item)
        sizes = [total * one_RD.shape[1] * one_RD.element_size() for total in accumulate(rows)]
        fitting = [n_bytes for n_bytes in sizes if n_bytes <= self._held.maxsize]
        return _Room(len(fitting), max(fitting, default=0))

    def _encoded(self, dataset: BatchedSet, number: int, move: Move) -> dict[Pictures, Tensor]:
        """Features of the pictures that a batch is the first to show."""
        items = dataset.items_with_new_pictures(number)
        pictures = join_pictures([dataset.prompts.prompt(item) for item in items])
        parts = torch.split(self._encoder.encode(move(pictures)).cpu(), [self._rows(dataset, item) for item in items])
        return {dataset.samples[item].images: part for item, part in zip(items, parts, strict=True)}

    def _rows(self, dataset: BatchedSet, item: int) -> int:
        return self._encoder.rows(dataset.prompts.tokens(item)["input_ids"])
