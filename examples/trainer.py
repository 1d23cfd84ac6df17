"""transformers' Trainer with the callback: `python -m examples.trainer --steps 30`, from the repository's root."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments

from examples.garments import MATRIX, MODEL, TARGET, conversations, outputs
from forgetbench import ForgettingCallback


def train(folder: str, steps: int, items: int = 80, budget: float | None = None, **settings: Any) -> Trainer:
    """Fine-tune the language part on garments, and watch what is forgotten.

    Args:
        folder: where everything is written.
        steps: of the optimiser.
        items: asked at every look.
        budget: points that may be lost; None: nothing is stopped.
        settings: of TrainingArguments, in place of those here.
    """
    model, processor = AutoModelForImageTextToText.from_pretrained(MODEL), AutoProcessor.from_pretrained(MODEL)
    model.model.vision_tower.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(False)
    where = outputs(folder)
    given: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "save_steps": max(1, steps // 3),
        "logging_steps": 1,
        "report_to": "none",
        "remove_unused_columns": False,
        "disable_tqdm": True,
        **settings,
    }
    trainer = Trainer(
        model,
        TrainingArguments(where["output_dir"], **given),
        data_collator=lambda rows: collate(processor, rows),
        train_dataset=conversations(8 * steps),
        processing_class=processor,
        callbacks=[ForgettingCallback(TARGET, MATRIX, items=items, budget=budget, outputs=where["outputs"])],
    )
    trainer.train()
    return trainer


def collate(processor: Any, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch whose loss is over all tokens but padding."""
    texts = [processor.apply_chat_template(row["messages"]) for row in rows]
    batch = processor(images=[row["images"] for row in rows], text=texts, padding=True, return_tensors="pt")
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return dict(batch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--budget", type=float, help="points of accuracy that may be lost")
    arguments = parser.parse_args()
    train(arguments.folder, arguments.steps, budget=arguments.budget)
