"""Sampling that does not depend on the batch: each item has its random generator."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, TopPLogitsWarper


class ItemNoise(LogitsProcessor):
    """Turns greedy decoding into sampling: the largest of log-probabilities plus Gumbel noise is a draw from them."""

    def __init__(self, item_ids: Sequence[str], temperature: float, top_p: float, seed: int) -> None:
        """Seed one generator per item.

        Args:
            item_ids: by row of the batch.
            temperature: divides the scores.
            top_p: keep the likeliest tokens that together have this probability.
            seed: of the draws; another seed gives other answers.
        """
        self._temperature, self._warp = temperature, TopPLogitsWarper(top_p) if top_p < 1 else None
        self._generators = []
        for item_id in item_ids:
            digest = hashlib.sha256(f"{seed}/{item_id}".encode()).digest()
            self._generators.append(torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) of the next token, with noise."""
        scores = scores.float() / self._temperature
        if self._warp is not None:
            scores = self._warp(input_ids, scores)
        uniform = torch.stack([torch.rand(scores.shape[1], generator=generator) for generator in self._generators])
        return scores - torch.log(-torch.log(uniform.clamp(min=1e-20))).to(scores.device)
