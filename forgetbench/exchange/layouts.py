"""What transformers' Trainer, TRL and LLaMA-Factory leave on disk: which checkpoints, and what they say of training.

    <folder>/checkpoint-500/{model.safetensors | model-00001-of-..., adapter_model.safetensors, trainer_state.json}
    <folder>/{the final weights, trainer_state.json, README.md}

training_args.bin and optimizer.pt are pickles, which run code when they are opened; nothing opens them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from forgetbench.core.errors import UserError
from forgetbench.core.files import write_text
from forgetbench.core.json_files import AGAIN, read_json
from forgetbench.models.weight_files import INDEX, SINGLE, check_safetensors, check_weights

_CHECKPOINT = re.compile(r"checkpoint-([0-9]{1,12})")
_STATE, _CARD = "trainer_state.json", "README.md"
_NUMBERS = ("loss", "learning_rate", "grad_norm")
_SETTING = re.compile(r"^- (\w+): (.+)$", re.MULTILINE)
_FULL = (SINGLE, INDEX)
_ADAPTER = "adapter_model.safetensors"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
_MOST = 2.0**53
"""Beyond it, whole numbers are not exact."""
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
    card: Path
    """That model card; need not be there."""

    def number(self, name: str, least: float = 0) -> float | None:
        """A hyperparameter that is a number; None where the card does not list it.

        Raises:
            UserError: it is no finite number, or below the least.
        """
        text = self.settings.get(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < _MOST:
            raise UserError(
                f"{self.card}: {name} is {text[:60]!r}, and a number from {least:g} is expected; correct it, or delete "
                "the file: what it does not say is told by the command line, or not known."
            )
        return value

    def count(self, name: str, least: int = 1) -> int | None:
        """The same of a hyperparameter that is a whole number."""
        value = self.number(name, least)
        if value is not None and not value.is_integer():
            raise UserError(f"{self.card}: {name} is {value:g}, and a whole number is expected; correct it.")
        return None if value is None else int(value)


def read_layout(folder: Path) -> ExternalRun:
    """Find the checkpoints in a folder, or take the folder as one.

    Raises:
        UserError: there is none, or none that can be read safely.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name one that a trainer wrote its checkpoints to.")
    named = [(path, _CHECKPOINT.fullmatch(path.name)) for path in folder.iterdir() if path.is_dir()]
    inside = sorted((int(match[1]), path) for path, match in named if match)
    checkpoints = [
        ExternalCheckpoint(step, path, kind == _ADAPTER) for step, path in inside if (kind := _weights(path))
    ]
    if kind := _weights(folder):
        checkpoints.append(ExternalCheckpoint(_top_step(folder, checkpoints), folder, kind == _ADAPTER))
    if not checkpoints:
        raise UserError(
            f"{folder} holds no checkpoint: no {' or '.join((*_FULL, _ADAPTER))} in it or in checkpoint-<step>/."
        )
    last = checkpoints[-1].path
    log = _log(folder if _state(folder) else last)
    card = folder if _settings(folder) else last
    return ExternalRun(checkpoints, log, _settings(card), card / _CARD)


def write_log(rows: Sequence[Mapping[str, Any]], parts: str, path: Path) -> None:
    """train.csv, of the steps that were logged; what was not logged is empty, and without any step there is no file.

    Args:
        rows: of a trainer's log; those without a loss are left out.
        parts: that trained, such as `projector+language`.
        path: of the file.
    """
    steps = [
        {
            "step": row["step"],
            "stage": 1,
            "loss": row["loss"],
            **{f"lr_{part}": row.get("learning_rate") for part in parts.split("+") if part},
            "grad_norm": row.get("grad_norm"),
        }
        for row in rows
        if "loss" in row and "step" in row
    ]
    if steps:
        write_text(path, pd.DataFrame(steps).drop_duplicates("step", keep="last").to_csv(index=False))


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
    path = folder / _STATE
    return read_json(path) if os.path.lexists(path) else {}


def _log(folder: Path) -> list[dict[str, Any]]:
    """The rows of training in a log, which has others of evaluation.

    Raises:
        UserError: what stands for a log, a row or a number is none.
    """
    rows = _state(folder).get("log_history", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{folder / _STATE}: log_history is no list of rows; {AGAIN}, or delete the file.")
    loss_rows = [row for row in rows if "loss" in row and "step" in row]
    for row in loss_rows:
        kinds: dict[str, Any] = {"step": int, **dict.fromkeys(_NUMBERS, (int, float))}
        wrong = [key for key, kind in kinds.items() if row.get(key) is not None and not isinstance(row[key], kind)]
        if wrong or row["step"] is None:
            key = (wrong or ["step"])[0]
            raise UserError(
                f"{folder / _STATE}: {key} is {row[key]!r:.60} in a row of log_history, and a number is expected; "
                f"{AGAIN}, or delete the file."
            )
    return loss_rows


def _settings(folder: Path) -> dict[str, str]:
    """The list below `Training hyperparameters` in the card that transformers' Trainer writes."""
    card = folder / _CARD
    text = card.read_text("utf-8", errors="replace") if card.is_file() else ""
    listed = text.partition("Training hyperparameters")[2].partition("\n#")[0]
    return dict(_SETTING.findall(listed))
