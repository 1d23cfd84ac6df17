"""A tiny LLaVA before and after a short training, as operations after training see it."""

from __future__ import annotations

import io
import random
from pathlib import Path

import torch
from PIL import Image

from forgetbench.config import ModelConfig, RecipeConfig
from forgetbench.core.processes import start_processes
from forgetbench.core.records import AnswerKind, ImageRef, Precision, Sample
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.methods.operation import Trained
from forgetbench.models.load import load_model
from forgetbench.models.parts import choose_trainable
from forgetbench.training.passes import TrainingPasses
from forgetbench.training.plan import Stage
from tests.support.families import llava

STEPS = 30


def item(i: int) -> Sample:
    """Prompts and answers of unequal length, so that batches are padded on both sides; some without a picture."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), tuple(random.Random(i).randbytes(3))).save(stream, "PNG")
    images = () if i % 5 == 4 else (ImageRef("memory", f"{i}.png", stream.getvalue()),)
    return Sample.question(str(i), "What is it? " * (1 + i % 3), ("A", "dark red")[i % 2], AnswerKind.text, images)


def tuned_llava(folder: Path, *parts: str) -> Trained:
    """Train the given parts on eight items for a few steps of Adam."""
    loaded = load_model(ModelConfig(path=str(llava(folder))))
    model = loaded.model
    recipe = RecipeConfig(lr=1e-3, parts=list(parts), batch_size=4, gradient_accumulation=2, precision=Precision.fp32)
    passes = TrainingPasses(start_processes(), loaded, Encoder(loaded.processor), recipe, seed=0)
    stream = MixedStream([WeightedSet("toy", [item(i) for i in range(8)], 1.0)], [], 0.0, seed=3)
    passes.plan([Stage("toy", stream, STEPS, "digest")])
    choose_trainable(model, parts)
    live = {name: one for name, one in model.named_parameters() if one.requires_grad}
    base = {name: one.detach().clone() for name, one in live.items()}
    optimiser = torch.optim.Adam(live.values(), lr=3e-3)
    for batches in passes.upcoming(STEPS):
        for batch in batches:
            passes.backward(batch, passes.forward(batch))
        optimiser.step()
        optimiser.zero_grad()
    changed = {name: one.detach().clone() for name, one in live.items() if not torch.equal(one, base[name])}
    with torch.no_grad():
        for name, one in live.items():
            one.copy_(base[name])
    model.requires_grad_(True)  # as it was loaded
    return Trained(model, {name: base[name] for name in changed}, changed, (), {}, passes)
