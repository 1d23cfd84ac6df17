"""TIES-Merging (Yadav et al. 2023, arXiv:2306.01708): trim each run's changes, elect signs, average what agrees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
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
        if self.scope is Scope.tensor:
            return {name: smallest_kept([w - base[name]], w.numel(), self.density) for name, w in tuned.items()}
        entries = sum(w.numel() for w in tuned.values())
        return dict.fromkeys(tuned, smallest_kept((w - base[name] for name, w in tuned.items()), entries, self.density))


def smallest_kept(changes: Iterable[Tensor], entries: int, density: float) -> float:
    """The magnitude that the share `density` of all entries reaches.

    Args:
        changes: tensors of any shape, looked at one by one.
        entries: how many entries they have together.
        density: share of them, rounded to a whole number of entries, at least one.
    """
    import torch

    kept = max(1, round(density * entries))
    largest = torch.empty(0)
    for change in changes:
        both = torch.cat([largest.to(change.device), change.abs().flatten()])
        largest = both.topk(min(kept, len(both)), sorted=False).values
    return float(largest.min()) if len(largest) else 0.0


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
