"""Hold the estimate of activations against the bytes that torch keeps for the backward pass: tiny models, CPU.

python -m benchmarks.activations
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetbench.config import DataConfig, Dtype, FinetuneConfig, ModelConfig, RecipeConfig
from forgetbench.core.processes import start_processes
from forgetbench.core.records import Sample
from forgetbench.data.collate import Encoder
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.models.hidden import image_token
from forgetbench.models.load import load_model
from forgetbench.models.memory import estimate, setting_of
from forgetbench.training.footprint import count_patches, read_sizes
from forgetbench.training.passes import TrainingPasses
from forgetbench.training.prepare import prepare
from tests.support.families import FAMILIES
from tests.support.runs import ITEMS

RECIPES: Mapping[str, tuple[Dtype, Method, list[str]]] = {
    "full": (Dtype.fp32, Method(), ["vision", "projector", "language"]),
    "language": (Dtype.fp32, Method(), ["language"]),
    "projector": (Dtype.bf16, Method(), ["projector"]),
    "lora": (Dtype.bf16, LoRA(), ["language"]),
}


@dataclass(frozen=True)
class Held:
    """Bytes that are kept for the backward pass, of everything but the logits."""

    activations: int
    copies: int
    """bf16 copies of weights."""


def measured(folder: Path, recipe: str, items: list[Sample]) -> tuple[Held, Held]:
    """What torch keeps for one pass over some items, and the estimate of it."""
    dtype, method, parts = RECIPES[recipe]
    config = FinetuneConfig(
        name="",
        model=ModelConfig(path=str(folder), dtype=dtype),
        data=DataConfig(),
        recipe=RecipeConfig(lr=1e-4, parts=parts, batch_size=len(items)),
        method=method,
    )
    loaded = load_model(config.model)
    prepare(loaded.model, [config.recipe], replace(method), seed=0)
    encoder = Encoder(loaded.processor)
    passes = TrainingPasses(start_processes(), loaded, encoder, config.recipe, 0)
    loaded.model.train()
    batch = passes.batch(items)
    kept = _kept(loaded.model, lambda: passes.loss(batch, passes.forward(batch)))
    pixels, shown = batch.inputs["pixel_values"], batch.inputs["input_ids"].eq(image_token(loaded.model)).sum()
    sizes, patches = read_sizes(config.model), count_patches(loaded.model, pixels) // len(items)
    sizes = replace(sizes, patches=patches, tokens=int(shown) // len(items), tile=min(sizes.tile, patches))
    length = batch.inputs["input_ids"].shape[1]
    shapes = {tuple(one.shape) for one in loaded.model.parameters() if one.ndim == 2}
    copies = sum(one.nbytes for one in kept if one.dtype == torch.bfloat16 and _either_way(one) & shapes)
    others = [one for one in kept if one.shape[-1:] != (sizes.vocabulary,) and not _either_way(one) & shapes]
    setting = replace(setting_of(config), text_tokens=length - sizes.tokens, answer_tokens=batch.labels.shape[1])
    ours = estimate(sizes, setting)
    return Held(sum(map(_bytes, others)), copies), Held(round(ours.activations), round(ours.copies))


def _kept(model: Any, run: Any) -> list[Tensor]:
    """What a pass saves for the backward pass: each storage once, none of the model's own."""
    own = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            found.setdefault(place, tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return list(found.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _either_way(tensor: Tensor) -> set[tuple[int, ...]]:
    return {tuple(tensor.shape), tuple(tensor.shape)[::-1]} if tensor.ndim == 2 else set()


def main() -> None:
    """Print a row per family and recipe."""
    torch.set_num_threads(1)
    print("| family | recipe | kept, KiB | estimated, KiB | ratio |\n|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        for family, build in FAMILIES.items():
            folder = build(Path(scratch) / family)
            for recipe in RECIPES:
                torchs, ours = measured(folder, recipe, [one for one in ITEMS if one.images][:4])
                kept, message = (one.activations + one.copies for one in (torchs, ours))
                print(f"| {family} | {recipe} | {kept / 1024:.0f} | {message / 1024:.0f} | {message / kept:.2f} |")


if __name__ == "__main__":
    main()
