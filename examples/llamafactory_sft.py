"""LLaMA-Factory with the callback: `python -m examples.llamafactory_sft`, in place of `llamafactory-cli train`.

LLaMA-Factory takes callbacks where it is called from Python, `run_exp(settings, callbacks=[...])`; a YAML file has no
key for them. The settings are the keys of its YAML files. It needs an environment with llamafactory and forgetbench.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from llamafactory.train.tuner import run_exp

from examples.garments import MATRIX, MODEL, TARGET, conversations, outputs
from forgetbench import ForgettingCallback


def write_dataset(folder: Path, count: int) -> None:
    """The conversations as LLaMA-Factory reads them: pictures as files, `<image>` in the text."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, row in enumerate(conversations(count)):
        row["images"][0].save(picture := folder / f"{number}.png")
        question, answer = (turn["content"][-1]["text"] for turn in row["messages"])
        turns = [{"from": "human", "value": f"<image>{question}"}, {"from": "gpt", "value": answer}]
        rows.append({"conversations": turns, "images": [str(picture.resolve())]})
    (folder / "garments.json").write_text(json.dumps(rows))
    described = {"garments": {"file_name": "garments.json", "formatting": "sharegpt", "columns": COLUMNS}}
    (folder / "dataset_info.json").write_text(json.dumps(described))


COLUMNS = {"messages": "conversations", "images": "images"}


def train(folder: str, steps: int, items: int = 80) -> None:
    """Train the language part on garments.

    Args:
        folder: where everything is written.
        steps: of the optimiser.
        items: asked at every look.
    """
    where, data = outputs(folder), Path(folder) / "data"
    write_dataset(data, 8 * steps)
    settings = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": MODEL,
        "template": "llava",
        "finetuning_type": "full",
        "dataset": "garments",
        "dataset_dir": str(data),
        "output_dir": where["output_dir"],
        "overwrite_output_dir": True,
        "max_steps": steps,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "save_steps": max(1, steps // 3),
        "report_to": "none",
    }
    run_exp(settings, callbacks=[ForgettingCallback(TARGET, MATRIX, items=items, outputs=where["outputs"])])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    train(arguments.folder, arguments.steps)
