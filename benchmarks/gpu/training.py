"""Training the language part at real sizes: our loop beside bare PyTorch, MFU, idle share, memory beside the plan."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import flops, shapes
from benchmarks.gpu.findings import Finding, Scope, left_out, ratio, text
from benchmarks.gpu.kernels import Activity, profile_activity
from benchmarks.loops import bare_step, synchronise
from forgetbench.config import FinetuneConfig
from forgetbench.data.batching import batch_examples
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.models.load import LoadedModel
from forgetbench.models.memory import GIB, estimate
from forgetbench.training.loop import StepReport, Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.prepare import prepare

LOOP_GOAL, MFU_GOAL = 0.95, 0.40
BATCH, ROUNDS, STEPS, FRESH = 8, 3, 4, 4
"""Items of a step; rounds of so many steps each way; steps on pictures never seen before."""


@dataclass
class Trained:
    """A model in training, with its trainer and items."""

    loaded: LoadedModel
    trainer: Trainer
    config: FinetuneConfig
    counted: shapes.Measured
    seconds: float
    """To make the model and the trainer."""

    def planned_gib(self) -> float:
        """The estimate of `models plan`."""
        return estimate(self.counted.sizes, self.counted.setting(self.config)).total / GIB


def for_memory(scope: Scope, name: str, parts: list[str], method: Method, batch: int) -> tuple[FinetuneConfig, str]:
    """The configuration, and why it is not tried; empty where the GPU has the memory that the plan asks for."""
    config = shapes.finetune_config(name, shapes.recipe(scope, parts, batch), method)
    if scope.device != "cuda":
        return config, ""
    empty = shapes.make(scope, name, "meta")
    counted = shapes.measure(empty, shapes.items(side(scope, name), 1)[0])
    needed = estimate(counted.sizes, counted.setting(config))
    has = torch.cuda.get_device_properties(0).total_memory / GIB
    return config, "" if needed.fits(has) else f"{needed.total / GIB:.0f} GiB are planned and the GPU has {has:.0f}"


def side(scope: Scope, name: str) -> int:
    """Pixels along the edge of the items' pictures."""
    shape = shapes.SHAPES[name]
    return shape.tiny_side if scope.tiny else shape.side


def begin(scope: Scope, name: str, config: FinetuneConfig) -> Trained:
    """Make a model and a trainer of it."""
    started = time.perf_counter()
    loaded = shapes.make(scope, name)
    counted = shapes.measure(loaded, shapes.items(side(scope, name), 1)[0])
    prepare(loaded.model, [config.recipe], config.method, seed=0)
    trainer = Trainer(loaded, Encoder(loaded.processor), config.method, config.recipe, seed=0)
    synchronise()
    return Trained(loaded, trainer, config, counted, time.perf_counter() - started)


def stage(samples: Sequence[Any], steps: int) -> Stage:
    """A few items over and over."""
    return Stage("check", MixedStream([WeightedSet("check", samples, 1.0)], [], 0.0, seed=0), steps, "", items=samples)


def training(scope: Scope, name: str) -> Iterator[Finding]:
    """Rounds of our loop, of the bare one on collated batches, and of ours with deterministic kernels."""
    config, reason = for_memory(scope, name, ["language"], Method(), BATCH)
    if reason:
        yield left_out(f"training the language part: {reason}")
        return
    rounds, steps, fresh = (1, 1, 2) if scope.tiny else (ROUNDS, STEPS, FRESH)
    subject = begin(scope, name, config)
    yield text("seconds to make the model and digest what trains", f"{subject.seconds:.1f}")
    batch = config.recipe.batch_size
    seen = shapes.items(side(scope, name), steps * batch)
    unseen = shapes.items(side(scope, name), 2 * fresh * batch, first=len(seen))
    plan = [stage(seen, steps * (1 + 2 * rounds)), stage(unseen, 2 * fresh)]
    reset_peak()
    reports = subject.trainer.run(plan)
    ways = {
        "ours": partial(ours, reports, steps),
        "bare": bare(subject, seen, steps),
        "deterministic": deterministic(partial(ours, reports, steps)),
    }
    ways["ours"]()  # kernels are chosen, memory is allocated, every item has been seen
    speeds = take_turns(ways, rounds)
    yield from memory_of(subject, "language")
    yield from speed(scope, subject, {way: steps / seconds for way, seconds in speeds.items()})
    yield ratio(f"{name} deterministic kernels/as found", speeds["ours"] / speeds["deterministic"])
    yield from unseen_items_speed(name, reports, fresh, steps / speeds["ours"])


def ours(reports: Iterator[StepReport], steps: int) -> None:
    """So many steps of our loop."""
    for _ in islice(reports, steps):
        pass


def bare(subject: Trained, samples: Sequence[Any], steps: int) -> Callable[[], None]:
    """As many of PyTorch alone, on the same model and with the same optimiser, batches on the device beforehand."""
    encoder, size = Encoder(subject.loaded.processor), subject.config.recipe.batch_size
    device = subject.trainer.accelerator.device
    batches: list[dict[str, Tensor]] = []
    for start in range(0, steps * size, size):
        examples = [encoder.example(sample) for sample in samples[start : start + size]]
        batches.append({key: tensor.to(device) for key, tensor in batch_examples(examples, encoder.pad_id).items()})
    parameters = list(subject.trainer.trainable.values())

    def run() -> None:
        for batch in batches:
            bare_step(subject.loaded.model, batch, parameters, subject.trainer.optimiser, bf16=True)

    return run


def deterministic(work: Callable[[], None]) -> Callable[[], None]:
    """The same with PyTorch's deterministic kernels; where there are none, it warns and goes on."""

    def run() -> None:
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            work()
        finally:
            torch.use_deterministic_algorithms(False)

    return run


def take_turns(ways: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Seconds of each way's median round."""
    seconds_of: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            synchronise()
            started = time.perf_counter()
            way()
            synchronise()
            seconds_of[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in seconds_of.items()}


def speed(scope: Scope, subject: Trained, steps_per_s: Mapping[str, float]) -> Iterator[Finding]:
    """Tokens a second, of the bare loop's, and of the peak."""
    counted, name, items = subject.counted, subject.loaded.name, subject.config.recipe.batch_size
    tokens = items * (counted.sizes.tokens + counted.text_tokens)
    for way in ("ours", "bare"):
        yield text(f"tokens/s, {way}", f"{tokens * steps_per_s[way]:,.0f}")
    yield ratio(f"{name} training loop/bare", steps_per_s["ours"] / steps_per_s["bare"], scope.goal(LOOP_GOAL))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    highest = flops.peak(device)
    done = flops.training_step(counted.sizes, counted.text_tokens, counted.answer_tokens, items)
    yield text("model TFLOP/s", f"{done * steps_per_s['ours'] / 1e12:.4g}")
    if highest is None:
        yield left_out(f"MFU: the peak of {device} is not in the table")
    else:
        goal = scope.goal(MFU_GOAL) if name == "llava_1_5_7b" else None
        yield ratio(f"{name} MFU", done * steps_per_s["ours"] / highest, goal)


def unseen_items_speed(
    name: str, reports: Iterator[StepReport], steps: int, seen_steps_per_s: float
) -> Iterator[Finding]:
    """Steps on pictures never seen before, which have to be decoded and encoded in time."""
    ours(reports, 1)
    synchronise()
    started = time.perf_counter()
    ours(reports, steps - 1)
    synchronise()
    fresh = (steps - 1) / (time.perf_counter() - started)
    yield ratio(f"{name} items never seen/seen", fresh / seen_steps_per_s)
    activity = profile_activity(partial(ours, reports, steps))
    yield from activity_findings(activity)


def activity_findings(activity: Activity) -> Iterator[Finding]:
    """The idle share and the dearest kernels; nothing was seen where there is no GPU."""
    if not activity.kernels:
        yield left_out("idle share: no work of a GPU was seen")
        return
    yield text("idle share of the GPU, items never seen", f"{activity.idle_share:.1%}")
    for kernel, seconds in activity.kernels:
        yield text(f"kernel {kernel[:60]}", f"{seconds / activity.seconds:.1%} of the time")


def reset_peak() -> None:
    """Forget earlier models and their memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_of(subject: Trained, what: str) -> Iterator[Finding]:
    """The highest that PyTorch allocated, beside the plan."""
    planned = subject.planned_gib()
    if not torch.cuda.is_available():
        yield text(f"{what}: planned GiB, nothing to measure without a GPU", f"{planned:.3g}")
        return
    peak = torch.cuda.max_memory_allocated() / GIB
    yield text(f"{what}: GiB at the most, planned", f"{peak:.1f}, {planned:.1f}")
    yield ratio(f"{subject.loaded.name} memory {what} measured/planned", peak / planned)


RECIPES: Mapping[str, tuple[list[str], Callable[[], Method]]] = {
    "projector": (["projector"], Method),
    "LoRA": (["language"], LoRA),
    "full": (["vision", "projector", "language"], Method),
}
"""Beside the language part, which `training` measures."""


def memory(scope: Scope, name: str) -> Iterator[Finding]:
    """Two steps of each recipe at its highest, beside what `models plan` says."""
    for what, (parts, method) in RECIPES.items():
        config, reason = for_memory(scope, name, parts, method(), BATCH // 2)
        if reason:
            yield left_out(f"{what}: {reason}")
            continue
        reset_peak()
        subject = begin(scope, name, config)
        ours(subject.trainer.run([stage(shapes.items(side(scope, name), config.recipe.batch_size), 2)]), 2)
        yield from memory_of(subject, what)
        del subject
        reset_peak()
