"""Launchers of a sweep's points: what they need, the overrides they get, and the errors of dead processes."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from forgetbench.compose.overrides import quoted
from forgetbench.core.errors import UserError

EXTRAS = {
    "joblib": "joblib",
    "submitit_slurm": "slurm",
    "submitit_local": "slurm",
    "ray": "ray",
}
"""Hydra's name of a launcher -> the extra that brings it."""
PASSED_ON = (
    "FORGETBENCH_DOWNLOADS",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "HF_HUB_OFFLINE",
)
"""Environment variables that a point gets from the command that launched it, wherever it runs; no secrets, since
launchers write what they pass on to disk."""
_LAUNCHERS = {"joblib", "submitit", "ray"}
"""Packages whose exceptions say that a process died, or that none could be started."""


def missing_plugin(text: str) -> str | None:
    """What to install, if `text` is Hydra's refusal of a launcher that an extra brings."""
    match = re.search(r"hydra/launcher[/=](\w+)", text)
    extra = EXTRAS.get(match.group(1)) if match else None
    if match is None or extra is None:
        return None
    return f"{match.group(1)} is not installed: pip install 'forgetbench[{extra}]'"


def check_launcher(launcher: Any) -> None:
    """Refuse what could not start a single point.

    Args:
        launcher: the node `hydra.launcher`.

    Raises:
        UserError: Slurm is not here, or a point is to be several processes.
    """
    if str(launcher["_target_"]).endswith(".SlurmLauncher") and shutil.which("srun") is None:
        raise UserError(
            "launcher=submitit: Slurm's srun is not on this machine; run the command on a login node of the cluster. "
            "launcher=joblib and launcher=submitit_local need no Slurm."
        )
    for key in ("tasks_per_node", "nodes"):
        if launcher.get(key, 1) != 1:
            raise UserError(
                f"hydra.launcher.{key}={launcher[key]}: a point is one process, and others would do its work again. "
                "One run over several GPUs starts with torchrun (docs/clusters.md)."
            )


def shared_overrides(folder: Path) -> list[str]:
    """Overrides that mean the same in every process: the sweep's folder in full, and the environment."""
    given = {f"++hydra.job.env_set.{name}": os.environ[name] for name in PASSED_ON if name in os.environ}
    return [f"{key}={quoted(value)}" for key, value in {"hydra.sweep.dir": str(folder.absolute()), **given}.items()]


def process_failure(error: Exception) -> str | None:
    """The message for a process that died under a launcher; None for any other error."""
    package = type(error).__module__.partition(".")[0]
    if package not in _LAUNCHERS:
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    # What Ray passes on ends in the cause; the others begin with it.
    message = f"{name}: {' '.join(lines[-1:] if name.startswith('RayTaskError') else lines[:2])}"
    if package == "submitit":
        message += (
            "\nJobs of other points may still run (squeue --me); give the same command again when they have ended."
        )
    return message


def ray_failure(error: Exception, launcher: Any) -> str | None:
    """The message for a Ray that could not be joined; None for any other error.

    Args:
        error: what ended the sweep.
        launcher: the node `hydra.launcher`.
    """
    # A point may raise a ConnectionError, too; Ray passes it on as a class of its own.
    refused = isinstance(error, ConnectionError) and type(error).__module__ == "builtins"
    if not refused or not str(launcher["_target_"]).endswith(".RayLauncher"):
        return None
    address = launcher["ray"]["init"]["address"]
    return (
        f"no Ray is running {'here' if address == 'auto' else f'at {address}'}: "
        "start one with `ray start --head`, or leave out hydra.launcher.ray.init.address"
    )
