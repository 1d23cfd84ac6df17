"""Optimal Brain Surgeon for linear layers: measure a layer's inputs, and compensate removed changes by kept weights.

Shapes: O and I outputs and inputs of a linear layer, B items, T tokens, N input vectors of a layer.
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
"""Columns corrected at a time, as in SparseGPT."""


def linear_layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Linear]:
    """The linear layers whose weights are among `names`, by the name of the weight.

    A head tied to the embedding is not included, because the embedding owns the weight.
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
    """Yield (name, H = 2/N sum x x^T), (I, I) in fp32, of each layer; zeros if the layer has no inputs.

    Sums are updated in each pass, without storing inputs. Padding is left out in layers that process the batch's
    tokens.

    Args:
        layers: weight name -> layer.
        passes: forward passes of the layers' model.
        weights: weights that replace the model's.
        batches: inputs of the model.
    """
    import torch

    sums = {
        name: torch.zeros(layer.in_features, layer.in_features, device=layer.weight.device)
        for name, layer in layers.items()
    }
    n_inputs = dict.fromkeys(layers, 0)

    def add(name: str, mask_BT: Tensor | None, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        x_NI = without_padding(name, args[0], mask_BT).float()
        sums[name].addmm_(x_NI.T, x_NI)
        n_inputs[name] += len(x_NI)

    for batch in batches:
        mask_BT = batch.inputs.get("attention_mask")
        with ExitStack() as hooks:
            for name, layer in layers.items():
                hooks.callback(layer.register_forward_pre_hook(partial(add, name, mask_BT)).remove)
            passes.reference(batch, weights)
    for name in layers:
        yield name, sums.pop(name).mul_(2 / max(1, n_inputs[name]))


def without_padding(name: str, inputs: Tensor, mask_BT: Tensor | None) -> Tensor:
    """A layer's inputs as rows (N, I), without padding.

    Only layers of the language part process the batch's tokens: all tokens or, in the head, perhaps the last few.
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

    The results of this module do not depend on the scale of H.
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
    """Return entries that are not kept to exactly w0, column by column, and correct the later columns.

    The sweep is that of SparseGPT (Frantar and Alistarh 2023, arXiv:2301.00774), which returns entries to 0 instead of
    w0: with e = (w_i - w0_i) / U_ii, the columns j > i become w_j - e U_ij.

    Args:
        base_OI: w0.
        tuned_OI: w.
        kept_OI: mask of entries to keep.
        upper_II: U, from `inverse_factor`.
        sign: sign of the correction; -1 is Optimal Brain Surgeon.
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
