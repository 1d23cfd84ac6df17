"""Tiny runs of real families on a dozen coloured pictures, and what their checkpoints answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from forgetbench.commands.eval_matrix import eval_matrix
from forgetbench.commands.finetune import finetune
from forgetbench.config import (
    CheckpointConfig,
    DataConfig,
    EvalMatrixConfig,
    FinetuneConfig,
    MatrixConfig,
    ModelConfig,
    RecipeConfig,
    RepresentationConfig,
    StageConfig,
)
from forgetbench.core.records import Decoding, Precision
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.methods.base import Method
from forgetbench.models.pretrained import load_processor
from forgetbench.runs.address import resolve
from tests.support.families import FAMILIES

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 40), "blue": (30, 30, 230), "dark red": (110, 10, 10)}
MANIFEST = """
source: {kind: jsonl, images: pictures}
splits: {train: {files: [items.jsonl]}, test: {files: [items.jsonl]}}
image_domains: [toy]
text_tasks: [TASK]
prompt: "{question}\\n{options}"
answer: letter
"""


def write_data(folder: Path) -> Path:
    """Eight pictures of one colour each, in two manifests: `toy`, and `other` under another text task."""
    (folder / "pictures").mkdir(parents=True)
    names, rows = list(COLOURS), []
    for i in range(8):
        rows.append({"id": str(i), "question": "Which colour is it?", "options": names, "answer": names[i % 4]})
        rows[-1]["image"] = f"{i}.png"
        Image.new("RGB", (16, 16), COLOURS[names[i % 4]]).save(folder / f"pictures/{i}.png")
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, task in (("toy", "colour"), ("other", "shade")):
        (folder / f"{name}.yaml").write_text(MANIFEST.replace("TASK", task))
    return folder


class World:
    """A folder with data, base models and runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.outputs = folder, folder / "outputs"
        self._manifests = [str(write_data(folder / "data"))]

    def model(self, family: str) -> ModelConfig:
        path = self.folder / "models" / family
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            FAMILIES[family](path)
        return ModelConfig(path=str(path))

    def config(
        self, name: str, family: str, method: Method | None = None, stages: int = 1, **recipe: Any
    ) -> FinetuneConfig:
        settings: dict[str, Any] = {"parts": ["projector", "language"], "steps": 2, "batch_size": 2, "lr": 1e-2}
        fixed = {"warmup": 0.0, "precision": Precision.fp32, "checkpoints": CheckpointConfig(every=1)}
        return FinetuneConfig(
            name=name,
            outputs=str(self.outputs),
            manifests=self._manifests,
            threads=1,
            model=self.model(family),
            data=DataConfig(stages=[StageConfig(set="toy")] * stages),
            recipe=RecipeConfig(**(settings | fixed | recipe)),
            method=method or Method(),
        )

    def train(self, name: str, family: str, method: Method | None = None, stages: int = 1, **recipe: Any) -> Path:
        finetune(self.config(name, family, method, stages, **recipe), self.outputs / name)
        return self.outputs / name

    def score(self, run: Path) -> None:
        matrix = MatrixConfig(
            datasets=["toy", "other"],
            decodings=[Decoding.choice],
            representation=RepresentationConfig(enabled=False),
        )
        config = EvalMatrixConfig(
            run=str(run), outputs=str(self.outputs), manifests=self._manifests, threads=1, matrix=matrix
        )
        eval_matrix(config, self.outputs)


def inputs_of(model: ModelConfig) -> Any:
    """One picture and a question, as the model's own processor makes them."""
    processor = load_processor(model)
    parts: Sequence[Any] = [{"type": "image"}, {"type": "text", "text": "Which colour is it?"}]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    return processor(images=[Image.new("RGB", (16, 16), (30, 200, 40))], text=[text], return_tensors="pt")


def logits(model: Any, inputs: Any) -> Tensor:
    model.eval()
    with torch.no_grad():
        found: Tensor = model(**inputs).logits
    return found


def own_logits(path: Path, inputs: Any) -> Tensor:
    """What forgetbench itself gets from a checkpoint."""
    address = resolve(path)
    loaded = address.run().load_base()
    address.run().attach_method(loaded.model)
    WeightSwap(loaded.model).to(address.saved().delta())
    return logits(loaded.model, inputs)


def base_of(run: Path) -> ModelConfig:
    return resolve(run).run().model
