"""Defaults that a command with `run=` takes from the run: the matrix and the folders of manifests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from forgetbench.compose.overrides import quoted
from forgetbench.config import EvalMatrixConfig, ScoreConfig
from forgetbench.core.errors import UserError
from forgetbench.core.options import USER_MANIFESTS, config_files
from forgetbench.runs.run import Run, read_run
from forgetbench.runs.scored import FILE, LAST, Scored, literal, manifest_folders, recall


@dataclass(frozen=True)
class RunDefaults:
    """Defaults from the run that a command was given."""

    overrides: Sequence[str] = ()
    """Overrides that come before those of the command."""
    manifests: Sequence[str] | None = None
    """Folders; None where the command says them, or names no run."""
    scored: Scored | None = None


def run_defaults(kind: type[Any], parsed: Sequence[Override]) -> RunDefaults:
    """The defaults from the run of a scoring command; empty where there is no run.

    Raises:
        UserError: scored.json or run.json is damaged, or the last matrix is asked for and the run has none.
    """
    if kind not in (EvalMatrixConfig, ScoreConfig):
        return RunDefaults()
    given = {override.key_or_group: override for override in parsed}
    folder = _folder(given["run"]) if "run" in given else None
    scored = recall(folder) if folder else None
    wants_last = "matrix" in given and given["matrix"].value() == LAST
    if wants_last and scored is None:
        where = f"{folder or 'run=...'} has no {FILE}" if "run" in given else "give the run, too (run=outputs/<name>)"
        raise UserError(f"matrix={LAST} is the matrix that a run was scored with last; {where}.")
    if scored and LAST in config_files("matrix"):
        raise UserError(f"conf/matrix/{LAST}.yaml: '{LAST}' means the matrix that a run was scored with; rename it.")
    if folder is None:
        return RunDefaults()
    manifests = None
    if "manifests" not in given:
        manifests = manifest_folders(folder, _run(folder))
        if kind is EvalMatrixConfig:  # it may score what the run has not seen
            manifests = [default for default in USER_MANIFESTS if default not in manifests] + manifests
    overrides = [] if manifests in (None, list(USER_MANIFESTS)) else [f"manifests=[{','.join(map(quoted, manifests))}]"]
    if kind is ScoreConfig and scored and "matrix" not in given:
        overrides.append(f"matrix={LAST}")
    return RunDefaults(overrides, manifests, scored)


def _run(folder: Path) -> Run | None:
    """The run in a folder; None where it is missing, or damaged, which the command itself refuses."""
    try:
        return read_run(folder)
    except UserError:
        return None


def register(scored: Scored | None) -> None:
    """Make the last matrix an option of the group `matrix`; drop that of an earlier call, which the store outlives."""
    store = ConfigStore.instance()
    if "matrix" in store.repo:
        store.repo["matrix"].pop(f"{LAST}.yaml", None)
    if scored:
        node = {"defaults": ["/schema/matrix@_here_", "_self_"], **literal(scored.matrix)}
        store.store(group="matrix", name=LAST, node=node, provider=FILE)


def _folder(run: Override) -> Path | None:
    """The folder of `run=`, where there is one."""
    try:
        content = OmegaConf.to_container(OmegaConf.create({"run": run.value()}), resolve=True)
    except OmegaConfBaseException:
        return None  # composing says it better
    folder = Path(str(content["run"])) if isinstance(content, dict) and content["run"] is not None else None
    return folder if folder and folder.is_dir() else None
