"""Steps per second of the training loop against a bare PyTorch loop on the same, already collated batches.

python -m benchmarks.training
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from forgetbench.config import DataConfig, FinetuneConfig, ModelConfig, Precision, RecipeConfig, StageConfig
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import IGNORED, Encoder, batch_prompts
from forgetbench.methods.base import Method
from forgetbench.models.load import LoadedModel, load_model
from forgetbench.training.loop import Stage, Trainer
from forgetbench.training.plan import plan_stages
from forgetbench.training.prepare import prepare

STEPS, ROUNDS = 20, 3


def main() -> None:
    """Measure in fp32 and bf16; both loops take the same steps on the same data."""
    for precision in Precision:
        recipe = RecipeConfig(lr=1e-4, parts=["language"], steps=STEPS, batch_size=32, precision=precision)
        config = FinetuneConfig(
            name="benchmark",
            model=ModelConfig(path="embedded:tiny", attention="eager"),
            data=DataConfig(stages=[StageConfig("fashion_naming")]),
            recipe=recipe,
            method=Method(),
        )
        (stage,) = plan_stages(config, Catalogue())
        ours, bare = _alternating(partial(_ours, config, stage), partial(_bare, config, stage))
        print(f"training {precision}: forgetbench {ours:.2f} steps/s, bare PyTorch {bare:.2f}; ratio {ours / bare:.3f}")


def _alternating(first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    """Medians of interleaved rounds, so that a busy moment hits both."""
    pairs = [(first(), second()) for _ in range(ROUNDS)]
    return statistics.median(one for one, _ in pairs), statistics.median(two for _, two in pairs)


def _prepared(config: FinetuneConfig) -> LoadedModel:
    loaded = load_model(config.model)
    prepare(loaded.model, config.recipe, config.method, seed=0)
    return loaded


def _ours(config: FinetuneConfig, stage: Stage) -> float:
    loaded = _prepared(config)
    encoder = Encoder(loaded.processor)
    trainer = Trainer(loaded, encoder, config.method, config.recipe, seed=0)
    _batches(encoder, stage)
    started = time.perf_counter()
    for _ in trainer.run([stage]):
        pass
    return STEPS / (time.perf_counter() - started)


def _bare(config: FinetuneConfig, stage: Stage) -> float:
    loaded = _prepared(config)
    batches = _batches(Encoder(loaded.processor), stage)
    parameters = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    bf16 = config.recipe.precision is Precision.bf16
    loaded.model.train()
    started = time.perf_counter()
    for batch in batches:
        inputs = dict(batch)
        labels_BA = inputs.pop("labels")
        width = labels_BA.shape[1]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits_BAV = loaded.model(**inputs, logits_to_keep=width + 1, use_cache=False).logits[:, -width - 1 : -1]
        loss = F.cross_entropy(logits_BAV.flatten(0, 1).float(), labels_BA.flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return STEPS / (time.perf_counter() - started)


def _batches(encoder: Encoder, stage: Stage) -> list[dict[str, torch.Tensor]]:
    return [
        batch_prompts(
            [encoder.prompt(sample) for sample in samples],
            encoder.pad_id,
            [encoder.answer_ids(sample.answer) for sample in samples],
        )
        for samples in (stage.stream.batch(step, 32) for step in range(1, STEPS + 1))
    ]


if __name__ == "__main__":
    main()
