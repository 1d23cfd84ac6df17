"""Scoring at real sizes: choice and replies beside bare passes, kept features, the swap of a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import shapes
from benchmarks.gpu.findings import Finding, Scope, ratio, text
from benchmarks.gpu.training import side
from benchmarks.loops import as_asked, ask, bare_forward, collated, fastest, synchronise
from forgetbench.core.records import Decoding
from forgetbench.data.collate import Encoder
from forgetbench.evaluation.engine import Engine, end_tokens
from forgetbench.evaluation.settings import Settings
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.models.checkpoint import save_checkpoint
from forgetbench.models.load import LoadedModel
from forgetbench.models.parts import part_of

CHOICE_GOAL = 0.9
ITEMS, BATCH, ROUNDS, REPLY = 64, 16, 2, 64
LAYERS = ("layers.0.", "layers.1.", "layers.2.", "layers.3.")
"""Of the language part: what the checkpoint that is swapped in changes."""
GB = 1e9


def scoring(scope: Scope, name: str) -> Iterator[Finding]:
    """Items a second, each way; every way asks the same items, in bf16."""
    n, size, rounds, tokens = (8, 4, 1, 4) if scope.tiny else (ITEMS, BATCH, ROUNDS, REPLY)
    loaded = shapes.make(scope, name)
    encoder = Encoder(loaded.processor)
    dataset = as_asked(shapes.items(side(scope, name), n), encoder, scope.scratch / f"{name}_items", size)
    choice = Settings(Decoding.choice, "bf16", size)
    text_of = Settings(Decoding.greedy, "bf16", size, max_new_tokens=tokens)
    without_cache, with_cache = Engine(loaded, encoder, 0), Engine(loaded, encoder)
    batches = collated(dataset, encoder, scope.device)
    ways: dict[str, Callable[[], Any]] = {
        "bare forward": bare(scope, batches, partial(bare_forward, loaded.model)),
        "choice": partial(ask, without_cache, dataset, choice),
        "choice, features kept": partial(ask, with_cache, dataset, choice),
        "generate": bare(scope, batches, generating(loaded, encoder, tokens)),
        f"{tokens} tokens": partial(ask, without_cache, dataset, text_of),
        f"{tokens} tokens, features kept": partial(ask, with_cache, dataset, text_of),
    }
    speeds = dict(zip(ways, (n / seconds for seconds in fastest(list(ways.values()), rounds)), strict=True))
    for way, speed in speeds.items():
        yield text(f"items/s, {way}", f"{speed:.3g}")
    yield ratio(f"{name} choice/bare forward", speeds["choice"] / speeds["bare forward"], scope.goal(CHOICE_GOAL))
    yield ratio(f"{name} choice features kept/bare forward", speeds["choice, features kept"] / speeds["bare forward"])
    replies, replies_kept = f"{tokens} tokens", f"{tokens} tokens, features kept"
    yield ratio(f"{name} replies/generate", speeds[replies] / speeds["generate"])
    yield ratio(f"{name} replies features kept/generate", speeds[replies_kept] / speeds["generate"])
    yield from swap(scope, loaded)


def bare(scope: Scope, batches: list[dict[str, Tensor]], run: Callable[[dict[str, Tensor]], Any]) -> Callable[[], None]:
    """The same passes in PyTorch and transformers alone, on batches that are on the device."""

    def passes() -> None:
        with torch.inference_mode(), torch.autocast(scope.device, torch.bfloat16):
            for batch in batches:
                run(batch)

    return passes


def generating(loaded: LoadedModel, encoder: Encoder, tokens: int) -> Callable[[dict[str, Tensor]], Any]:
    """Greedy `generate` of transformers itself, which stops at the same tokens as ours."""
    ends = end_tokens(encoder, loaded.model.generation_config, loaded.model.config)

    def run(batch: dict[str, Tensor]) -> Any:
        inputs = {key: tensor for key, tensor in batch.items() if key != "position_ids"}
        settings = {"do_sample": False, "max_new_tokens": tokens, "eos_token_id": ends}
        return loaded.model.generate(**inputs, **settings, pad_token_id=encoder.pad_id)

    return run


def swap(scope: Scope, loaded: LoadedModel) -> Iterator[Finding]:
    """From a checkpoint's file to weights on the device, and back to the base."""
    changed = {
        key: parameter.detach().float().cpu()
        for key, parameter in loaded.model.named_parameters()
        if part_of(key) == "language" and any(layer in key for layer in LAYERS)
    }
    checkpoint = save_checkpoint(scope.scratch / f"{loaded.name}_swap", 1, changed, {"method": {}})
    weights = WeightSwap(loaded.model)
    synchronise()
    started = time.perf_counter()
    weights.to(checkpoint.delta())
    synchronise()
    there = time.perf_counter()
    weights.to({})
    synchronise()
    size = sum(tensor.nbytes for tensor in changed.values())
    yield text("swap to a checkpoint, from its file", f"{size / GB:.2g} GB in {there - started:.2g} s")
    yield text("swap back to the base", f"{time.perf_counter() - there:.2g} s")
