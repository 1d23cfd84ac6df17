"""Runs, exports and predictions that cases damage; made once, by the commands themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SMALL = ("recipe.steps=2", "recipe.batch_size=4", "threads=1")
_COMMANDS = (
    ("finetune", "name=plain", "recipe=full_low_lr", *_SMALL),
    ("finetune", "name=lora", "recipe=lora", *_SMALL),
    ("eval-matrix", "run=outputs/lora", "matrix=quick", "matrix.limit=4", "matrix.steps=[2]", "threads=1"),
    ("export", "outputs/lora", "adapter", "--adapter"),
    ("export", "outputs/plain", "model"),
)


def prepare(folder: Path) -> None:
    """Fill a folder with outputs/plain and outputs/lora (runs; the second is scored), adapter/ and model/ (exports).

    Raises:
        subprocess.CalledProcessError: a command failed; its output was shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for command in _COMMANDS:
        subprocess.run([sys.executable, "-m", "forgetbench", *command], cwd=folder, check=True, stdout=sys.stderr)
