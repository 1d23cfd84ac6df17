"""How to fine-tune: everything but the data, the model and the method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import MISSING

from forgetbench.config.result import NO_RESULT
from forgetbench.core.records import Precision

MIX_RATIO = 0.5
"""Share of the auxiliary sets where the command line names sets and no share: half, as in the recipe `hybrid`."""


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

    data: list[Any] = field(default_factory=list)
    """The auxiliary sets: [<name>, {set: <name>, weight: 2}, ...]; without a weight it is 1."""
    ratio: float = 0.0
    """Share h of training instances that come from the auxiliary sets; 0.5 where the command line names sets alone."""

    def __post_init__(self) -> None:
        """Two spellings of the same sets are the same configuration."""
        self.data = canonical_sets(self.data)

    @property
    def weights(self) -> dict[str, float]:
        """Set -> how often it is drawn, relative to the others."""
        return {entry if isinstance(entry, str) else entry["set"]: _weight(entry) for entry in self.data}

    @property
    def label(self) -> str:
        """The sets as tables name them, such as `2*general+fashion_knowledge`."""
        return "+".join(name if weight == 1 else f"{weight:g}*{name}" for name, weight in self.weights.items())


def canonical_sets(given: Any) -> Any:
    """Sets of a mix in their one spelling: a bare name where the weight is 1.

    Args:
        given: names, {set: <name>, weight: <number>}, or one mapping of names to weights; what is none of these is left
            as it is, to be refused.
    """
    if isinstance(given, Mapping):
        given = [{"set": name, "weight": weight} for name, weight in given.items()]
    return [_canonical(entry) for entry in given] if isinstance(given, list) else given


def _canonical(entry: Any) -> Any:
    if not isinstance(entry, Mapping) or not {"set"} <= entry.keys() <= {"set", "weight"}:
        return entry
    weight = entry.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        return entry
    weight = int(weight) if float(weight).is_integer() else weight
    return entry["set"] if weight == 1 else {"set": entry["set"], "weight": weight}


def _weight(entry: str | Mapping[str, Any]) -> float:
    return 1.0 if isinstance(entry, str) else float(entry["weight"])


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
    """Peak learning rate: one number, or one per word of `parts`, e.g. {language: 1e-5, projector: 1e-4}."""
    parts: list[str] = MISSING
    """What trains: vision, projector, language; modules and layers of them, such as language.attention,
    language.mlp_gate_up or language.layers_12_to_23.mlp (docs/models.md)."""
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
