"""TIES-Merging (Yadav et al. 2023, arXiv:2306.01708): trim each run's changes, elect signs, average what agrees."""

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
    """Among what an entry must be one of the largest to survive."""

    run = "run"
    """All tensors that the run changed, as in the paper."""
    tensor = "tensor"
    """Its own tensor."""


@dataclass
class Ties(Operation):
    """w0 + scale * m, with m merged from the changes d_k = w_k - w0 of this run and of the runs in `merge`.

    Entry by entry: d_k is set to 0 unless it is among the largest; the sign of the sum of what is left is elected; m is
    the mean of those that have this sign. Where the sum is exactly 0 no sign is elected and m is 0 (the authors' code
    elects the sign that most entries of the model have). A tensor that a run left unchanged counts as 0 there.
    Without other runs m is the trimmed change.
    """

    name: str = "ties"
    merge: list[str] = field(default_factory=list)
    """Folders of further runs of the same base."""
    density: float = 0.2
    """Share of a run's entries that survive, of the tensors it changed; equals of the smallest survive as well."""
    scope: Scope = Scope.run
    scale: float = 1.0
    """The paper's lambda; 1 is its choice where nothing can be validated."""

    def problems(self) -> Mapping[str, str]:
        """Shares that are none, a scale that undoes the training, and a run that would count twice."""
        found = {}
        if not 0 < self.density <= 1:
            found["density"] = f"{self.density} is no share of entries to keep; give more than 0 and at most 1."
        if not self.scale > 0:
            found["scale"] = f"{self.scale} is not positive; give 1, or less for smaller changes."
        if len(set(self.merge)) < len(self.merge):
            found["merge"] = f"{self.merge} names a run twice; name each once."
        return found

    def merges(self) -> Sequence[str]:
        """The further runs."""
        return self.merge

    def variants(self, trained: Trained) -> Iterator[tuple[str, Weights]]:
        """The merged model: every tensor that any of the runs changed."""
        base = {**trained.others_base, **trained.base}
        runs = (trained.tuned, *trained.others)
        thresholds = [self._thresholds(base, tuned) for tuned in runs]
        merged = {}
        for name in dict.fromkeys(name for tuned in runs for name in tuned):
            changes = [
                _trimmed(tuned[name] - base[name], threshold[name])
                for tuned, threshold in zip(runs, thresholds, strict=True)
                if name in tuned
            ]
            merged[name] = base[name] + self.scale * agreeing_mean(changes)
        yield "", merged

    def _thresholds(self, base: Weights, tuned: Weights) -> dict[str, float]:
        """The smallest |d| that survives, per tensor."""
        changes = changes_of(base, tuned)
        if self.scope is Scope.tensor:
            return {name: smallest_kept([change], self.density) for name, change in changes.items()}
        return dict.fromkeys(tuned, smallest_kept([*changes.values()], self.density))


def changes_of(base: Weights, tuned: Weights) -> dict[str, Callable[[], Tensor]]:
    """What makes d = w - w0 of each tensor of `tuned`, one at a time."""
    return {name: partial(sub, weight, base[name]) for name, weight in tuned.items()}


def smallest_kept(changes: Sequence[Callable[[], Tensor]], density: float) -> float:
    """The magnitude that the share `density` of all entries reaches, exactly; 0 of nothing.

    Magnitudes order like their bits, so counting by 16 bits at a time finds it: memory does not grow with the model.

    Args:
        changes: each gives one tensor of any shape when it is its turn; all of one floating type.
        density: share of the entries, rounded to a whole number of them, at least one.
    """
    import torch

    integers = {4: torch.int32, 8: torch.int64}
    found, wanted, dtype = 0, 0, torch.float32
    digits = changes[0]().itemsize // 2 if changes else 0
    for digit in reversed(range(digits)):
        counts = torch.zeros(1 << 16, dtype=torch.int64)
        for change in changes:
            d = change()
            bits, dtype = d.abs().flatten().view(integers[d.itemsize]).long(), d.dtype
            shifted = bits >> (16 * digit)
            counts += torch.bincount(shifted[shifted >> 16 == found] & 0xFFFF, minlength=1 << 16).cpu()
        if not counts.any():
            return 0.0
        wanted = wanted or max(1, round(density * int(counts.sum())))
        from_top = counts.flip(0).cumsum(0)
        place = int((from_top >= wanted).nonzero()[0])
        wanted -= int(from_top[place] - counts.flip(0)[place])
        found = (found << 16) | (len(counts) - 1 - place)
    return float(torch.tensor(found).to(integers[2 * digits]).view(dtype)) if digits else 0.0


def agreeing_mean(changes: Sequence[Tensor]) -> Tensor:
    """Entry by entry, the mean of the changes that have the sign of their sum; 0 where the sum is 0.

    Args:
        changes: at least one, all of one shape; zeros are never counted.
    """
    import torch

    elected = torch.stack(tuple(changes)).sum(0).sign()
    total, count = torch.zeros_like(elected), torch.zeros_like(elected)
    for change in changes:
        agrees = (change.sign() == elected) & (elected != 0)
        total += torch.where(agrees, change, 0.0)
        count += agrees
    return total / count.clamp(min=1)


def _trimmed(change: Tensor, threshold: float) -> Tensor:
    import torch

    return torch.where(change.abs() >= threshold, change, 0.0)
