"""How to fine-tune: everything but the data, the model and the method."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import MISSING

from forgetbench.config.result import NO_RESULT
from forgetbench.core.records import Precision


class Schedule(StrEnum):
    """Learning-rate schedule after warm-up."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"


class TrainOn(StrEnum):
    """Which replies of a conversation are trained on."""

    all = "all"
    """Every turn of the assistant."""
    last = "last"
    """The last one; earlier turns are read as context."""


class TooLong(StrEnum):
    """What becomes of items that are longer than the model's context, or than `max_length`."""

    refuse = "refuse"
    """Nothing is trained; the items are named."""
    skip = "skip"
    """They are left out, counted and named."""


@dataclass
class ReplayConfig:
    """Items of earlier tasks, appended to the target set of a stage."""

    samples: int = 0
    """Random items of each earlier task (Chaudhry et al. 2019, arXiv:1902.10486); 0 replays nothing."""
    earlier: list[str] = field(default_factory=list)
    """Sets that count as tasks before the first stage, such as what the base was trained on."""


@dataclass
class MixConfig:
    """Data-hybrid training: auxiliary sets mixed into every stage."""

    data: list[str] = field(default_factory=list)
    """Names of the auxiliary sets."""
    ratio: float = 0.0
    """Share h of training instances that come from the auxiliary sets."""


class Optimiser(StrEnum):
    """What steps the weights."""

    adamw = "adamw"
    adamw_8bit = "adamw_8bit"
    """Moments in 8 bits, block by block (bitsandbytes): 2 bytes a parameter instead of 8."""


@dataclass
class CheckpointConfig:
    """Which steps are kept; give one of the three. The last step of every stage is always kept."""

    every: int | None = None
    """A checkpoint every so many steps."""
    steps: list[int] = field(default_factory=list)
    """Exactly these steps."""
    log_spaced: int | None = None
    """Up to this many steps, spaced evenly in log(step); a shorter run keeps what fits."""


@dataclass
class RecipeConfig:
    """How to fine-tune: everything but the data, the model and the method."""

    lr: Any = MISSING
    """Peak learning rate: one number, or one per part, e.g. {language: 1e-5, projector: 1e-4}."""
    parts: list[str] = MISSING
    """Trained parts: vision, projector, language."""
    language_last_layers: int | None = None
    """Restrict `language` to its last k layers (embeddings and head stay frozen)."""
    mix: MixConfig = field(default_factory=MixConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    steps: int = 240
    """Optimiser steps of each stage, unless the stage says otherwise."""
    batch_size: int = 32
    """Instances per optimiser step, over all processes and accumulation."""
    gradient_accumulation: int = 1
    """Split each batch into this many micro-batches."""
    train_on: TrainOn = TrainOn.all
    """Which replies of a conversation are trained on: all of them, or the last."""
    train_after_end: bool = False
    """Also train on what the chat template writes after a reply's end token (a line break in ChatML), as LLaMA-Factory
    does: a model is never asked for it, and a one-letter answer becomes a third of its item's loss instead of half."""
    max_length: int | None = None
    """Longest item in tokens, pictures included; null: the model's context."""
    too_long: TooLong = TooLong.refuse
    """What becomes of longer items: training is refused, or they are left out (skip); nothing is ever cut."""
    schedule: Schedule = Schedule.cosine
    """Learning rate after warm-up."""
    warmup: float = 0.1
    """Share of the steps spent warming up linearly."""
    weight_decay: float = 0.0
    """AdamW's; norms and biases are not decayed."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    precision: Precision = Precision.bf16
    """Arithmetic of the forward pass; trained weights and their moments are fp32 either way."""
    optimiser: Optimiser = Optimiser.adamw
    """What steps the weights; adamw_8bit holds moments in 8 bits (bitsandbytes)."""
    gradient_checkpointing: bool = field(default=False, metadata=NO_RESULT)
    """Compute activations again in the backward pass: far less memory, about a third more time."""
    reuse_features: bool = field(default=True, metadata=NO_RESULT)
    """Encode a picture once where the vision tower and the projector are frozen; off where it could change a bit."""
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
