"""How far weights moved from the base, by model part; adapters are merged into their layers first."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forgetbench.core.records import PARTS
from forgetbench.evaluation.representation import PartDistance
from forgetbench.models.parts import part_of


@dataclass
class _PartSums:
    """Sums over one part's entries."""

    squared_distance: float = 0.0
    """||w - w0||^2."""
    squared_norm: float = 0.0
    """||w0||^2."""
    changed: int = 0
    entries: int = 0

    def add(self, before: Tensor, after: Tensor) -> None:
        self.squared_norm += _squared_norm(before)
        self.entries += before.numel()
        if after is not before:
            self.squared_distance += _squared_norm(after - before)
            self.changed += int((_bits(after) != _bits(before)).sum())

    def distance(self, part: str) -> PartDistance:
        distance, size = self.squared_distance**0.5, self.squared_norm**0.5
        return PartDistance(part, distance, distance / size if size else None, self.changed / self.entries)


@torch.no_grad()
def part_distances(model: Any, base: Mapping[str, Tensor], without: Collection[str] = ()) -> list[PartDistance]:
    """L2 distance, relative distance and share of changed weights of every part that the model has.

    The weight of a layer with adapters is the merged weight, both at the checkpoint and at the base.

    Args:
        model: at the checkpoint, adapters attached.
        base: base values of what the checkpoint changed, by live name.
        without: parts to leave out.
    """
    sums: defaultdict[str, _PartSums] = defaultdict(_PartSums)
    for name, before, after in _weight_pairs(model, base, without):
        sums[part_of(name)].add(before, after)
    return [sums[part].distance(part) for part in PARTS if part in sums]


def _weight_pairs(
    model: Any, base: Mapping[str, Tensor], without: Collection[str]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(Name, value at the base, value now) of every weight; the same tensor object twice if it is unchanged."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted: dict[str, Any] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer) and part_of(f"{name}.") not in without
    }
    inside = tuple(f"{name}." for name in adapted)
    for name, after in model.named_parameters():
        if not name.startswith(inside) and part_of(name) not in without:
            yield name, base.get(name, after), after
    for prefix, module in adapted.items():
        base_values = {
            name: base[f"{prefix}.{name}"] for name, _ in module.named_parameters() if f"{prefix}.{name}" in base
        }
        after_by_name = _merge_adapters(module, {})
        before_by_name = _merge_adapters(module, base_values) if base_values else after_by_name
        for name, after in after_by_name.items():
            yield f"{prefix}.{name}", before_by_name[name], after


def _merge_adapters(module: Any, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The merged weights of one adapted layer, with `values` in place of its parameters; the layer is unchanged."""
    copied = copy.deepcopy(module).float()  # merged in bf16, small adapters would be lost
    parameters = dict(copied.named_parameters())
    for name, value in values.items():
        parameters[name].copy_(value)
    copied.merge()
    return dict(copied.get_base_layer().named_parameters())


def _squared_norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2


def _bits(tensor: Tensor) -> Tensor:
    """An integer per entry: two are equal only if all bits of the entries are."""
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])
