"""One method on the embedded model, measured round by round; a process of `benchmarks.methods`.

    python -m benchmarks.methods_loop '{"overrides": ["method=spider"]}'

The configuration is the one of `forgetbench finetune data=fashion_naming recipe=methods method=...`, on one thread. A
round of a method that acts during training is a few optimiser steps on items that were seen before; a round of an
operation after training makes the variants of one checkpoint, on items read for the first time, files written.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import serve
from benchmarks.training_loop import ENDLESS, repeated
from forgetbench.compose import compose
from forgetbench.config import FinetuneConfig
from forgetbench.core.processes import start_processes
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import Encoder
from forgetbench.methods.base import Method
from forgetbench.methods.operation import Operation
from forgetbench.models.checkpoint import save_checkpoint
from forgetbench.models.load import load_model
from forgetbench.training.loop import Trainer
from forgetbench.training.passes import TrainingPasses
from forgetbench.training.plan import Stage, plan_stages, read_sets
from forgetbench.training.prepare import prepare
from forgetbench.training.run import peak_memory_mb
from forgetbench.training.variants import OperationContext, make_variants

# A constant rate: in the warm-up of an endless run nothing would move, and MDGD without drift is plain fine-tuning.
RECIPE = ("model=tiny", "data=fashion_naming", "recipe=methods", "recipe.schedule=constant", "recipe.warmup=0")
TRAINED_STEPS = 8
"""Of the checkpoint that operations work on."""
MIB = 2**20
Measure = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class MethodSetup:
    """A method and how often it steps."""

    overrides: tuple[str, ...]
    """Besides the recipe's."""
    stages: int = 1
    """Steps are measured in the last one; those before have a single step."""
    steps: int = 4
    """Of a round; an operation's rounds have none."""


def main() -> None:
    """Set up a method and serve its rounds."""
    setup = MethodSetup(**json.loads(sys.argv[1]))
    torch.set_num_threads(1)
    config = compose(FinetuneConfig, [*RECIPE, "name=benchmark", *setup.overrides])
    serve(operation(config, config.method) if isinstance(config.method, Operation) else training(config, setup))


def training(config: FinetuneConfig, setup: MethodSetup) -> Measure:
    """Rounds of optimiser steps, after one that is not measured: memory is allocated, every item has been seen."""
    method, catalogue = config.method, Catalogue()
    (stage,) = plan_stages(config, catalogue)
    stream = repeated(stage.stream, setup.steps * config.recipe.batch_size)
    lengths = [*(1 for _ in range(setup.stages - 1)), ENDLESS]
    loaded = load_model(config.model)
    prepare(loaded.model, [config.recipe] * setup.stages, method, seed=0)
    encoder, read = Encoder(loaded.processor), read_sets(method, catalogue)
    trainer = Trainer(loaded, encoder, method, config.recipe, seed=0, read=read)
    began = timed_begin(method)
    reports = trainer.run([Stage("benchmark", stream, steps, "") for steps in lengths])
    for _ in islice(reports, setup.stages - 1 + setup.steps):
        pass

    def measured() -> dict[str, float]:
        started = time.perf_counter()
        for _ in islice(reports, setup.steps):
            pass
        seconds = time.perf_counter() - started
        optimiser = {
            key: tensor for key, tensor in trainer.resume_point(0).tensors.items() if key.startswith("optimiser/")
        }
        return {
            "steps_per_s": setup.steps / seconds,
            "peak_memory_mb": peak_memory_mb(),
            "begin_s": sum(began),
            "optimiser_mb": sum(tensor.nbytes for tensor in optimiser.values()) / MIB,
            "method_mb": held_bytes(method, loaded.model) / MIB,
        }

    return measured


def timed_begin(method: Method) -> list[float]:
    """Have a method note how many seconds its `begin` takes."""
    seconds: list[float] = []
    begin = method.begin

    def timed(context: Any) -> None:
        started = time.perf_counter()
        begin(context)
        seconds.append(time.perf_counter() - started)

    method.begin = timed  # type: ignore[method-assign]
    return seconds


def held_bytes(method: Method, model: torch.nn.Module) -> int:
    """Memory of the tensors that a method keeps between steps, without the model's parameters."""
    model_storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors_of(vars(method))
    }
    return sum(size for storage, size in held.items() if storage not in model_storages)


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Tensors in containers and in the attributes of objects that `forgetbench.methods` defines."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)
    elif type(value).__module__.startswith("forgetbench.methods.") and hasattr(value, "__dict__"):
        yield from tensors_of(vars(value))


def operation(config: FinetuneConfig, chosen: Operation) -> Measure:
    """Rounds of one operation on a checkpoint of a short plain run; nothing is warmed up."""
    (stage,) = plan_stages(config, Catalogue())
    loaded, plain = load_model(config.model), Method()
    prepare(loaded.model, [config.recipe], plain, seed=0)
    trainer = Trainer(loaded, Encoder(loaded.processor), plain, config.recipe, seed=0)
    base = {name: parameter.detach().clone() for name, parameter in trainer.trainable.items()}
    for _ in trainer.run([Stage("benchmark", stage.stream, TRAINED_STEPS, "")]):
        pass
    scratch = tempfile.TemporaryDirectory()
    meta = {"method": asdict(plain), "stage": 1}
    checkpoint = save_checkpoint(Path(scratch.name), TRAINED_STEPS, trainer.delta(), meta)
    with torch.no_grad():
        for name, parameter in trainer.trainable.items():
            parameter.copy_(base[name])
    operation_context = OperationContext(loaded.model, plain, stages=1, seed=0)
    accelerator = start_processes()

    def measured() -> dict[str, float]:
        assert scratch  # the checkpoint's folder lives as long as this
        loaded.model.requires_grad_(True)  # as it is when a run's checkpoint is worked on
        operation_context.passes = TrainingPasses(accelerator, loaded, Encoder(loaded.processor), config.recipe, seed=0)
        operation_context.passes.plan([stage])
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            make_variants(Path(folder), [checkpoint], chosen, operation_context)
            seconds = time.perf_counter() - started
        return {"steps_per_s": 1 / seconds, "peak_memory_mb": peak_memory_mb()}

    return measured


if __name__ == "__main__":
    main()
