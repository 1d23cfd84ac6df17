"""Runs, exports and predictions that cases damage; made once, by the commands themselves."""

from __future__ import annotations

from pathlib import Path

from tools.hostile.runner import forked

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
        RuntimeError: a command failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "prepare.log"
    for words in _COMMANDS:
        if forked(words, folder, log)[0] != 0:
            raise RuntimeError(f"forgetbench {' '.join(words)}:\n{log.read_text('utf-8', 'replace')}")
    log.unlink()
