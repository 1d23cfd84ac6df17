"""What transformers' Trainer, TRL and LLaMA-Factory leave on disk: which checkpoints, and what they say of training.

    <folder>/checkpoint-500/{model.safetensors | model-00001-of-..., adapter_model.safetensors, trainer_state.json}
    <folder>/{the final weights, trainer_state.json, README.md}

training_args.bin and optimizer.pt are pickles, which run code when they are opened; nothing opens them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.exchange.json_files import read_json
from forgetbench.models.weight_files import INDEX, SINGLE, check_safetensors, check_weights

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_SETTING = re.compile(r"^- (\w+): (.+)$", re.MULTILINE)
_FULL = (SINGLE, INDEX)
_ADAPTER = "adapter_model.safetensors"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
_SHARDS = ("global_step*", "pytorch_model_fsdp*", "*.distcp")


@dataclass(frozen=True)
class ExternalCheckpoint:
    """One folder with weights."""

    step: int
    path: Path
    is_adapter: bool


@dataclass(frozen=True)
class ExternalRun:
    """What another trainer left."""

    checkpoints: Sequence[ExternalCheckpoint]
    """By step; the final weights may be there twice, as the last checkpoint and at the top."""
    log: Sequence[Mapping[str, Any]]
    """A row per logged step: step, loss, learning_rate, grad_norm; what was not logged is absent."""
    settings: Mapping[str, str]
    """Hyperparameters that the trainer's own model card lists, by its names."""


def read_layout(folder: Path) -> ExternalRun:
    """Find the checkpoints in a folder, or take the folder as one.

    Raises:
        UserError: there is none, or none that can be read safely.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name one that a trainer wrote its checkpoints to.")
    named = [(path, _CHECKPOINT.fullmatch(path.name)) for path in folder.iterdir() if path.is_dir()]
    inside = sorted((int(match[1]), path) for path, match in named if match)
    found = [ExternalCheckpoint(step, path, kind == _ADAPTER) for step, path in inside if (kind := _weights(path))]
    if kind := _weights(folder):
        found.append(ExternalCheckpoint(_top_step(folder, found), folder, kind == _ADAPTER))
    if not found:
        raise UserError(
            f"{folder} holds no checkpoint: no {' or '.join((*_FULL, _ADAPTER))} in it or in checkpoint-<step>/."
        )
    state = _state(folder) or _state(found[-1].path)
    log = [row for row in state.get("log_history", ()) if "loss" in row and "step" in row]
    return ExternalRun(found, log, _settings(folder) or _settings(found[-1].path))


def _weights(folder: Path) -> str | None:
    """The file that holds a folder's weights, or their index; None where there are none."""
    if (folder / _ADAPTER).is_file() and (folder / "adapter_config.json").is_file():
        check_safetensors(folder / _ADAPTER)
        return _ADAPTER
    for name in _FULL:
        if (folder / name).is_file():
            check_weights(folder)
            return name
    if pickles := [name for name in _PICKLES if (folder / name).is_file()]:
        raise UserError(
            f"{folder / pickles[0]} is a pickle, which would run what is in it. Save it again as safetensors where you "
            "trust it (transformers: model.save_pretrained; LLaMA-Factory: drop save_safetensors: false)."
        )
    if shards := [path for pattern in _SHARDS for path in folder.glob(pattern)]:
        raise UserError(
            f"{shards[0]} holds pieces of a sharded model. Join them first: DeepSpeed's zero_to_fp32.py with "
            "--safe_serialization, or `accelerate merge-weights`."
        )
    return None


def _top_step(folder: Path, inside: Sequence[ExternalCheckpoint]) -> int:
    """The step of the weights at the top, which are the final ones.

    Raises:
        UserError: nothing says which it is.
    """
    match = _CHECKPOINT.fullmatch(folder.resolve().name)
    steps = [_state(folder).get("global_step"), int(match[1]) if match else None]
    if inside:
        steps += [_state(inside[-1].path).get("max_steps"), inside[-1].step]
    known = [step for step in steps if isinstance(step, int) and step > 0]
    if not known:
        raise UserError(
            f"{folder} does not say after how many steps its weights were saved (no trainer_state.json); put them into "
            "a folder checkpoint-<step>."
        )
    return known[0]


def _state(folder: Path) -> dict[str, Any]:
    path = folder / "trainer_state.json"
    return read_json(path) if path.is_file() else {}


def _settings(folder: Path) -> dict[str, str]:
    """The list below `Training hyperparameters` in the card that transformers' Trainer writes."""
    card = folder / "README.md"
    text = card.read_text("utf-8", errors="replace") if card.is_file() else ""
    listed = text.partition("Training hyperparameters")[2].partition("\n#")[0]
    return dict(_SETTING.findall(listed))
