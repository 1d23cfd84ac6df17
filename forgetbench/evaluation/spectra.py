"""Measures of hidden states at picture tokens, as running values: effective rank, drift and similarity.

Hidden states come in as fp32 and are summed in fp64; no sum grows with the number of pictures.
Shapes: N pictures, P picture tokens of one picture, D hidden size, S singular values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def effective_ranks(z_NPD: Tensor, centred: bool = False) -> Tensor:
    """Effective rank of every matrix: exp of the entropy of its singular values' shares (Roy & Vetterli 2007).

    Singular values are roots of the smaller Gram matrix's eigenvalues, several times faster than a decomposition of
    Z; those below what fp32 can hold beside Z's norm count as 0.

    Args:
        z_NPD: one matrix per picture.
        centred: subtract each matrix's mean over its P tokens first.

    Returns:
        fp64 (N,), between 1 and min(P, D); not a number for a matrix of zeros.
    """
    z_NPD = z_NPD.double()
    least_N = torch.finfo(torch.float32).eps * torch.linalg.matrix_norm(z_NPD)
    if centred:
        z_NPD = z_NPD - z_NPD.mean(1, keepdim=True)
    gram = z_NPD @ z_NPD.mT if z_NPD.shape[1] <= z_NPD.shape[2] else z_NPD.mT @ z_NPD
    values_NS = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    values_NS = torch.where(values_NS > least_N[:, None], values_NS, 0.0)
    shares_NS = values_NS / values_NS.sum(-1, keepdim=True)
    ranks_N: Tensor = torch.special.entr(shares_NS).sum(-1).exp()
    return ranks_N


def effective_rank(z_PD: Tensor, centred: bool = False) -> float | None:
    """Effective rank of one matrix, as `effective_ranks`; None for a matrix of zeros."""
    rank = float(effective_ranks(z_PD[None], centred)[0])
    return None if math.isnan(rank) else rank


class MeanEffectiveRank:
    """Mean effective rank over pictures, one matrix per picture; matrices of zeros are left out."""

    def __init__(self, centred: bool = False) -> None:
        """Start empty; `centred` as for `effective_ranks`."""
        self._centred, self._n, self._sum = centred, 0, 0.0

    def add(self, pictures: Sequence[Tensor]) -> None:
        """Add pictures (P, D); P may differ. Pictures of equal P are decomposed together."""
        for length in sorted({len(picture) for picture in pictures}):
            ranks_N = effective_ranks(
                torch.stack([picture for picture in pictures if len(picture) == length]), self._centred
            )
            ranks_N = ranks_N[~ranks_N.isnan()]
            self._n, self._sum = self._n + len(ranks_N), self._sum + float(ranks_N.sum())

    @property
    def value(self) -> float | None:
        """The mean; None of nothing."""
        return self._sum / self._n if self._n else None


class MeanDrift:
    """Visual drift: ||h - h0||_1 over D, averaged over a picture's tokens, then over pictures.

    Reconstructed from the description of MDGD (arXiv 2502.11740).
    """

    def __init__(self) -> None:
        """Start empty."""
        self._n, self._sum = 0, 0.0

    def add(self, base: Sequence[Tensor], tuned: Sequence[Tensor]) -> None:
        """Add pictures (P, D) as the base and the tuned model see them."""
        for before_PD, after_PD in zip(base, tuned, strict=True):
            self._sum += float((after_PD.double() - before_PD.double()).abs().sum(-1).mean())
            self._n += 1

    @property
    def value(self) -> float | None:
        """The mean; None of nothing."""
        return self._sum / self._n if self._n else None


class UnbiasedHSIC:
    """Unbiased HSIC of two linear kernels (Song et al. 2012, eq. 5), from sums of D x D and smaller.

    With K = X X', L = Y Y', diagonals set to 0,
        HSIC = [tr(KL) + (1'K1)(1'L1) / ((n-1)(n-2)) - 2/(n-2) 1'KL1] / (n(n-3)),
        tr(KL)  = ||X'Y||^2 - sum |x|^2 |y|^2
        1'K1    = |sum x|^2 - sum |x|^2
        1'KL1   = (sum x)'(X'Y)(sum y) - (sum x)'(sum x|y|^2) - (sum y)'(sum y|x|^2) + sum |x|^2 |y|^2.
    It does not change when X or Y is shifted: a shift adds a_i + a_j to K off the diagonal, which the three terms
    cancel. So both are taken relative to their first row: large means would cost digits.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._n = 0
        self._first: tuple[Tensor, Tensor] | None = None
        self._sums: list[Tensor] = []

    def add(self, x_ND: Tensor, y_ND: Tensor) -> None:
        """Add examples, a row each in both; their hidden sizes may differ."""
        x_ND, y_ND = x_ND.double(), y_ND.double()
        if self._first is None:
            self._first = x_ND[0].clone(), y_ND[0].clone()
        x_ND, y_ND = x_ND - self._first[0], y_ND - self._first[1]
        xx_N, yy_N = x_ND.square().sum(-1), y_ND.square().sum(-1)
        sums = [x_ND.mT @ y_ND, x_ND.sum(0), y_ND.sum(0), yy_N @ x_ND, xx_N @ y_ND, xx_N.sum(), yy_N.sum(), xx_N @ yy_N]
        self._sums = [old + new for old, new in zip(self._sums, sums, strict=True)] if self._sums else sums
        self._n += len(x_ND)

    @property
    def value(self) -> float | None:
        """The estimate; None of fewer than four examples."""
        n = self._n
        if n < 4:
            return None
        cross_DD, x_D, y_D, x_by_yy_D, y_by_xx_D, xx, yy, xxyy = self._sums
        trace = cross_DD.square().sum() - xxyy
        total = (x_D @ x_D - xx) * (y_D @ y_D - yy)
        rows = x_D @ cross_DD @ y_D - x_D @ x_by_yy_D - y_D @ y_by_xx_D + xxyy
        return float((trace + total / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows) / (n * (n - 3)))


class LinearCKA:
    """Linear CKA (Kornblith et al. 2019) with the unbiased HSIC: 1 for equal features up to rotation, scale and shift.

    Being unbiased it can be slightly below 0 for unrelated features.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._xy, self._xx, self._yy = UnbiasedHSIC(), UnbiasedHSIC(), UnbiasedHSIC()

    def add(self, x_ND: Tensor, y_ND: Tensor) -> None:
        """Add examples, a row each in both."""
        self._xy.add(x_ND, y_ND)
        self._xx.add(x_ND, x_ND)
        self._yy.add(y_ND, y_ND)

    @property
    def value(self) -> float | None:
        """The similarity; None of fewer than four examples, or where all are the same."""
        xy, xx, yy = self._xy.value, self._xx.value, self._yy.value
        if xy is None or xx is None or yy is None or xx <= 0 or yy <= 0:
            return None
        return float(xy / (xx * yy) ** 0.5)
