r"""TRL's own encoding of conversations, as a process of its own: token ids and labels of every row, as JSON.

    $FORGETBENCH_TRL_PYTHON benchmarks/baselines/trl_collate.py \
        --checkpoint FOLDER --template FILE --rows ROWS --write FILE

The interpreter needs trl 1.16 with torch, torchvision and transformers, and not forgetbench. The rows are in TRL's
layout, `messages` and `images`; its collator for vision-language modelling makes a batch of each alone, in two ways:
`conversation`, the row as it is with the loss on the assistant's turns, and `completion`, the last reply split off as a
completion with the loss on it alone. Written are the versions and the rows: {"conversation": {"ids", "labels"},
"completion": ...} of each, with {"refused": why} in the place of what the collator refuses.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")

from PIL import Image
from transformers import AutoProcessor
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling


def main() -> None:
    """Collate every row and write what came of it, in the order of the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="folder with tokenizer and processor")
    parser.add_argument("--template", type=Path, required=True, help="chat template with generation markers")
    parser.add_argument("--rows", type=Path, required=True, help="JSON file of conversations")
    parser.add_argument("--write", type=Path, required=True)
    given = parser.parse_args()
    processor = AutoProcessor.from_pretrained(given.checkpoint)
    processor.chat_template = given.template.read_text("utf-8")
    ways = {
        "conversation": (DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True), whole),
        "completion": (DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True), split),
    }
    encoded = []
    for row in json.loads(given.rows.read_text("utf-8")):
        encoded.append({name: collated(collator, lay_out, row) for name, (collator, lay_out) in ways.items()})
    versions = ", ".join(f"{name} {version(name)}" for name in ("trl", "transformers"))
    given.write.write_text(json.dumps({"versions": versions, "rows": encoded}), "utf-8")


def collated(
    collator: DataCollatorForVisionLanguageModeling,
    lay_out: Callable[[dict[str, Any]], dict[str, Any]],
    row: dict[str, Any],
) -> dict[str, Any]:
    """A batch of one row, without padding."""
    example = lay_out(row) | {"images": [Image.open(path).convert("RGB") for path in row["images"]]}
    try:
        batch = collator([example])
    except (ValueError, IndexError, StopIteration) as error:
        return {"refused": str(error).partition("\n")[0] or type(error).__name__}
    return {"ids": batch["input_ids"][0].tolist(), "labels": batch["labels"][0].tolist()}


def whole(row: dict[str, Any]) -> dict[str, Any]:
    """The conversation in one."""
    return {"messages": row["messages"]}


def split(row: dict[str, Any]) -> dict[str, Any]:
    """The last reply as the completion of everything before it."""
    return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}


if __name__ == "__main__":
    main()
