r"""The runs behind docs/results/mdgd.md: is there a setting in which MDGD keeps more than plain at equal target score?

python -m tools.mdgd_study --commands | xargs -d '\n' -P 2 -I{} sh -c '{}'    # about two hours on two cores
python -m tools.mdgd_study --cosines cosines.csv                              # how the two gradients lie to each other
python -m tools.mdgd_result outputs cosines.csv                               # writes docs/results/mdgd.md and .svg
"""

from __future__ import annotations

import csv
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

SEEDS = (0, 1, 2)
PLAIN = "plain"


@dataclass(frozen=True)
class Training:
    """What is trained, at a rate that forgets, and the rates that plain fine-tuning is traced at."""

    heading: str
    overrides: str
    target: str
    decoding: str
    rate: str
    plain_rates: Sequence[str]


CAPTIONS = (
    "matrix.datasets=[fashion_caption,emoji_caption_cider,fashion_naming,fashion_knowledge,fashion_yesno,fashion_shade,"
    "digits_naming,digits_questions,digits_yesno,emoji_naming,emoji_category,emoji_yesno] "
    "matrix.decodings=[choice,greedy] matrix.limit=200"
)
TRAININGS = {
    "names": Training(
        "Garment names, 120 steps", "data=fashion_naming matrix=methods", "fashion_naming", "choice", "8e-4",
        ("2e-4", "4e-4", "8e-4"),
    ),
    "epochs": Training(
        "Garment names, four epochs", "data=fashion_naming matrix=methods recipe.steps=376", "fashion_naming", "choice",
        "8e-4", ("1e-4", "4e-4", "8e-4"),
    ),
    "captions": Training(
        "Captions of garments, 120 steps", f"data=fashion_caption matrix=methods {CAPTIONS}", "fashion_caption",
        "greedy", "8e-4", ("2e-4", "4e-4", "8e-4"),
    ),
}  # fmt: skip
SETTINGS = {
    "always, each tensor (default)": "method=mdgd",
    "conflict, each tensor": "method=mdgd method.when=conflict",
    "always, all tensors": "method=mdgd method.scope=all",
    "conflict, all tensors": "method=mdgd method.when=conflict method.scope=all",
    "strength 0.001": "method=mdgd method.strength=0.001",
    "strength 0.003": "method=mdgd method.strength=0.003",
    "strength 0.01": "method=mdgd method.strength=0.01",
    "layer 1": "method=mdgd method.layer=1",
    "layer 1, strength 0.003": "method=mdgd method.layer=1 method.strength=0.003",
    "MDGD-GM, 10 %": "method=mdgd_gm",
    "MDGD-GM, 30 %": "method=mdgd_gm method.density=0.3",
}
LONG = ("always, each tensor (default)", "conflict, all tensors", "strength 0.003")
"""Settings that the long training has, which costs three times as much."""
LOWER = ("always, each tensor (default)", "conflict, all tensors", "strength 0.003", "MDGD-GM, 10 %")
"""Settings that the short training on names has at half the rate, too."""
LOWER_RATE = "4e-4"
_SHARED = "recipe=methods recipe.precision=fp32 matrix.representation.images=64 threads=1"


def commands() -> list[str]:
    """Plain fine-tuning's rates first; then every setting, seed by seed."""
    lines = []
    for seed in SEEDS:
        for name, training in TRAININGS.items():
            rates = ",".join(training.plain_rates)
            traced = f"method=plain recipe.lr={rates} recipe.checkpoints.log_spaced=4"
            lines.append(_command(name, PLAIN, training, traced, seed))
        for name, training in TRAININGS.items():
            for label, rate in settings_of(name):
                setting = f"{SETTINGS[label]} recipe.lr={rate}"
                lines.append(_command(name, label_at(name, label, rate), training, setting, seed))
    return lines


def settings_of(name: str) -> list[tuple[str, str]]:
    """The settings of a training, each with its rate."""
    labels = LONG if name == "epochs" else SETTINGS
    return [(label, TRAININGS[name].rate) for label in labels] + [
        (label, LOWER_RATE) for label in (LOWER if name == "names" else ())
    ]


def label_at(name: str, label: str, rate: str) -> str:
    """A setting's label, with its rate unless that is the training's."""
    return label if rate == TRAININGS[name].rate else f"{label} at {rate}"


def _command(name: str, label: str, training: Training, setting: str, seed: int) -> str:
    return f"forgetbench sweep {_SHARED} {training.overrides} {setting} seed={seed} name={folder_of(name, label, seed)}"


def folder_of(name: str, label: str, seed: int) -> str:
    """The name of a run's folder."""
    words = "".join(sign if sign.isalnum() or sign in ".-" else "_" for sign in label)
    return f"mdgd-{name}-{words}-{seed}"


def write_cosines(path: Path) -> None:
    """Train as MDGD does by default, and write at every tenth step how task and drift gradient lie to each other."""
    from forgetbench.cli import app
    from forgetbench.methods import mdgd

    rows: list[Sequence[object]] = [["training", "step", "task_norm", "drift_norm", "cosine"]]
    project = mdgd.project
    for name in ("names", "captions"):
        training, steps = TRAININGS[name], 0

        def measured(task: Any, drift: Any, *settings: Any, name: str = name) -> None:
            nonlocal steps
            steps += 1
            if steps % 10 == 0:
                lengths = [math.sqrt(sum(_dot(tensor, tensor) for tensor in side.values())) for side in (task, drift)]
                along = sum(_dot(task[key], drift[key]) for key in task.keys() & drift.keys())
                cosine = along / math.prod(lengths) if all(lengths) else math.nan
                rows.append([name, steps, *(f"{length:.4g}" for length in lengths), f"{cosine:.5f}"])
            project(task, drift, *settings)

        with tempfile.TemporaryDirectory() as folder, patch.object(mdgd, "project", measured):
            words = ["finetune", *_SHARED.split(), *training.overrides.split(), "method=mdgd", f"outputs={folder}"]
            words = [word for word in words if not word.startswith("matrix")]
            app([*words, f"recipe.lr={training.rate}", "recipe.steps=120", "name=run"], standalone_mode=False)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _dot(a: Any, b: Any) -> float:
    return float(a.flatten().double() @ b.flatten().double())


def main() -> None:
    """List the commands, or measure the gradients."""
    if sys.argv[1] == "--commands":
        print("\n".join(commands()))
    else:
        write_cosines(Path(sys.argv[2]))


if __name__ == "__main__":
    main()
