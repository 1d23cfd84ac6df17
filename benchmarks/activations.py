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
class SavedBytes:
    """Bytes that are kept for the backward pass, of everything but the logits."""

    activations: int
    copies: int
    """bf16 copies of weights."""


def measured(folder: Path, recipe: str, items: list[Sample]) -> tuple[SavedBytes, SavedBytes]:
    """Bytes that torch saves for a pass over some items, and their estimate."""
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
    saved = _saved_tensors(loaded.model, lambda: passes.loss(batch, passes.forward(batch)))
    pixels, shown = batch.inputs["pixel_values"], batch.inputs["input_ids"].eq(image_token(loaded.model)).sum()
    sizes, patches = read_sizes(config.model), count_patches(loaded.model, pixels) // len(items)
    sizes = replace(sizes, patches=patches, tokens=int(shown) // len(items), tile=min(sizes.tile, patches))
    length = batch.inputs["input_ids"].shape[1]
    shapes = {tuple(tensor.shape) for tensor in loaded.model.parameters() if tensor.ndim == 2}
    copies = sum(
        tensor.nbytes for tensor in saved if tensor.dtype == torch.bfloat16 and _shape_and_transposed(tensor) & shapes
    )
    saved_activations = [
        tensor
        for tensor in saved
        if tensor.shape[-1:] != (sizes.vocabulary,) and not _shape_and_transposed(tensor) & shapes
    ]
    setting = replace(setting_of(config), text_tokens=length - sizes.tokens, answer_tokens=batch.labels.shape[1])
    ours = estimate(sizes, setting)
    return SavedBytes(sum(map(_bytes, saved_activations)), copies), SavedBytes(
        round(ours.activations), round(ours.copies)
    )


def _saved_tensors(model: Any, run: Any) -> list[Tensor]:
    """Tensors saved for the backward pass: each storage once, without the model's."""
    model_storages = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in model_storages:
            saved.setdefault(storage, tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return list(saved.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _shape_and_transposed(tensor: Tensor) -> set[tuple[int, ...]]:
    return {tuple(tensor.shape), tuple(tensor.shape)[::-1]} if tensor.ndim == 2 else set()


def main() -> None:
    """Print a row per family and recipe."""
    torch.set_num_threads(1)
    print("| family | recipe | kept, KiB | estimated, KiB | ratio |\n|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        for family, build in FAMILIES.items():
            folder = build(Path(scratch) / family)
            for recipe in RECIPES:
                measured_bytes, estimated_bytes = measured(folder, recipe, [item for item in ITEMS if item.images][:4])
                saved, estimated = (size.activations + size.copies for size in (measured_bytes, estimated_bytes))
                print(
                    f"| {family} | {recipe} | {saved / 1024:.0f} | {estimated / 1024:.0f} | {estimated / saved:.2f} |"
                )


if __name__ == "__main__":
    main()
