"""TRL's SFTTrainer on the embedded model, as a process of its own: prints one JSON line of speed, memory and loss.

    $FORGETBENCH_TRL_PYTHON benchmarks/baselines/trl_sft.py --checkpoint FOLDER --items TRAIN.parquet --steps 20
    $FORGETBENCH_TRL_PYTHON benchmarks/baselines/trl_sft.py --checkpoint FOLDER --messages TALKS.parquet --steps 20

The interpreter needs trl 1.16 with torch and transformers, and not forgetbench; the checkpoint and the items come from
`benchmarks.baselines.export`, conversations from `benchmarks.baselines.instructions`; of these TRL's collator trains on
every token. TRL's own settings, except those that the recipe compared with it has too, and gradient
checkpointing, which TRL turns on and which would only slow it on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
from datasets import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

LEFT_OUT = 2
"""Steps at the beginning that the speed leaves out: allocations, kernels chosen."""
LOSS_STEPS = 5
"""Steps at either end whose mean loss is told: one batch's says little."""
LANGUAGE = ("model.language_model.", "lm_head.")


class Clock(TrainerCallback):
    """Remembers when each step ended and what its loss was."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Take the time."""
        self.ends.append(time.perf_counter())

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """Take the loss; the last log of a training has none of a step."""
        if "loss" in logs:
            self.losses.append(logs["loss"])

    def steps_per_s(self) -> float:
        """Speed after the first steps."""
        return (len(self.ends) - LEFT_OUT) / (self.ends[-1] - self.ends[LEFT_OUT - 1])


def main() -> None:
    """Train and print what was measured."""
    arguments = parsed()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = Clock()
    train(arguments, clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    measured = {
        "steps_per_s": clock.steps_per_s(),
        "peak_memory_mb": peak,
        "loss_first": statistics.fmean(clock.losses[:LOSS_STEPS]),
        "loss_last": statistics.fmean(clock.losses[-LOSS_STEPS:]),
    }
    print(json.dumps(measured))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="folder of export_checkpoint")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--items", help="Parquet file of export_items")
    given.add_argument("--messages", help="Parquet file of export_messages")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32, help="instances a step")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches of a step")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="bf16: autocast, weights in fp32")
    parser.add_argument("--threads", type=int, help="CPU threads; by default as torch finds")
    parser.add_argument(
        "--gpu", action="store_true", help="on a GPU, with gradient checkpointing and PyTorch's attention"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def train(arguments: argparse.Namespace, clock: Clock) -> SFTTrainer:
    """Fine-tune the language part as forgetbench's `full_*` recipes do."""
    model = AutoModelForImageTextToText.from_pretrained(
        arguments.checkpoint, attn_implementation="sdpa" if arguments.gpu else "eager", dtype=torch.float32
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(LANGUAGE))
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch_size // arguments.accumulation,
            gradient_accumulation_steps=arguments.accumulation,
            learning_rate=arguments.lr,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,  # below 1: a share of the steps
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            bf16=arguments.precision == "bf16",
            completion_only_loss=True if arguments.items else None,
            gradient_checkpointing=arguments.gpu,
            max_length=None,
            use_cpu=not torch.cuda.is_available(),
            seed=arguments.seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=conversations(arguments.items) if arguments.items else messages(arguments.messages),
            processing_class=AutoProcessor.from_pretrained(arguments.checkpoint),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)  # standard output is for the measurements
        trainer.train()
    return trainer


def conversations(path: str) -> Dataset:
    """The items as TRL's conversational prompt and completion; its collator puts the picture before the question."""

    def turns(item: dict[str, Any]) -> dict[str, Any]:
        return {
            "prompt": [{"role": "user", "content": item["prompt"]}],
            "completion": [{"role": "assistant", "content": item["answer"]}],
        }

    with tempfile.TemporaryDirectory() as cache:
        items = Dataset.from_parquet(path, cache_dir=cache, keep_in_memory=True)
        return items.map(turns, remove_columns=["id", "answer", "options"], keep_in_memory=True)


def messages(path: str) -> Dataset:
    """Conversations of several turns as they are."""
    with tempfile.TemporaryDirectory() as cache:
        return Dataset.from_parquet(path, cache_dir=cache, keep_in_memory=True)


if __name__ == "__main__":
    main()
