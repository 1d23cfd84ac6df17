"""Model Tailor (Zhu et al. 2024, arXiv:2402.12048): keep a tenth of the weight changes, and compensate for the others.

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
"""Number of columns per block; each row is standardised within blocks."""


class Compensation(StrEnum):
    """How kept entries are corrected for the entries that return to w0."""

    obs = "obs"
    """Optimal Brain Surgeon: they compensate for the change of the layer's output."""
    authors = "authors"
    """As in the authors' code: the same correction with the opposite sign."""
    none = "none"


@dataclass
class ModelTailor(Operation):
    """In each linear layer, keep the highest-scoring entries of w, return the others to w0, and correct the kept ones.

    The score is (1 - sensitivity) z(|w - w0|) + sensitivity z(w^2 / diag(U)^2). z standardises each row in blocks of
    128 columns, U is the upper Cholesky factor of H^-1, and H = 2/n X X^T over the layer's inputs, damped. The columns
    after a returned entry compensate for it through U, as in SparseGPT. This greedy sweep usually lowers the error of
    the layer's output, but need not.

    Differences from the authors' code:

    - Entries compete within the whole layer and are scored before any correction, so every `compensation` keeps the
      same entries. The authors score within 128 columns, after the corrections so far.
    - The inputs are those of the fine-tuned model. The authors use the inputs of the layers already tailored.
    - In a constant block z is 0. In the authors' code it is undefined.
    - Changed tensors other than weights of linear layers (norms, biases, embeddings, a head tied to them) return to w0,
      so that `density` bounds the kept share. In the authors' code all of them but the projector stay tuned.
    - A layer without inputs is scored by |w - w0| only, and not corrected.
    """

    name: str = "model_tailor"
    density: float = 0.1
    """Share of each linear layer's entries to keep."""
    sensitivity: float = 0.2
    """Weight of the second term of the score; one copy of the authors' code has 0.2, another 0.5."""
    calibration: int = 128
    """Number of training items for measuring H: the run's first."""
    damping: float = 0.01
    """Damping of H: this times the mean of its diagonal is added to the diagonal."""
    compensation: Compensation = Compensation.obs
    hessian_gb: float = 4.0
    """Memory for the H of layers measured together; each further group of layers needs another pass over the items."""

    def problems(self) -> Mapping[str, str]:
        """Values out of range."""
        problems = {}
        if not 0 < self.density <= 1:
            problems["density"] = f"{self.density} is no share of entries to keep; give more than 0 and at most 1."
        if not 0 <= self.sensitivity <= 1:
            problems["sensitivity"] = f"{self.sensitivity} is no weight; give 0 to 1."
        if self.calibration < 1:
            problems["calibration"] = f"{self.calibration} is too few; give 1 item or more."
        if not self.damping > 0:
            problems["damping"] = f"{self.damping} is not positive, and H may not be invertible; give 0.01."
        if not self.hessian_gb > 0:
            problems["hessian_gb"] = f"{self.hessian_gb} is no memory; give 1 or more."
        return problems

    def reads_data(self) -> bool:
        """Yes: it measures H on the run's training data."""
        return True

    def variants(self, trained: Trained) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """The tailored weights of the linear layers.

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
                tailored[name] = self.tailor(trained.base[name], trained.tuned[name], hessian_II)
        yield "", tailored

    def tailor(self, base_OI: Tensor, tuned_OI: Tensor, hessian_II: Tensor) -> Tensor:
        """Tailor a layer's weight; if H is zero, nothing is corrected."""
        import torch

        upper_II = inverse_factor(hessian_II, self.damping)
        kept_OI = _top_entries(score(base_OI, tuned_OI, upper_II, self.sensitivity), self.density)
        if upper_II is None or self.compensation is Compensation.none:
            return torch.where(kept_OI, tuned_OI, base_OI)
        return compensate(base_OI, tuned_OI, kept_OI, upper_II, -1 if self.compensation is Compensation.obs else 1)

    def _groups(self, layers: Mapping[str, nn.Linear]) -> Iterator[dict[str, nn.Linear]]:
        """Group layers in order, so that the H of a group fit into memory; at least one layer per group."""
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
    """The run's first `items` items, in its micro-batches; fewer if the run had fewer."""
    for batches in passes.upcoming(items):  # a step has at least one item
        for batch in batches:
            yield batch if len(batch.samples) <= items else passes.batch(batch.samples[:items])
            items -= len(batch.samples)
            if items <= 0:
                return


def score(base_OI: Tensor, tuned_OI: Tensor, upper_II: Tensor | None, sensitivity: float) -> Tensor:
    """(1 - sensitivity) z(|w - w0|) + sensitivity z(w^2 / diag(U)^2); without U, z(|w - w0|)."""
    change_OI = _standardise((tuned_OI - base_OI).abs())
    if upper_II is None:
        return change_OI
    return (1 - sensitivity) * change_OI + sensitivity * _standardise((tuned_OI / upper_II.diagonal()) ** 2)


def _standardise(values_OI: Tensor) -> Tensor:
    import torch

    blocks = []
    for block in torch.split(values_OI, BLOCK, dim=1):
        mean, spread = block.mean(1, keepdim=True), block.std(1, keepdim=True, correction=min(1, block.shape[1] - 1))
        # Rounding gives equal values a small spread.
        blocks.append(torch.where(spread > 1e-6 * mean.abs(), (block - mean) / spread, 0.0))
    return torch.cat(blocks, 1)


def _top_entries(scores_OI: Tensor, density: float) -> Tensor:
    """A mask of the given share of entries with the highest scores; at least one entry."""
    import torch

    kept_OI = torch.zeros_like(scores_OI, dtype=torch.bool)
    top = scores_OI.flatten().topk(max(1, round(density * scores_OI.numel())), sorted=False).indices
    kept_OI.view(-1)[top] = True
    return kept_OI
