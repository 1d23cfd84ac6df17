"""The optimiser of a stage."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from forgetbench.config import Optimiser, RecipeConfig
from forgetbench.core.errors import UserError
from forgetbench.models.parts import part_of, word_of


def adamw(
    optimised: Mapping[str, nn.Parameter], trainable: Mapping[str, nn.Parameter], recipe: RecipeConfig
) -> torch.optim.Optimizer:
    """AdamW with a group per word of the recipe's parts; norms and biases (one axis) are not decayed.

    Args:
        optimised: parameters to update, by live name.
        trainable: the model's parameters of the same names.
        recipe: of the stage.

    Raises:
        UserError: the recipe asks for the 8-bit optimiser, and bitsandbytes is not installed.
    """
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in optimised.items():
        part, decays = word_of(name, recipe.parts) or part_of(name), trainable[name].ndim > 1
        peak = float(recipe.lr[part] if isinstance(recipe.lr, Mapping) else recipe.lr)
        decay = recipe.weight_decay if decays else 0.0
        new_group = {"params": [], "part": part, "lr": peak, "peak_lr": peak, "weight_decay": decay}
        groups.setdefault((part, decays), new_group)["params"].append(parameter)
    if recipe.optimiser is Optimiser.adamw_8bit:
        return _adamw_8bit(list(groups.values()))
    return torch.optim.AdamW(list(groups.values()), foreach=False, fused=True)


def _adamw_8bit(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW with moments in 8 bits, block by block (Dettmers et al. 2022, arXiv:2110.02861).

    Tensors of less than 4096 entries keep fp32 moments, as its authors advise.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("recipe.optimiser=adamw_8bit needs bitsandbytes: pip install 'forgetbench[bitsandbytes]'.")
    parent: Any = importlib.import_module("bitsandbytes.optim").AdamW8bit

    class Resumable(parent):  # type: ignore[misc]
        """AdamW8bit whose state is only tensors per parameter, so that a resume point can hold it."""

        @torch.no_grad()
        def update_step(self, group: Any, p: Any, gindex: int, pindex: int) -> None:
            state = self.state[p]
            state["step"] = int(state["step"])
            if "absmax1" in state:
                if not self.name2qmap:  # a resumed process has created no state, and so no maps
                    self.fill_qmap()
                for key, kind in (("qmap1", "dynamic"), ("qmap2", "udynamic")):
                    state[key] = self.name2qmap[kind] = self.name2qmap[kind].to(p.device)
            super().update_step(group, p, gindex, pindex)
            for key in ("qmap1", "qmap2"):  # shared by all parameters
                state.pop(key, None)
            state["step"] = torch.tensor(state["step"])

    optimiser: torch.optim.Optimizer = Resumable(groups)
    return optimiser
