"""One way to train the embedded model, measured round by round; a process of `benchmarks.training`.

    python -m benchmarks.training_loop '{"loop": "ours", "precision": "bf16"}'

A round is one pass over the same few items. The bare loop gets them collated: it is what the hardware gives.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from benchmarks.baselines.instructions import conversations, turn_by_turn
from benchmarks.loops import bare_step
from benchmarks.measure import serve
from forgetbench.config import DataConfig, FinetuneConfig, MixConfig, ModelConfig, RecipeConfig, StageConfig
from forgetbench.core.records import Precision, Sample
from forgetbench.data.batching import batch_prompts
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.methods.base import Method
from forgetbench.models.load import load_model
from forgetbench.training.loop import Trainer
from forgetbench.training.plan import Stage, plan_stages
from forgetbench.training.prepare import prepare
from forgetbench.training.run import peak_memory_mb

BATCH = 32
ENDLESS = 10**6
INSTRUCTIONS = 3000
"""Conversations of the benchmark's mix."""


@dataclass(frozen=True)
class TrainingSetup:
    """How the steps are made; every setup trains the language part."""

    loop: str = "ours"
    """`ours`, or `bare`: PyTorch and nothing else."""
    precision: str = "bf16"
    attention: str = "eager"
    threads: int = 1
    steps: int = 6
    """Of a round."""
    reuse: bool = True
    """Ours: features of pictures that were seen before. The bare loop encodes every picture every time."""
    fresh: bool = False
    """Ours: items that were never seen, so that pictures and prompts have to be read and encoded first."""
    all_logits: bool = False
    """Bare: logits of every position, not only of the answer."""
    grouped: bool = False
    """Bare: items of similar length share a batch."""
    mixed: bool = False
    """Half of the items from `general`, which vary in length."""
    instructions: str = ""
    """Ours: instead of one question a picture, the `conversations` of `baselines.instructions`, each one item; or the
    same `turn by turn`, an item for each reply, without the turns before."""
    accumulation: int = 1
    """Micro-batches of a step."""
    composed: bool = True
    """Ours: micro-batches composed by length; else as items were drawn, as before there were conversations."""


def main() -> None:
    """Set up a training loop and serve its rounds."""
    setup = TrainingSetup(**json.loads(sys.argv[1]))
    torch.set_num_threads(setup.threads)
    run = _ours(setup) if setup.loop == "ours" else _bare(setup)
    run()  # kernels are chosen, memory is allocated, every item has been seen

    def measured() -> dict[str, float]:
        started = time.perf_counter()
        run()
        return {"steps_per_s": setup.steps / (time.perf_counter() - started), "peak_memory_mb": peak_memory_mb()}

    serve(measured)


def _config(setup: TrainingSetup) -> FinetuneConfig:
    return FinetuneConfig(
        name="benchmark",
        model=ModelConfig(path="embedded:tiny", attention=setup.attention),
        data=DataConfig(stages=[StageConfig("fashion_naming")]),
        recipe=RecipeConfig(
            lr=1e-4,
            parts=["language"],
            steps=ENDLESS,
            batch_size=BATCH,
            gradient_accumulation=setup.accumulation,
            precision=Precision(setup.precision),
            reuse_features=setup.reuse,
            mix=MixConfig(["general"], 0.5) if setup.mixed else MixConfig(),
        ),
        method=Method(),
    )


def _stream(setup: TrainingSetup, config: FinetuneConfig) -> MixedStream:
    """All training items, or those of one round over and over."""
    if setup.instructions:
        items = conversations(INSTRUCTIONS)
        items = turn_by_turn(items) if setup.instructions == "turn by turn" else items
        return MixedStream([WeightedSet("instructions", items, 1.0)], [], 0.0, seed=0)
    (stage,) = plan_stages(config, Catalogue())
    return stage.stream if setup.fresh else repeated(stage.stream, setup.steps * BATCH)


def repeated(stream: MixedStream, count: int) -> MixedStream:
    """The first items of a stream, over and over."""
    return MixedStream([WeightedSet("round", [stream[i] for i in range(count)], 1.0)], [], 0.0, seed=0)


def _ours(setup: TrainingSetup) -> Callable[[], None]:
    config = _config(setup)
    loaded = load_model(config.model)
    prepare(loaded.model, [config.recipe], config.method, seed=0)
    trainer = Trainer(loaded, Encoder(loaded.processor), config.method, config.recipe, seed=0)
    if not setup.composed:
        trainer.passes._may_compose = False
    reports = trainer.run([Stage("benchmark", _stream(setup, config), ENDLESS, "")])

    def run() -> None:
        for _ in islice(reports, setup.steps):
            pass

    return run


def _bare(setup: TrainingSetup) -> Callable[[], None]:
    config = _config(setup)
    loaded = load_model(config.model)
    prepare(loaded.model, [config.recipe], config.method, seed=0)
    batches = _batches(setup, Encoder(loaded.processor), _stream(setup, config))
    parameters = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, foreach=False, fused=True)
    bf16 = config.recipe.precision is Precision.bf16
    loaded.model.train()

    def run() -> None:
        for batch in batches:
            bare_step(loaded.model, batch, parameters, optimiser, bf16, setup.all_logits)

    return run


def _batches(setup: TrainingSetup, encoder: Encoder, stream: MixedStream) -> list[dict[str, torch.Tensor]]:
    samples = [stream[i] for i in range(setup.steps * BATCH)]
    if setup.grouped:
        samples.sort(key=lambda sample: encoder.prompt(sample).length + len(encoder.answer_ids(sample.answer)))
    return [_collated(encoder, samples[start : start + BATCH]) for start in range(0, len(samples), BATCH)]


def _collated(encoder: Encoder, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    answers = [encoder.answer_ids(sample.answer) for sample in samples]
    return batch_prompts([encoder.prompt(sample) for sample in samples], encoder.pad_id, answers)


if __name__ == "__main__":
    main()
