"""TIES-Merging (Yadav et al. 2023, arXiv:2306.01708): trim changes, elect signs, average the agreeing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from operator import sub
from typing import TYPE_CHECKING

from forgetbench.methods.operation import Operation, Trained

if TYPE_CHECKING:
    from torch import Tensor

    Weights = Mapping[str, Tensor]


class Scope(StrEnum):
    """The entries among which the largest are kept when trimming."""

    run = "run"
    """All tensors that the run changed, as in the paper."""
    tensor = "tensor"
    """Each tensor by itself."""


@dataclass
class Ties(Operation):
    """w0 + scale * m, with m merged from the changes d_k = w_k - w0 of this run and of the runs in `merge`.

    For each entry: d_k is set to 0 unless it is among the largest. The sign of the sum of the remaining d_k is elected.
    m is the mean of the d_k with this sign. If the sum is exactly 0, no sign is elected and m is 0 (the authors' code
    elects the sign of most entries of the model). A run's unchanged tensors count as 0. Without other runs m is the
    trimmed change.
    """

    name: str = "ties"
    merge: list[str] = field(default_factory=list)
    """Folders of further runs of the same base."""
    density: float = 0.2
    """Share of entries kept when trimming, of a run's changed tensors; entries equal to the smallest kept one stay."""
    scope: Scope = Scope.run
    scale: float = 1.0
    """The paper's lambda; the paper uses 1 if there is no validation data."""

    def problems(self) -> Mapping[str, str]:
        """Values out of range, and runs named twice."""
        problems = {}
        if not 0 < self.density <= 1:
            problems["density"] = f"{self.density} is no share of entries to keep; give more than 0 and at most 1."
        if not self.scale > 0:
            problems["scale"] = f"{self.scale} is not positive; give 1, or less for smaller changes."
        if len(set(self.merge)) < len(self.merge):
            problems["merge"] = f"{self.merge} names a run twice; name each once."
        return problems

    def merges(self) -> Sequence[str]:
        """The folders of the further runs."""
        return self.merge

    def variants(self, trained: Trained) -> Iterator[tuple[str, Weights]]:
        """The merged weights of every tensor that any run changed."""
        base = {**trained.others_base, **trained.base}
        runs = (trained.tuned, *trained.others)
        thresholds = [self._thresholds(base, tuned) for tuned in runs]
        merged = {}
        for name in dict.fromkeys(name for tuned in runs for name in tuned):
            changes = [
                _trim(tuned[name] - base[name], threshold[name])
                for tuned, threshold in zip(runs, thresholds, strict=True)
                if name in tuned
            ]
            merged[name] = base[name] + self.scale * agreeing_mean(changes)
        yield "", merged

    def _thresholds(self, base: Weights, tuned: Weights) -> dict[str, float]:
        """The smallest |d| that is kept, per tensor."""
        changes = changes_of(base, tuned)
        if self.scope is Scope.tensor:
            return {name: magnitude_threshold([change], self.density) for name, change in changes.items()}
        return dict.fromkeys(tuned, magnitude_threshold([*changes.values()], self.density))


def changes_of(base: Weights, tuned: Weights) -> dict[str, Callable[[], Tensor]]:
    """Functions that compute d = w - w0 of each tensor in `tuned`, so that only one is in memory at a time."""
    return {name: partial(sub, weight, base[name]) for name, weight in tuned.items()}


def magnitude_threshold(changes: Sequence[Callable[[], Tensor]], density: float) -> float:
    """The exact magnitude that a share `density` of all entries reaches; 0 without tensors.

    A radix select: the bits of magnitudes have the order of the magnitudes, so counting 16 bits at a time finds the
    threshold in memory that does not grow with the model.

    Args:
        changes: each returns a tensor of any shape when called; all have the same floating dtype.
        density: share of the entries, rounded to a whole number of entries, at least one.
    """
    import torch

    integers = {4: torch.int32, 8: torch.int64}
    prefix, rank, dtype = 0, 0, torch.float32
    digits = changes[0]().itemsize // 2 if changes else 0
    for digit in reversed(range(digits)):
        counts = torch.zeros(1 << 16, dtype=torch.int64)
        for change in changes:
            d = change()
            bits, dtype = d.abs().flatten().view(integers[d.itemsize]).long(), d.dtype
            shifted = bits >> (16 * digit)
            counts += torch.bincount(shifted[shifted >> 16 == prefix] & 0xFFFF, minlength=1 << 16).cpu()
        if not counts.any():
            return 0.0
        rank = rank or max(1, round(density * int(counts.sum())))
        from_top = counts.flip(0).cumsum(0)
        bucket = int((from_top >= rank).nonzero()[0])
        rank -= int(from_top[bucket] - counts.flip(0)[bucket])
        prefix = (prefix << 16) | (len(counts) - 1 - bucket)
    return float(torch.tensor(prefix).to(integers[2 * digits]).view(dtype)) if digits else 0.0


def agreeing_mean(changes: Sequence[Tensor]) -> Tensor:
    """For each entry, the mean of the changes that have the sign of their sum; 0 if the sum is 0.

    Args:
        changes: at least one tensor, all of the same shape; zeros are not counted.
    """
    import torch

    elected = torch.stack(tuple(changes)).sum(0).sign()
    total, count = torch.zeros_like(elected), torch.zeros_like(elected)
    for change in changes:
        agrees = (change.sign() == elected) & (elected != 0)
        total += torch.where(agrees, change, 0.0)
        count += agrees
    return total / count.clamp(min=1)


def _trim(change: Tensor, threshold: float) -> Tensor:
    import torch

    return torch.where(change.abs() >= threshold, change, 0.0)
