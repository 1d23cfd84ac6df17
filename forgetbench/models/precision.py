"""How wide a model's weights are held, and what its passes compute in; no torch until it is asked for."""

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
    """Whether this machine has a CUDA GPU and a flash-attn that transformers takes."""
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


def resolve_attention(
    model: ModelConfig, *precisions: Precision, available: Callable[[], bool] = flash_runs
) -> ModelConfig:
    """The model's configuration with the attention kernel that really runs in place of `auto`.

    Args:
        model: of the run.
        precisions: of all passes that are known; by default what the weights' width makes of them.
        available: whether FlashAttention-2 can run here.

    Raises:
        UserError: the kernel asked for cannot run here; another would give other bits.
    """
    if model.attention == FLASH and not available():
        raise UserError(
            f"model.attention={FLASH} needs a CUDA GPU and flash-attn 2.3.3 or later (pip install flash-attn). A run "
            "that was trained with it is scored where it runs; for a new one set model.attention=auto or sdpa."
        )
    if model.attention != "auto":
        return model
    half = all(one is Precision.bf16 for one in precisions) if precisions else model.dtype is Dtype.bf16
    return replace(model, attention=FLASH if half and available() else "sdpa")


def at_precision(model: Any, precision: Precision) -> None:
    """Make a loaded model fit for passes of a precision: fp32 ones need fp32 weights, which hold bf16's exactly.

    Raises:
        UserError: fp32 passes are asked of 4-bit weights or of FlashAttention-2, which compute in bf16.
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
    """Hold these in fp32, in place; the values stay as they are."""
    for parameter in parameters:
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()


def is_narrow(model: Any) -> bool:
    """Whether some weights are held in less than fp32, so that passes need autocast."""
    return any(is_packed(one) or one.element_size() < 4 for one in model.parameters())


def is_packed(parameter: nn.Parameter) -> bool:
    """Whether a weight is held as 4-bit codes, two to a byte."""
    return not parameter.is_floating_point()


def scored_digest(digest: str, model: ModelConfig, precision: Precision) -> str:
    """What cells know a model by: its digest, and the width where that moves the last bits of a prediction.

    A digest is of values, which fp32 passes see alike however they are held. In bf16 passes, norms and the residual
    stream of a model held in bf16 are bf16 too, where those of one held in fp32 are not.
    """
    if precision is Precision.fp32 or model.dtype is Dtype.fp32 or model.quantisation is not Quantisation.none:
        return digest
    return hashlib.sha256(f"{digest} held in {model.dtype}".encode()).hexdigest()
