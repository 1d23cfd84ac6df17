"""What is wrong with how a model is held in memory, given how it is trained and scored."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from omegaconf.errors import OmegaConfBaseException

from forgetbench.compose.checks.problem import Problem
from forgetbench.config import (
    Dtype,
    EvalMatrixConfig,
    FinetuneConfig,
    Optimiser,
    Quantisation,
    Sharding,
    SweepConfig,
    Weights,
    stage_recipe,
)
from forgetbench.core.part_words import is_word, part_word
from forgetbench.core.records import Precision
from forgetbench.methods.lora import LoRA
from forgetbench.methods.operation import Operation

_MOST_PIXELS = 2**30
_PACKED = "model.quantisation"
_SCORING = ("matrix.precision", "guard.precision")
"""Passes that weights in bf16 are widened for."""
_INSTALL = "pip install 'forgetbench[bitsandbytes]'"


def memory_problems(config: FinetuneConfig | EvalMatrixConfig) -> Iterator[Problem]:
    """Widths, kernels and optimisers that do not go together; a run that is only scored was checked when it trained."""
    if isinstance(config, EvalMatrixConfig) and config.run is not None:
        return
    if config.model.max_pixels is not None and not 1 <= config.model.max_pixels <= _MOST_PIXELS:
        yield Problem(
            "model.max_pixels", f"{config.model.max_pixels} is no limit; give 1 to {_MOST_PIXELS:,}, or null."
        )
    if config.model.quantisation is Quantisation.nf4:
        yield from _packed(config)
    for key, precision in _precisions(config).items():
        if precision is Precision.fp32:
            yield from _fp32_passes(config, key)
    if isinstance(config, FinetuneConfig):
        if config.model.dtype is Dtype.bf16 and isinstance(config.method, LoRA) and config.method.weight_decomposed:
            yield Problem(
                "method.weight_decomposed", "rows' lengths are rounded where weights are bf16; set model.dtype=fp32."
            )
        yield from _eight_bits(config)


def _precisions(config: FinetuneConfig | EvalMatrixConfig) -> dict[str, Precision]:
    """The precision of every kind of pass, by its key."""
    precisions = {}
    if isinstance(config, FinetuneConfig):
        precisions["recipe.precision"] = config.recipe.precision
        if (method_precision := config.method.forward_precision()) is not None:
            precisions["method.precision"] = method_precision
        if config.guard.is_on:
            precisions["guard.precision"] = config.guard.precision
    if isinstance(config, SweepConfig | EvalMatrixConfig):
        precisions["matrix.precision"] = config.matrix.precision
    return precisions


def _fp32_passes(config: FinetuneConfig | EvalMatrixConfig, key: str) -> Iterator[Problem]:
    if config.model.attention == "flash_attention_2":
        yield Problem(key, f"model.attention=flash_attention_2 computes in bf16; set {key}=bf16, or attention to sdpa.")
    if config.model.quantisation is Quantisation.nf4:
        yield Problem(key, f"4-bit weights compute in bf16 ({_PACKED}=nf4); set {key}=bf16.")
    elif config.model.dtype is Dtype.bf16 and key not in _SCORING:
        yield Problem(key, f"fp32, but weights held in bf16 make passes bf16; set {key}=bf16 or model.dtype=fp32.")


def _packed(config: FinetuneConfig | EvalMatrixConfig) -> Iterator[Problem]:
    if importlib.util.find_spec("bitsandbytes") is None:
        yield Problem(_PACKED, f"nf4 needs bitsandbytes: {_INSTALL}.")
    if config.model.weights is Weights.random:
        yield Problem(_PACKED, "nf4 packs stored weights, and model.weights is random; set it to pretrained, or none.")
    if not isinstance(config, FinetuneConfig):
        return
    if config.sharding is Sharding.fsdp2:
        yield Problem("sharding", f"packed weights ({_PACKED}=nf4) are not sharded; set sharding=none.")
    if isinstance(config.method, Operation):
        yield Problem("method", f"{config.method.name} edits the weights, which are packed ({_PACKED}=nf4).")
    elif packed := [word for word in _trained(config) if _is_packed(word)]:
        if not isinstance(config.method, LoRA) or set(packed) - set(config.method.parts):
            yield Problem("recipe.parts", f"packed weights ({_PACKED}=nf4) cannot train; adapt them (method=lora).")
        elif type(config.method) is not LoRA or config.method.weight_decomposed:
            yield Problem("method", f"of the adapters, packed weights ({_PACKED}=nf4) take lora and rslora only.")


def _eight_bits(config: FinetuneConfig) -> Iterator[Problem]:
    recipes = [config.recipe]
    for stage in config.data.stages:
        try:
            recipes.append(stage_recipe(config.recipe, stage))
        except OmegaConfBaseException:  # reported as the stage's own problem
            continue
    if not any(recipe.optimiser is Optimiser.adamw_8bit for recipe in recipes):
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        yield Problem("recipe.optimiser", f"adamw_8bit needs bitsandbytes: {_INSTALL}; or set it to adamw.")
    if config.sharding is Sharding.fsdp2:
        yield Problem("recipe.optimiser", "adamw_8bit cannot step sharded tensors; set it to adamw, or sharding=none.")


def _is_packed(word: str) -> bool:
    """Whether it covers linear layers of the language part; its norms, embeddings and head stay as they are."""
    if not is_word(word):
        return False  # reported by `word_problems`
    read = part_word(word)
    return read.part == "language" and read.module not in ("norms", "embeddings", "head")


def _trained(config: FinetuneConfig) -> set[str]:
    """What any stage trains, in its words."""
    words = set(config.recipe.parts)
    for stage in config.data.stages:
        parts = stage.recipe.get("parts", [])
        words |= set(parts) if isinstance(parts, list) else set()
    return words
