"""Model Tailor (Zhu et al. 2024, arXiv:2402.12048): keep a tenth of the weights' changes, corrected for the rest.

Shapes: O and I outputs and inputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from forgetbench.core.errors import UserError
from forgetbench.methods.base import Batch, Passes
from forgetbench.methods.operation import Operation, Trained
from forgetbench.methods.surgeon import compensate, hessians, inverse_factor, linear_layers

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCK = 128
"""Columns in which a row is standardised."""


class Compensation(StrEnum):
    """What the kept entries do about those that return."""

    obs = "obs"
    """Optimal Brain Surgeon: they take up the change of the layer's output."""
    authors = "authors"
    """As in the authors' code: the same correction with the other sign."""
    none = "none"


@dataclass
class ModelTailor(Operation):
    """Per linear layer, keep the entries of w that score highest, return the others to w0, and correct the kept ones.

    The score is (1 - sensitivity) z(|w - w0|) + sensitivity z(w^2 / diag(U)^2): z standardises each row in blocks of
    128 columns, U is the upper Cholesky factor of H^-1, and H = 2/n X X^T over the layer's inputs, damped. Returning an
    entry makes a difference that the columns after it take up, through U, as in SparseGPT: a greedy sweep, which
    lowers the error of the layer's output as a rule and not by necessity.

    It follows the authors' code but for these choices. Entries compete within their whole layer and are scored before
    any correction, so that every `compensation` keeps the same ones; there, within 128 columns, as corrected so far.
    The inputs are the fine-tuned model's; there, those of the layers already tailored. Where a block is constant z is
    0; there, undefined. A changed tensor that is no linear layer's own weight (norms, biases, embeddings, a head tied
    to them) returns to w0, so that `density` bounds what is kept; there, all but the projector stay tuned. A layer that
    saw no input is scored by |w - w0| alone and not corrected.
    """

    name: str = "model_tailor"
    density: float = 0.1
    """Share of each linear layer's entries that are kept."""
    sensitivity: float = 0.2
    """Weight of the second score; the authors' code has 0.2 in one copy and 0.5 in another."""
    calibration: int = 128
    """Training items that H is measured on, the run's first."""
    damping: float = 0.01
    """Added to H's diagonal, times its mean."""
    compensation: Compensation = Compensation.obs
    hessian_gb: float = 4.0
    """Memory for the H of layers measured together; the items are passed once more for each further group."""

    def problems(self) -> Mapping[str, str]:
        """Settings without meaning."""
        found = {}
        if not 0 < self.density <= 1:
            found["density"] = f"{self.density} is no share of entries to keep; give more than 0 and at most 1."
        if not 0 <= self.sensitivity <= 1:
            found["sensitivity"] = f"{self.sensitivity} is no weight; give 0 to 1."
        if self.calibration < 1:
            found["calibration"] = f"{self.calibration} is too few; give 1 item or more."
        if not self.damping > 0:
            found["damping"] = f"{self.damping} is not positive, and H may not be invertible; give 0.01."
        if not self.hessian_gb > 0:
            found["hessian_gb"] = f"{self.hessian_gb} is no memory; give 1 or more."
        return found

    def reads_data(self) -> bool:
        """On the run's training data."""
        return True

    def variants(self, trained: Trained) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """The tailored model: its linear layers' weights.

        Raises:
            UserError: training changed no linear layer's weight.
        """
        layers = linear_layers(trained.model, trained.tuned)
        if not layers:
            raise UserError("method=model_tailor: the run changed no linear layer's weight; choose another run.")
        tailored = {}
        for group in self._groups(layers):
            items = first_items(trained.passes, self.calibration)
            for name, hessian_II in hessians(group, trained.passes, trained.tuned, items):
                tailored[name] = self.tailored(trained.base[name], trained.tuned[name], hessian_II)
        yield "", tailored

    def tailored(self, base_OI: Tensor, tuned_OI: Tensor, hessian_II: Tensor) -> Tensor:
        """One layer's weight; without H (zeros) nothing is corrected."""
        import torch

        upper_II = inverse_factor(hessian_II, self.damping)
        kept_OI = _best(score(base_OI, tuned_OI, upper_II, self.sensitivity), self.density)
        if upper_II is None or self.compensation is Compensation.none:
            return torch.where(kept_OI, tuned_OI, base_OI)
        return compensate(base_OI, tuned_OI, kept_OI, upper_II, -1 if self.compensation is Compensation.obs else 1)

    def _groups(self, layers: Mapping[str, nn.Linear]) -> Iterator[dict[str, nn.Linear]]:
        """Layers in their order, as many at a time as have H that fit into memory, at least one."""
        group: dict[str, nn.Linear] = {}
        used = 0
        for name, layer in layers.items():
            size = 4 * layer.in_features**2
            if group and used + size > self.hessian_gb * 2**30:
                yield group
                group, used = {}, 0
            group[name] = layer
            used += size
        yield group


def first_items(passes: Passes, items: int) -> Iterator[Batch]:
    """The first items of the run, in its micro-batches; fewer if the run had fewer."""
    for batches in passes.upcoming(items):  # a step has at least one item
        for batch in batches:
            yield batch if len(batch.samples) <= items else passes.batch(batch.samples[:items])
            items -= len(batch.samples)
            if items <= 0:
                return


def score(base_OI: Tensor, tuned_OI: Tensor, upper_II: Tensor | None, sensitivity: float) -> Tensor:
    """(1 - sensitivity) z(|w - w0|) + sensitivity z(w^2 / diag(U)^2); the first term alone without U."""
    change_OI = _standardised((tuned_OI - base_OI).abs())
    if upper_II is None:
        return change_OI
    return (1 - sensitivity) * change_OI + sensitivity * _standardised((tuned_OI / upper_II.diagonal()) ** 2)


def _standardised(values_OI: Tensor) -> Tensor:
    import torch

    blocks = []
    for block in torch.split(values_OI, BLOCK, dim=1):
        mean, spread = block.mean(1, keepdim=True), block.std(1, keepdim=True, correction=min(1, block.shape[1] - 1))
        # Rounding gives equal values a spread of its own.
        blocks.append(torch.where(spread > 1e-6 * mean.abs(), (block - mean) / spread, 0.0))
    return torch.cat(blocks, 1)


def _best(scores_OI: Tensor, density: float) -> Tensor:
    """True at the given share of entries, those with the highest scores; at least one."""
    import torch

    kept_OI = torch.zeros_like(scores_OI, dtype=torch.bool)
    best = scores_OI.flatten().topk(max(1, round(density * scores_OI.numel())), sorted=False).indices
    kept_OI.view(-1)[best] = True
    return kept_OI
