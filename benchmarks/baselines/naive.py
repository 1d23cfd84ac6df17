"""Scoring as it is often scripted, and its limit: one process a checkpoint, one item and one option a forward pass.

    python benchmarks/baselines/naive.py CHECKPOINT ITEMS.parquet [ITEMS.parquet ...]    a process per checkpoint
    python benchmarks/baselines/naive.py --bare N CHECKPOINT ITEMS.parquet ...           one process, N times over

It knows nothing of forgetbench: transformers, a folder with a model, and files of items. `--bare` is the limit: forward
passes of batches that were collated beforehand, one per item whatever its options, with nothing read from the result.
Prints one JSON line.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def main() -> None:
    """Score one checkpoint, or pass the items through it N times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bare", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("checkpoint")
    parser.add_argument("items", nargs="+", type=Path)
    given = parser.parse_args()
    processor = AutoProcessor.from_pretrained(given.checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(
        given.checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    processor.tokenizer.padding_side = "left"
    rows = [row for path in given.items for row in pq.read_table(path).to_pylist()]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=given.bf16):
        if given.bare:
            report = bare(model, processor, rows, given.batch_size, given.bare)
        else:
            started = time.perf_counter()
            right = sum(likeliest(model, processor, row) == row["answer"] for row in rows)
            report = {"accuracy": right / len(rows), "items_per_s": len(rows) / (time.perf_counter() - started)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({**report, "peak_memory_mb": peak}))


def likeliest(model: Any, processor: Any, row: dict[str, Any]) -> str:
    """The letter that is likeliest after the prompt: a forward pass, picture and all, for each."""
    logprobs = {}
    for letter in LETTERS[: len(row["options"])]:
        inputs = prompt(processor, [row])
        token = processor.tokenizer(f"x {letter}", add_special_tokens=False)["input_ids"][-1]
        logprobs[letter] = float(model(**inputs, use_cache=False).logits[0, -1].log_softmax(-1)[token])
    return max(logprobs, key=logprobs.__getitem__)


def prompt(processor: Any, rows: list[dict[str, Any]]) -> Any:
    """Model inputs of some items."""
    turns = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["prompt"]}]}] for row in rows
    ]
    text = [processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    images = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in rows]
    return processor(text=text, images=images, padding=True, return_tensors="pt")


def bare(model: Any, processor: Any, rows: list[dict[str, Any]], batch_size: int, times: int) -> dict[str, float]:
    """Forward passes of batches that are ready."""
    rows = sorted(rows, key=lambda row: len(row["prompt"]))
    batches = [prompt(processor, rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    started = time.perf_counter()
    for _ in range(times):
        for batch in batches:
            model(**batch, logits_to_keep=1, use_cache=False)
    return {"items_per_s": times * len(rows) / (time.perf_counter() - started)}


if __name__ == "__main__":
    main()
