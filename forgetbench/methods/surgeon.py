"""Optimal Brain Surgeon for linear layers: what each has seen, and how its kept weights take up what others lose.

Shapes: O and I outputs and inputs of a linear layer, B items, T tokens, N inputs that a layer has seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from forgetbench.methods.base import Batch, Passes
from forgetbench.models.parts import part_of

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCK = 128
"""Columns corrected at once, as in SparseGPT."""


def linear_layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Linear]:
    """The linear layers among the owners of some parameters, by the weight's live name.

    A head tied to the embedding is none of them: the embedding owns the weight.
    """
    from torch import nn

    wanted = set(names)
    return {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" in wanted
    }


def hessians(
    layers: Mapping[str, nn.Linear], passes: Passes, weights: Mapping[str, Tensor], batches: Iterable[Batch]
) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, H = 2/N sum x x^T), (I, I) in fp32, of each layer; zeros if the layer saw no input.

    Inputs are added up as they come and never kept; padding is left out where the layer sees the batch's tokens.

    Args:
        layers: by weight name.
        passes: of their model.
        weights: the model's own are replaced by these.
        batches: what the model is shown.
    """
    import torch

    sums = {
        name: torch.zeros(layer.in_features, layer.in_features, device=layer.weight.device)
        for name, layer in layers.items()
    }
    seen = dict.fromkeys(layers, 0)

    def add(name: str, mask_BT: Tensor | None, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        x_NI = without_padding(name, args[0], mask_BT).float()
        sums[name].addmm_(x_NI.T, x_NI)
        seen[name] += len(x_NI)

    for batch in batches:
        mask_BT = batch.inputs.get("attention_mask")
        with ExitStack() as hooks:
            for name, layer in layers.items():
                hooks.callback(layer.register_forward_pre_hook(partial(add, name, mask_BT)).remove)
            passes.reference(batch, weights)
    for name in layers:
        yield name, sums.pop(name).mul_(2 / max(1, seen[name]))


def without_padding(name: str, inputs: Tensor, mask_BT: Tensor | None) -> Tensor:
    """A layer's inputs as rows (N, I), without those at padding.

    Only the language part sees the batch's tokens: all of them or, as its head may, the last few.
    """
    shape = inputs.shape
    rows_NI = inputs.reshape(-1, shape[-1])
    if mask_BT is None or len(shape) != 3 or shape[0] != len(mask_BT) or part_of(name) != "language":
        return rows_NI
    left_out = mask_BT.shape[1] - shape[1]
    if left_out < 0 or (left_out > 0 and not name.startswith("lm_head.")):
        return rows_NI
    return rows_NI[mask_BT[:, left_out:].flatten() != 0]


def inverse_factor(hessian_II: Tensor, damping: float) -> Tensor | None:
    """Upper U with U^T U = (H + damping * mean(diag H) * 1)^-1, computed in fp64; None if H is 0.

    The scale of H does not matter to what this module computes with U.
    """
    import torch

    h_II = hessian_II.double()
    mean = h_II.diagonal().mean()
    if mean == 0:
        return None
    h_II.diagonal().add_(damping * mean)
    inverse_II = torch.cholesky_inverse(torch.linalg.cholesky(h_II))
    upper_II: Tensor = torch.linalg.cholesky(inverse_II, upper=True)
    return upper_II.float()


def compensate(base_OI: Tensor, tuned_OI: Tensor, kept_OI: Tensor, upper_II: Tensor, sign: int = -1) -> Tensor:
    """Return what is not kept to w0, exactly, column by column; the columns after it take up the difference.

    The sweep is SparseGPT's (Frantar and Alistarh 2023, arXiv:2301.00774), which returns to 0 what this returns to w0:
    with e = (w_i - w0_i) / U_ii, the columns j > i become w_j - e U_ij.

    Args:
        base_OI: w0.
        tuned_OI: w.
        kept_OI: entries that do not return.
        upper_II: of `inverse_factor`.
        sign: of the correction; -1 is Optimal Brain Surgeon.
    """
    import torch

    w_OI = tuned_OI.clone()
    for start in range(0, w_OI.shape[1], BLOCK):
        stop = min(start + BLOCK, w_OI.shape[1])
        errors = torch.zeros_like(w_OI[:, start:stop])
        for i in range(start, stop):
            column = torch.where(kept_OI[:, i], w_OI[:, i], base_OI[:, i])
            errors[:, i - start] = (w_OI[:, i] - column) / upper_II[i, i]
            w_OI[:, i] = column
            w_OI[:, i + 1 : stop].addr_(errors[:, i - start], upper_II[i, i + 1 : stop], alpha=sign)
        w_OI[:, stop:].addmm_(errors, upper_II[start:stop, stop:], alpha=sign)
    return w_OI
