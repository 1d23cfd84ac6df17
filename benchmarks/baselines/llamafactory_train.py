"""LLaMA-Factory's supervised fine-tuning of the embedded model: prints one JSON line of speed.

    <LLaMA-Factory's python> -P benchmarks/baselines/llamafactory_train.py --checkpoint C --datasets FOLDER --name NAME

The conversations come from `benchmarks.baselines.instructions.export_sharegpt`. Template llava, the vision tower and
the projector frozen, its own settings otherwise, except those that the recipe compared with it has too, and gradient
checkpointing, which it turns on and which would only slow it here. Without -P the module beside this one that is called
llamafactory would be taken for the package.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", DISABLE_VERSION_CHECK="1"
)

import torch
from llamafactory.train.tuner import run_exp
from transformers import TrainerCallback

LEFT_OUT = 2
"""Steps at the beginning that the speed leaves out: allocations, kernels chosen."""


class Clock(TrainerCallback):
    """Remembers when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Take the time."""
        self.ends.append(time.perf_counter())


def main() -> None:
    """Train and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--datasets", required=True, help="folder of dataset_info.json")
    parser.add_argument("--name", required=True, help="of the dataset")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32, help="instances a step")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches of a step")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        run_exp(settings(arguments, folder), callbacks=[clock])
    speed = (len(clock.ends) - LEFT_OUT) / (clock.ends[-1] - clock.ends[LEFT_OUT - 1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"steps_per_s": speed, "peak_memory_mb": peak}))


def settings(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    """What `llamafactory-cli train` would be given."""
    return {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": arguments.checkpoint,
        "template": "llava",
        "finetuning_type": "full",
        "freeze_vision_tower": True,
        "freeze_multi_modal_projector": True,
        "dataset": arguments.name,
        "dataset_dir": arguments.datasets,
        "cutoff_len": 2048,
        "output_dir": folder,
        "max_steps": arguments.steps,
        "per_device_train_batch_size": arguments.batch_size // arguments.accumulation,
        "gradient_accumulation_steps": arguments.accumulation,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "bf16": arguments.precision == "bf16",
        "flash_attn": "disabled",
        "disable_gradient_checkpointing": True,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "use_cpu": True,
    }


if __name__ == "__main__":
    main()
