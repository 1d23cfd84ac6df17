"""LLaMA-Factory's own encoding of conversations, as a process of its own: token ids and labels of every row, as JSON.

    python -m benchmarks.baselines.llamafactory_encode --checkpoint FOLDER --template llava --rows ROWS --write FILE

The interpreter is LLaMA-Factory's (llamafactory 0.9.5) and needs no forgetbench. The rows are a file of its ShareGPT
layout; its converter, chat template and supervised processor do the work, one row at a time, so that a row that they
refuse stops no other. They do it in two ways: `all`, with the loss on every reply, and `last` (its `mask_history`).
Written are the versions and the rows: {"all": {"ids", "labels"}, "last": ...} of each, with {"refused": why} in the
place of what is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", CUDA_VISIBLE_DEVICES="")

from llamafactory.data import get_template_and_fix_tokenizer
from llamafactory.data.converter import get_dataset_converter
from llamafactory.data.parser import get_dataset_list
from llamafactory.data.processor import SupervisedDatasetProcessor
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

NAME = "conversations"
TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def main() -> None:
    """Encode every row and write what came of it, in the order of the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="folder with tokenizer and processor")
    parser.add_argument("--template", required=True, help="LLaMA-Factory's name of the chat template")
    parser.add_argument("--rows", type=Path, required=True, help="JSON file in its ShareGPT layout")
    parser.add_argument("--write", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        encoded = encode(given.checkpoint, given.template, given.rows, scratch)
    versions = ", ".join(f"{name} {version(name)}" for name in ("llamafactory", "transformers"))
    given.write.write_text(json.dumps({"versions": versions, "rows": encoded}), "utf-8")


def encode(checkpoint: str, template: str, rows: Path, scratch: str) -> list[dict[str, Any]]:
    """What its data pipeline makes of the rows, with its own settings but for a limit of length that cuts nothing."""
    settings = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": checkpoint,
        "template": template,
        "dataset": NAME,
        "dataset_dir": str(rows.parent),
        "media_dir": str(rows.parent),
        "output_dir": scratch,
        "cutoff_len": 1 << 20,
        "use_cpu": True,
        "report_to": "none",
    }
    ways = {name: pipeline({**settings, "mask_history": name == "last"}, rows.name) for name in ("all", "last")}
    return [{name: encode_row(row) for name, encode_row in ways.items()} for row in json.loads(rows.read_text("utf-8"))]


def pipeline(settings: dict[str, Any], file_name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What encodes one row."""
    columns = {"messages": "messages", "images": "images"}
    described = {NAME: {"file_name": file_name, "formatting": "sharegpt", "columns": columns, "tags": TAGS}}
    model_args, data_args, _, _, _ = get_train_args(settings)
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    (attributes,) = get_dataset_list([NAME], described)
    convert = get_dataset_converter("sharegpt", attributes, data_args)
    processor = SupervisedDatasetProcessor(template=template, data_args=data_args, **module)

    def encode_row(row: dict[str, Any]) -> dict[str, Any]:
        try:
            made = processor.preprocess_dataset({key: [value] for key, value in convert(row).items()})
        except ValueError as error:
            return {"refused": str(error).partition(" in [")[0]}
        return {"ids": made["input_ids"][0], "labels": made["labels"][0]}

    return encode_row


if __name__ == "__main__":
    main()
