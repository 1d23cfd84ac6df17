"""TRL's SFTTrainer with the callback, training LoRA: `python -m examples.trl_sft`, and the curve of forgetting.

It needs an environment with trl and forgetbench; what is printed last is the change of each quadrant, step by step.
"""

from __future__ import annotations

import argparse

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

from examples.garments import MATRIX, MODEL, TARGET, conversations, outputs
from forgetbench import ForgettingCallback


def train(folder: str, steps: int, items: int = 80) -> SFTTrainer:
    """Train an adapter of the language part on garments.

    Args:
        folder: where everything is written.
        steps: of the optimiser.
        items: asked at every look.
    """
    where = outputs(folder)
    trainer = SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(MODEL),
        args=SFTConfig(
            where["output_dir"],
            max_steps=steps,
            per_device_train_batch_size=8,
            learning_rate=3e-3,
            save_steps=max(1, steps // 3),
            max_length=None,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(conversations(8 * steps)),
        processing_class=AutoProcessor.from_pretrained(MODEL),
        peft_config=LoraConfig(target_modules=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj)"),
        callbacks=[ForgettingCallback(TARGET, MATRIX, items=items, outputs=where["outputs"])],
    )
    trainer.train()
    return trainer


def curve(trainer: SFTTrainer) -> list[str]:
    """A line a look: the step, and what each quadrant gained or lost since the base, in points."""
    lines = []
    for row in trainer.state.log_history:
        found = {name: value for name, value in row.items() if name.endswith("/delta") and "summary" not in name}
        changes = "  ".join(f"{name.split('/')[1]} {100 * value:+5.1f}" for name, value in found.items())
        lines += [f"step {row['step']:3d}  {changes}"] if found else []
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    print("\n".join(curve(train(arguments.folder, arguments.steps))))
