"""Interleave target data with auxiliary data at a fixed ratio (data-hybrid training).

The paper (arXiv 2603.14493) draws at random; here draws are stratified: among the first n instances of a stage, the
number of auxiliary instances differs from h*n by less than one, for every n. Instance i is a pure function of the seed
and i, so that resuming, gradient accumulation and the number of processes change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from forgetbench.core.records import Sample


@dataclass(frozen=True)
class WeightedSet:
    """Items of a leaf dataset, and their weight inside the group (target or auxiliary)."""

    name: str
    samples: Sequence[Sample]
    weight: float


class MixedStream:
    """An endless, random-access stream of training instances."""

    def __init__(
        self, target: Sequence[WeightedSet], auxiliary: Sequence[WeightedSet], ratio: float, seed: int
    ) -> None:
        """Blend two groups of datasets.

        Args:
            target: the stage's target data; drawn with probability 1 - ratio.
            auxiliary: mixed-in data; drawn with probability ratio.
            ratio: h, in [0, 1].
            seed: determines the phase of the interleaving and the order of every dataset.
        """
        self.sets = (*target, *auxiliary)
        """All datasets, target first."""
        self._ratio = ratio if auxiliary else 0.0
        self._seed = seed
        self._phase = float(np.random.default_rng([seed, 0]).random())
        self._groups = (_Group(target, seed, 1), _Group(auxiliary, seed, 2))
        self._offset = len(target)
        self._order = lru_cache(maxsize=4 * len(self.sets))(self._permutation)

    @property
    def drawn(self) -> Sequence[WeightedSet]:
        """The datasets that instances are drawn from; only the target's if the ratio is 0."""
        return self.sets if self._ratio > 0 else self.sets[: self._offset]

    def auxiliary_before(self, n: int) -> int:
        """How many of the first n instances are auxiliary; within one of ratio * n."""
        return math.floor(self._ratio * n + self._phase) if 0 < self._ratio < 1 else round(self._ratio) * n

    def __getitem__(self, i: int) -> Sample:
        """The instance at position i >= 0."""
        before = self.auxiliary_before(i)
        auxiliary = self.auxiliary_before(i + 1) > before
        index_in_group = before if auxiliary else i - before
        set_in_group, n_before = self._groups[auxiliary].at(index_in_group)
        set_index = set_in_group + (self._offset if auxiliary else 0)
        samples = self.sets[set_index].samples
        epoch, position = divmod(n_before, len(samples))
        return samples[int(self._order(set_index, epoch)[position])]

    def batch(self, step: int, size: int) -> list[Sample]:
        """The instances of one optimiser step (steps count from 1)."""
        return [self[i] for i in range((step - 1) * size, step * size)]

    def _permutation(self, set_index: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, 3, set_index, epoch]).permutation(len(self.sets[set_index].samples))


class _Group:
    """Draws the next dataset by largest deficit, so that every dataset stays near its weight from the start.

    For k datasets with weights w summing to 1, after any n draws a dataset is at most 1 + w ahead of w * n and at most
    H_k - 1 + 1/k behind it, H_k = 1 + 1/2 + ... + 1/k (the cup game: fill every cup by w, empty the fullest by 1).
    """

    def __init__(self, sets: Sequence[WeightedSet], seed: int, salt: int) -> None:
        weights = np.array([dataset.weight for dataset in sets], dtype=np.float64)
        self._weights = weights / weights.sum() if len(sets) else weights
        # Random phases; otherwise datasets of equal weight would be drawn in a fixed round-robin.
        self._deficit = np.random.default_rng([seed, salt]).random(len(sets)) * self._weights
        self._counts = np.zeros(len(sets), dtype=np.int64)
        self._history: list[tuple[int, int]] = []

    def at(self, n: int) -> tuple[int, int]:
        """The group's n-th draw: (index of the dataset, its number of earlier draws)."""
        while len(self._history) <= n:
            self._deficit += self._weights
            choice = int(np.argmax(self._deficit))
            self._deficit[choice] -= 1.0
            self._history.append((choice, int(self._counts[choice])))
            self._counts[choice] += 1
        return self._history[n]
