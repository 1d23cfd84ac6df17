"""What several benchmarks measure alike: bare loops in PyTorch alone, and ways that take turns in one process.

Shapes: B items, T tokens, A answer tokens, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetbench.core.records import Sample
from forgetbench.data.batching import batch_prompts
from forgetbench.data.collate import IGNORED, Encoder
from forgetbench.data.encoded import encode
from forgetbench.evaluation.batches import BatchedSet, batch_dataset
from forgetbench.evaluation.engine import Engine
from forgetbench.evaluation.settings import Settings


def bare_step(
    model: Any,
    batch: Mapping[str, Tensor],
    parameters: Sequence[Tensor],
    optimiser: torch.optim.Optimizer,
    bf16: bool,
    all_logits: bool = False,
) -> None:
    """One optimiser step in PyTorch alone.

    Args:
        model: in training mode.
        batch: what `batch_prompts` makes of prompts and answers, on the model's device.
        parameters: what trains.
        optimiser: of these.
        bf16: forward under autocast.
        all_logits: of every position, not of the answer's alone.
    """
    inputs: dict[str, Any] = dict(batch)
    labels_BA = inputs.pop("labels")
    width = labels_BA.shape[1]
    if not all_logits:
        inputs["logits_to_keep"] = width + 1
    with torch.autocast(labels_BA.device.type, torch.bfloat16, enabled=bf16):
        logits_BTV = model(**inputs, use_cache=False).logits
    logits_BAV = logits_BTV[:, -width - 1 : -1].float()
    F.cross_entropy(logits_BAV.flatten(0, 1), labels_BA.flatten(), ignore_index=IGNORED).backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    optimiser.zero_grad()


def bare_forward(model: Any, batch: Mapping[str, Tensor]) -> Any:
    """One pass that gives the logits of the next token."""
    return model(**batch, logits_to_keep=1, use_cache=False)


def as_asked(samples: Sequence[Sample], encoder: Encoder, folder: Path, batch_size: int) -> BatchedSet:
    """Items encoded into a folder and laid out in batches, as evaluation does."""
    return batch_dataset(samples, encode(samples, encoder, folder / "set", 1 << 30), encoder, batch_size)


def collated(dataset: BatchedSet, encoder: Encoder, device: str = "cpu") -> list[dict[str, Tensor]]:
    """The batches of a set as inputs of a bare pass."""
    batches = [batch_prompts([dataset.prompts.prompt(i) for i in batch], encoder.pad_id) for batch in dataset.batches]
    return [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]


def ask(engine: Engine, dataset: BatchedSet, settings: Settings) -> None:
    """Have the engine answer all batches."""
    for number in range(len(dataset.batches)):
        engine.answer(dataset, number, settings)


def fastest(ways: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Seconds of each way's fastest round; rounds are interleaved. The first one warms up."""
    seconds: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 1):
        for way, way_seconds in zip(ways, seconds, strict=True):
            synchronise()
            started = time.perf_counter()
            way()
            synchronise()
            if number:
                way_seconds.append(time.perf_counter() - started)
    return [min(way_seconds) for way_seconds in seconds]


def synchronise() -> None:
    """Wait for the GPU, if there is one: its work is only asked for when a call returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
