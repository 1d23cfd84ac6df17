"""Save and load checkpoints, which hold only changed tensors (fp32 values) and a meta.json.

checkpoints/step_000120/{delta.safetensors, meta.json}
checkpoints/step_000120@wise_ft-0.5/...         a variant: that step after an operation such as WiSE-FT

Training resumes from a resume point, which holds weights, optimiser state and method state of a step:

resume/step_000137/state.safetensors            only the newest is kept; deleted when the run is finished
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetbench.core.errors import UserError, reading
from forgetbench.core.files import read_json, replacing
from forgetbench.core.paths import leads_out

if TYPE_CHECKING:  # listing checkpoints needs no torch, and a finished matrix is read again without it
    from torch import Tensor


_STEP = re.compile(r"step_(\d{6,})")
_NAME = re.compile(r"step_\d{6,}(@|$)")
_STATE = "state.safetensors"
_VARIANT = re.compile(r"\w[\w.+-]*(:[\w.+-]+)?|")
_MAX_STEPS = 2**63


@dataclass(frozen=True)
class Checkpoint:
    """A saved step of a run."""

    step: int
    path: Path | None
    """None for step 0, the base model."""
    meta: Mapping[str, Any]

    @property
    def variant(self) -> str:
        """The operation applied after training, such as `wise_ft:0.5`; empty for a trained checkpoint."""
        return str(self.meta.get("variant", ""))

    @property
    def name(self) -> str:
        """Folder name, such as `step_000120` or `step_000120@wise_ft-0.5`."""
        return step_name(self.step, self.variant)

    @property
    def digest(self) -> str:
        """sha256 of the changed tensors; empty for the base."""
        return str(self.meta["delta_digest"]) if self.path else ""

    def delta(self) -> dict[str, Tensor]:
        """Load the changed tensors, by parameter name in the loaded model, and verify the digest.

        Raises:
            UserError: the file is damaged or was edited.
        """
        if self.path is None:
            return {}
        from safetensors.torch import load_file

        from forgetbench.models.tensors import tensors_digest

        file = self.path / "delta.safetensors"
        with reading(file, "delete the folder and run finetune again"):
            if not file.is_file():  # reading a FIFO would block
                raise FileNotFoundError("there is no such file")
            delta = load_file(file)
        if tensors_digest(delta, self.meta["method"]) != self.digest:
            raise UserError(
                f"{self.path}: delta.safetensors does not match meta.json; delete the folder and run finetune again."
            )
        return delta


BASE = Checkpoint(0, None, {})
"""The base model of any run."""


def step_name(step: int, variant: str = "") -> str:
    """Folder name of a step or of its variant."""
    return f"step_{step:06d}" + (f"@{variant.replace(':', '-')}" if variant else "")


def save_checkpoint(folder: Path, step: int, delta: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Checkpoint:
    """Write a checkpoint atomically.

    Args:
        folder: the run's folder.
        step: number of optimiser steps done.
        delta: changed tensors; may be empty.
        meta: configuration, versions, digests; must include `method`, and `variant` for a variant.
    """
    from safetensors.torch import save_file

    from forgetbench.models.tensors import tensors_digest

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in delta.items()}
    # The digest includes the method's settings, because an adapter's scale is not in its tensors.
    meta = {**meta, "step": step, "delta_digest": tensors_digest(tensors, meta["method"])}
    target = folder / "checkpoints" / step_name(step, str(meta.get("variant", "")))
    check_inside_run(folder, target)
    with replacing(target) as temporary:
        temporary.mkdir()
        save_file(tensors, temporary / "delta.safetensors")
        (temporary / "meta.json").write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n")
    return Checkpoint(step, target, meta)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """All checkpoints of a run in step order, the base (step 0) first, variants after their step.

    A folder whose name differs from its meta.json, such as a copy, is no checkpoint. A variant is left out if its
    checkpoint no longer exists or was trained again to other weights.

    Raises:
        UserError: a folder named like a step holds another step, or is not readable.
    """
    checkpoints = [BASE]
    check_inside_run(folder, folder / "checkpoints")
    for path in sorted((folder / "checkpoints").glob("step_*")):
        if not path.is_dir() or not _NAME.match(path.name):
            continue
        check_inside_run(folder, path)
        checkpoint = _read(path)
        if checkpoint.name == path.name:
            checkpoints.append(checkpoint)
        elif _STEP.fullmatch(path.name):
            raise UserError(f"{path} holds {checkpoint.name}, as its meta.json says; rename it back, or delete it.")
    trained = {(checkpoint.step, checkpoint.digest) for checkpoint in checkpoints if not checkpoint.variant}
    checkpoints = [
        checkpoint
        for checkpoint in checkpoints
        if not checkpoint.variant or (checkpoint.step, checkpoint.meta.get("source_digest")) in trained
    ]
    return sorted(checkpoints, key=lambda checkpoint: (checkpoint.step, checkpoint.variant))


def _read(path: Path) -> Checkpoint:
    meta = read_json(path / "meta.json")
    missing = {"step", "delta_digest", "method"} - set(meta if isinstance(meta, dict) else ())
    is_sound = not missing and type(meta["step"]) is int and 0 < meta["step"] < _MAX_STEPS
    if not is_sound or not _VARIANT.fullmatch(str(meta.get("variant", ""))):
        raise UserError(f"{path / 'meta.json'} is not that of a checkpoint; delete {path} and run finetune again.")
    return Checkpoint(meta["step"], path, meta)


def check_inside_run(folder: Path, path: Path) -> None:
    """Refuse a path in a run's folder that links to another place, where files would be read, replaced or removed.

    Args:
        folder: the run's folder; may itself be a link.
        path: a path in the folder.

    Raises:
        UserError: the path leads out of the run's folder.
    """
    if leads_out(folder, path):
        raise UserError(f"{path} is a link that leads out of the run; move what it points to into {folder}.")


def chosen_steps(checkpoints: Sequence[Checkpoint], steps: Collection[int], key: str, folder: Path) -> list[Checkpoint]:
    """The checkpoints of a run at the given steps.

    Args:
        checkpoints: the run's checkpoints, in step order.
        steps: the steps to choose.
        key: the setting that names them, for the error message.
        folder: the run's folder, for the error message.

    Raises:
        UserError: a step has no checkpoint.
    """
    available = sorted({checkpoint.step for checkpoint in checkpoints})
    if missing := sorted(set(steps) - set(available)):
        raise UserError(f"{key}: {folder} has no checkpoint at {missing}; it has {', '.join(map(str, available))}.")
    return [checkpoint for checkpoint in checkpoints if checkpoint.step in steps]


@dataclass(frozen=True)
class ResumePoint:
    """The state for resuming; in the middle of a stage, the checkpoint that the stage started from is needed, too."""

    step: int
    tensors: Mapping[str, Tensor]
    """Changed weights `weights/<parameter>`, moments `optimiser/<parameter>/<moment>`, method state `method/<name>`."""


def save_resume(folder: Path, point: ResumePoint) -> None:
    """Write a resume point, then delete older ones; at any moment a complete resume point exists."""
    from safetensors.torch import save_file

    from forgetbench.models.tensors import tensors_digest

    check_inside_run(folder, folder / "resume")
    target = folder / "resume" / step_name(point.step)
    with replacing(target) as temporary:
        temporary.mkdir()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in point.tensors.items()}
        save_file(tensors, temporary / _STATE, {"digest": tensors_digest(tensors)})
    for older in target.parent.iterdir():
        if older != target:
            shutil.rmtree(older) if older.is_dir() else older.unlink()


def load_resume(folder: Path) -> ResumePoint | None:
    """The run's newest resume point, if there is one.

    Raises:
        UserError: it is damaged.
    """
    check_inside_run(folder, folder / "resume")
    candidates = ((_STEP.fullmatch(path.name), path / _STATE) for path in (folder / "resume").glob("step_*"))
    # A kill may leave the folder of an older resume point without its file.
    newest = max(((int(step[1]), path) for step, path in candidates if step and path.is_file()), default=None)
    return ResumePoint(newest[0], _load_state(newest[1])) if newest else None


def _load_state(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    from forgetbench.models.tensors import tensors_digest

    try:
        with safe_open(path, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            expected = (stored.metadata() or {}).get("digest")
        if expected != tensors_digest(tensors):
            raise ValueError("it is not as it was written")
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(
            f"{path} is damaged ({error}), so training cannot go on from {path.parent.name}. Its checkpoints are not "
            f"lost. Restore the file, or delete {path.parent}: the same command then trains from an older resume point "
            "or from the start, to the same weights."
        ) from error
    return tensors


def drop_resume(folder: Path) -> None:
    """Delete the resume points of a finished run."""
    shutil.rmtree(folder / "resume", ignore_errors=True)
