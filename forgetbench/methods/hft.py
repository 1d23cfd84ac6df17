"""Half fine-tuning (Hui et al. 2024, arXiv:2404.18466): a random half of the projection matrices stays frozen."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.methods.base import Method


@dataclass
class HFT(Method):
    """Freeze half of the trainable projection matrices of each block in the whole run.

    A block is the linear layers of a module, such as q, k, v, o of a layer's attention; half of them are frozen. If
    their number is odd (up, gate, down), the half is rounded down, and an additional matrix is frozen in a random half
    of the blocks that differ only in the layer's number. With an even number of layers, exactly half of the matrices
    stay at w0. This is not half of the parameters if the matrices differ in size; a run's audit states the share.

    Vision tower and projector are treated the same way. Embeddings, head, norms and biases (also a frozen matrix's
    bias) train as the recipe says, as do matrices that are not linear layers (fused experts). The authors draw another
    half for every round of training; here a single draw, from the seed and the blocks' names, holds for all stages.
    """

    name: str = "hft"

    def against_sharding(self) -> str:
        """Supported: whole matrices are frozen, by name."""
        return ""

    def frozen(self, model: Any, trainable: Collection[str], seed: int) -> Collection[str]:
        """Weights of half of the trainable linear layers.

        Raises:
            UserError: no block has two trainable linear layers.
        """
        blocks = _blocks(model, set(trainable))
        chosen = {name for block, count in _counts(blocks, seed).items() for name in _draw(blocks[block], count, seed)}
        if not chosen:
            raise UserError(
                "method=hft: no module with two linear layers is trainable, so there is no half to freeze; "
                "add language to recipe.parts, or use method=plain."
            )
        return chosen


def _blocks(model: Any, trainable: Collection[str]) -> dict[str, list[str]]:
    """Module -> names of the trainable weights of its linear layers."""
    from forgetbench.core.records import PARTS
    from forgetbench.models.parts import linear_layers

    blocks: dict[str, list[str]] = {}
    for layer in (layer for part in PARTS for layer in linear_layers(model, part)):
        if f"{layer}.weight" in trainable:
            blocks.setdefault(layer.rpartition(".")[0], []).append(f"{layer}.weight")
    return blocks


def _counts(blocks: Mapping[str, Collection[str]], seed: int) -> dict[str, int]:
    """Number of frozen matrices of each block."""
    groups: dict[tuple[str, int], list[str]] = {}
    for block, names in blocks.items():
        groups.setdefault((re.sub(r"\.\d+(?=\.|$)", "", block), len(names)), []).append(block)
    counts = {block: len(names) // 2 for block, names in blocks.items()}
    for (_, size), group in groups.items():
        if size % 2:
            group.sort(key=lambda block: Random(f"{seed} one more {block}").random())
            for block in group[: len(group) // 2]:
                counts[block] += 1
    return counts


def _draw(names: Collection[str], count: int, seed: int) -> list[str]:
    return Random(f"{seed} {min(names)}").sample(sorted(names), count)
