"""What tests of methods share: weights without a model, and a tiny LLaVA trained for a few steps."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from forgetbench.config import ModelConfig, RecipeConfig, Schedule
from forgetbench.core.records import AnswerKind, ImageRef, Precision, Sample
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.methods.base import Method, TrainingContext
from forgetbench.models.load import load_model
from forgetbench.training.loop import Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.prepare import prepare

Weights = dict[str, Tensor]


def trainee_of(values: Mapping[str, Tensor], passes: Any = None, **more: Any) -> TrainingContext:
    """Parameters with these values, and no gradients yet."""
    return TrainingContext(None, {name: nn.Parameter(value.clone()) for name, value in values.items()}, passes, **more)


def item(i: int) -> Sample:
    """One of a kind: pictures of one colour, answers of one to many tokens, every fifth without a picture."""
    image = Image.new("RGB", (16, 16), tuple(random.Random(i).randbytes(3)))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    answer = ("A", "dark red", "The answer is light blue.")[i % 3]
    images = () if i % 5 == 4 else (ImageRef("memory", f"{i}.png", stream.getvalue()),)
    return Sample.question(str(i), "What is in this picture? " * (1 + i % 2), answer, AnswerKind.text, images)


ITEMS = [item(i) for i in range(10)]


def plan(*steps: int, only_pictures: bool = False) -> list[Stage]:
    """Stages of these lengths."""
    items = [one for one in ITEMS if one.images or not only_pictures]
    stream = MixedStream([WeightedSet("toy", items, 1.0)], [], 0.0, seed=3)
    return [Stage("toy", stream, n, "digest", items=items) for n in steps]


def trainer(
    folder: Path,
    method: Method,
    stages: int = 1,
    seed: int = 0,
    read: Mapping[str, Sequence[Sample]] | None = None,
    **changes: Any,
) -> Trainer:
    """A fresh model from `folder`, ready to train on one thread."""
    torch.set_num_threads(1)
    values: dict[str, Any] = {
        "lr": 1e-2,
        "parts": ["projector", "language"],
        "batch_size": 4,
        "schedule": Schedule.linear,
        "precision": Precision.fp32,
    }
    recipe = RecipeConfig(**(values | changes))
    loaded = load_model(ModelConfig(path=str(folder)))
    prepare(loaded.model, [recipe] * stages, method, seed)
    return Trainer(loaded, Encoder(loaded.processor), method, recipe, seed, read)


def snapshot(subject: Trainer) -> Weights:
    """Copies of all trainable tensors as they are."""
    return {name: weight.detach().clone() for name, weight in subject.trainable.items()}


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Equal, with 0 and -0 told apart."""
    return torch.equal(first.contiguous().view(torch.int32), second.contiguous().view(torch.int32))


def all_same_bits(first: Weights, second: Weights) -> bool:
    """The same names, and every tensor equal to the bit."""
    return first.keys() == second.keys() and all(same_bits(first[name], second[name]) for name in first)
