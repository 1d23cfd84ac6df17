"""The dtype of a model's weights and the precision of its passes. Importing this module does not import torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forgetbench.config import Dtype, ModelConfig, Quantisation
from forgetbench.core.errors import UserError
from forgetbench.core.records import Precision

if TYPE_CHECKING:
    from torch import nn

FLASH = "flash_attention_2"


def flash_runs() -> bool:
    """Whether this machine has a CUDA GPU and a flash-attn version that transformers supports."""
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


def resolve_attention(
    model: ModelConfig, *precisions: Precision, available: Callable[[], bool] = flash_runs
) -> ModelConfig:
    """Replace `auto` in a model's configuration by the attention kernel that will run.

    Args:
        model: the model's configuration.
        precisions: precisions of all known passes; by default the precision that follows from the weights' dtype.
        available: whether FlashAttention-2 can run here.

    Raises:
        UserError: the requested kernel cannot run here; another kernel would give other bits.
    """
    if model.attention == FLASH and not available():
        raise UserError(
            f"model.attention={FLASH} needs a CUDA GPU and flash-attn 2.3.3 or later (pip install flash-attn). A run "
            "that was trained with it is scored where it runs; for a new one set model.attention=auto or sdpa."
        )
    if model.attention != "auto":
        return model
    half = all(precision is Precision.bf16 for precision in precisions) if precisions else model.dtype is Dtype.bf16
    return replace(model, attention=FLASH if half and available() else "sdpa")


def at_precision(model: Any, precision: Precision) -> None:
    """Prepare a loaded model for passes of a precision: fp32 passes need fp32 weights, to which bf16 converts exactly.

    Raises:
        UserError: fp32 is not possible with 4-bit weights or FlashAttention-2, which compute in bf16.
    """
    if precision is not Precision.fp32:
        return
    if any(is_packed(parameter) for parameter in model.parameters()):
        raise UserError("matrix.precision=fp32: 4-bit weights (nf4) compute in bf16; set matrix.precision=bf16.")
    if getattr(model.config, "_attn_implementation", None) == FLASH:
        raise UserError(
            f"matrix.precision=fp32: {FLASH} computes in bf16; set matrix.precision=bf16, or train with "
            "model.attention=sdpa."
        )
    widen(model.parameters())


def widen(parameters: Collection[nn.Parameter] | Iterator[nn.Parameter]) -> None:
    """Convert parameters to fp32 in place; their values do not change."""
    for parameter in parameters:
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()


def is_narrow(model: Any) -> bool:
    """Whether some weights have a dtype narrower than fp32, so that passes need autocast."""
    return any(is_packed(parameter) or parameter.element_size() < 4 for parameter in model.parameters())


def is_packed(parameter: nn.Parameter) -> bool:
    """Whether a weight is stored as 4-bit codes, two per byte."""
    return not parameter.is_floating_point()


def scored_digest(digest: str, model: ModelConfig, precision: Precision) -> str:
    """The digest by which cells identify a model; includes the dtype if it changes the last bits of predictions.

    A model's digest covers values only. fp32 passes give the same results for equal values in any dtype. In bf16
    passes, norms and the residual stream are bf16 if the weights are bf16, but fp32 if the weights are fp32.
    """
    if precision is Precision.fp32 or model.dtype is Dtype.fp32 or model.quantisation is not Quantisation.none:
        return digest
    return hashlib.sha256(f"{digest} held in {model.dtype}".encode()).hexdigest()
