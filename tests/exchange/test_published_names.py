"""Exports have the names and files of the publishers, for every family and wherever the base came from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from forgetbench.commands.export import export
from forgetbench.commands.finetune import finetune
from forgetbench.config import ModelConfig, Weights
from forgetbench.exchange.layouts import ExternalCheckpoint
from forgetbench.exchange.other_trainers import changed
from forgetbench.exchange.published_names import save_as_published
from forgetbench.methods.lora import LoRA
from forgetbench.models.load import load_model
from forgetbench.runs.address import resolve
from tests.support.families import CHATML, FAMILIES, MARKED
from tests.support.toys import World, base_of, inputs_of, logits, own_logits

pytestmark = [
    # peft 0.21 reads a property that transformers 5.23 has renamed.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]
OF_LLAVA = {
    "lm_head.": "language_model.lm_head.",
    "model.language_model.": "language_model.model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.vision_tower.": "vision_tower.vision_model.",
}
OF_QWEN2 = {"model.visual.": "visual.", "model.language_model.": "model."}
PUBLISHED: dict[str, dict[str, str]] = {
    "llava": OF_LLAVA,
    "llava_onevision": {**OF_LLAVA, "model.image_newline": "image_newline"},
    "paligemma": OF_LLAVA,
    "gemma3": OF_LLAVA,
    "internvl": {**OF_LLAVA, "model.vision_tower.": "vision_tower."},  # a tower of its own, without the level
    "qwen2_vl": OF_QWEN2,
    "qwen2_5_vl": OF_QWEN2,
    **dict.fromkeys(("qwen3_vl", "idefics3", "smolvlm", "minicpmv4_6", "minicpmv4_7"), {}),
}
"""Beginnings of names in memory, and in the files that publishers wrote with transformers 4; elsewhere they are equal.

What transformers 4.51 itself writes was compared for the families that it has.
"""


def published(family: str, name: str) -> str:
    for start, theirs in PUBLISHED[family].items():
        if name.startswith(start):
            return theirs + name.removeprefix(start)
    return name


def stock(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder)


def renamed_base(family: str, folder: Path) -> Path:
    """A family's stand-in whose weights have the publisher's names."""
    FAMILIES[family](folder)
    tied = set(stock(folder).state_dict()) - {name for name, _ in stock(folder).named_parameters()}
    tensors = {name: value for name, value in stock(folder).state_dict().items() if name not in tied}
    save_file({published(family, name): one for name, one in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def stored(folder: Path) -> dict[str, torch.dtype]:
    return {name: value.dtype for name, value in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize("family", MARKED)
def test_names_and_types_on_disk_are_the_publishers_and_the_weights_are_the_same(family: str, tmp_path: Path) -> None:
    base = renamed_base(family, tmp_path / "base")
    model = stock(base)
    inputs = {name: value for name, value in model.state_dict().items()}
    save_as_published(model, tmp_path / "again")
    assert stored(tmp_path / "again") == stored(base)

    model.save_pretrained(tmp_path / "in_memory", save_original_format=False)  # as trainers on transformers 5 may
    for name, other in (("from_memory", stock(tmp_path / "in_memory")), ("drawn", type(model)(model.config))):
        save_as_published(other, tmp_path / name)
        assert stored(tmp_path / name) == stored(base)
    for name in ("again", "from_memory"):
        back = stock(tmp_path / name).state_dict()
        assert back.keys() == inputs.keys()
        assert [key for key in back if not torch.equal(back[key], inputs[key])] == []
