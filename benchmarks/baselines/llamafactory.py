"""LLaMA-Factory's predict as a baseline: the same items as its datasets, a process per checkpoint and dataset.

The environment variable FORGETBENCH_LLAMAFACTORY names a `llamafactory-cli` (llamafactory with jieba, nltk and
rouge_chinese, which predicting imports without requiring them). Its chat template for LLaVA is not the embedded
model's, so the answers are not comparable; the work is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.baselines.export import eval_samples
from forgetbench.data.pictures import read_image

VARIABLE = "FORGETBENCH_LLAMAFACTORY"
MAX_NEW_TOKENS = 4


def program() -> Path | None:
    """The `llamafactory-cli` to run; None where there is none."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def export_datasets(names: Sequence[str], n_items: int, folder: Path) -> None:
    """Write sets of one picture an item as conversations, pictures beside them, and the file that describes both."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for name in names:
        rows = []
        for place, sample in enumerate(eval_samples(name, n_items)):
            path = pictures / f"{name}_{place}.webp"
            path.write_bytes(read_image(sample.images[0]))
            turns = [("user", "<image>" + sample.prompt), ("assistant", sample.answer)]
            messages = [{"role": role, "content": content} for role, content in turns]
            rows.append({"messages": messages, "images": [str(path.resolve())]})
        (folder / f"{name}.json").write_text(json.dumps(rows), "utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({name: described(name) for name in names}), "utf-8")


def described(name: str) -> dict[str, Any]:
    """What dataset_info.json says of `<name>.json`, which has messages and pictures."""
    return {
        "file_name": f"{name}.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }


def command(cli: Path, checkpoint: Path, datasets: Path, name: str, output: Path) -> list[str]:
    """The whole process for one dataset; it leaves `generated_predictions.jsonl` in `output`."""
    settings = {
        "stage": "sft",
        "do_predict": "true",
        "predict_with_generate": "true",
        "model_name_or_path": checkpoint,
        "template": "llava",
        "finetuning_type": "full",
        "eval_dataset": name,
        "dataset_dir": datasets,
        "output_dir": output,
        "overwrite_output_dir": "true",
        "per_device_eval_batch_size": 16,
        "max_new_tokens": MAX_NEW_TOKENS,
        "do_sample": "false",
        "flash_attn": "disabled",
    }
    return [str(cli), "train", *(str(word) for key, value in settings.items() for word in (f"--{key}", value))]
