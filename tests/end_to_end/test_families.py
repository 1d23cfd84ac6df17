"""Families other than the embedded one are fine-tuned and scored without a line of code about them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

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
    StageConfig,
)
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from tests.support.families import FAMILIES

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 40), "blue": (30, 30, 230), "dark red": (110, 10, 10)}
MANIFEST = """
source:
  kind: jsonl
  images: pictures
splits:
  train: {files: [items.jsonl]}
  test: {files: [items.jsonl]}
image_domains: [toy]
text_tasks: [colour]
prompt: "{question}\\n{options}"
answer: ANSWER
"""


def write_dataset(folder: Path) -> Path:
    """Ten pictures of four sizes and two text-only items; the same items lettered, as words and open."""
    (folder / "pictures").mkdir(parents=True)
    names, rows = list(COLOURS), []
    for i in range(12):
        answer = names[i % 4]
        row = {"id": str(i), "question": "Which colour is it?", "options": names, "answer": answer}
        if i < 10:
            row["image"] = f"{i}.png"
            Image.new("RGB", (16 + 6 * (i % 4), 16 + 5 * (i % 3)), COLOURS[answer]).save(folder / f"pictures/{i}.png")
        rows.append(json.dumps(row))
    (folder / "items.jsonl").write_text("\n".join(rows))
    for kind in ("letter", "option", "text"):
        (folder / f"toy_{kind}.yaml").write_text(MANIFEST.replace("ANSWER", kind))
    return folder


@pytest.mark.parametrize(
    ("family", "method", "parts"),
    [
        ("idefics3", Method(), ["vision", "projector", "language"]),
        ("qwen3_vl", LoRA(rank=2), ["projector", "language"]),
        ("qwen2_5_vl", LoRA(rank=2, parts=["language.attention"]), ["vision.mlp_gate_up", "language.attention"]),
        pytest.param("minicpmv4_6", LoRA(rank=2), ["language"], marks=pytest.mark.slow),
    ],
    ids=["idefics3", "qwen3_vl-lora", "qwen2_5_vl-modules", "minicpmv4_6-lora"],
)
def test_a_family_is_trained_and_scored_end_to_end(
    tmp_path: Path, family: str, method: Method, parts: list[str]
) -> None:
    manifests = [str(write_dataset(tmp_path / "data"))]
    model = ModelConfig(path=str(FAMILIES[family](tmp_path / family)))
    data = DataConfig(stages=[StageConfig(set="toy_letter")])
    folder = tmp_path / "outputs" / "run"
    config = FinetuneConfig(
        name="run",
        outputs=str(tmp_path / "outputs"),
        manifests=manifests,
        threads=1,
        model=model,
        data=data,
        recipe=RecipeConfig(
            lr=1e-2, parts=parts, steps=3, batch_size=4, warmup=0.0, checkpoints=CheckpointConfig(steps=[1])
        ),
        method=method,
    )
    finetune(config, folder)
    matrix = MatrixConfig(datasets=["toy_letter", "toy_option", "toy_text"], batch_size=7)
    outputs = str(tmp_path / "outputs")
    eval_matrix(
        EvalMatrixConfig(run=str(folder), outputs=outputs, manifests=manifests, threads=1, matrix=matrix),
        Path(outputs),
    )
    scores = pd.read_csv(folder / "scores.csv")
    assert set(scores["step"]) == {0, 1, 3}
    assert set(scores["parts"].dropna()) == {"+".join(parts)}
    audit = json.loads((folder / "run.json").read_text())["audit"]
    counted = audit.get("words", audit["parts"])
    assert sum(counted[word]["trainable"] for word in parts) == audit["trainable"] > 0
    assert {f"lr_{word}" for word in parts} <= set(pd.read_csv(folder / "train.csv").columns)
    assert set(scores["dataset"]) == {"toy_letter", "toy_option", "toy_text"}
    assert set(pd.read_csv(folder / "matrix.csv")["step"]) == {0, 1, 3}

    moved = False
    cells = {}
    for step in (0, 3):
        digest = scores.query(f"step == {step} and dataset == 'toy_letter' and decoding == 'choice'")["cell"].iloc[0]
        cells[step] = pd.read_parquet(tmp_path / "outputs" / ".cells" / f"{digest}.parquet")
    for before, after in zip(cells[0]["option_logprobs"], cells[3]["option_logprobs"], strict=True):
        moved |= max(abs(before - after)) > 1e-3
    assert moved

    # The base model alone gives what step 0 gave: the same cells, adapters or not.
    eval_matrix(
        EvalMatrixConfig(outputs=outputs, manifests=manifests, threads=1, model=model, data=data, matrix=matrix),
        Path(outputs),
    )
    (alone,) = (tmp_path / "outputs").glob(f"base-{family}-*-toy_letter/scores.csv")
    base = pd.read_csv(alone)
    assert set(base["cell"]) == set(scores.query("step == 0")["cell"])
