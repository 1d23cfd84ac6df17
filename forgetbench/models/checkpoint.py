"""Checkpoints hold only what changed: full fp32 values of the changed tensors, and a meta.json.

checkpoints/step_000120/{delta.safetensors, meta.json}
checkpoints/step_000120@wise_ft-0.5/...         a variant: what an operation after training made of that step
resume/step_000120/optimiser.safetensors        for the newest checkpoint only; gone when the run is finished
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetbench.core.errors import UserError
from forgetbench.core.files import read_json, replacing
from forgetbench.core.paths import leads_out

if TYPE_CHECKING:  # listing checkpoints needs no torch, and a finished matrix is read again without it
    from torch import Tensor


_STEP = re.compile(r"step_(\d{6,})")
_NAME = re.compile(r"step_\d{6,}(@|$)")
_VARIANT = re.compile(r"\w[\w.+-]*(:[\w.+-]+)?|")
_MOMENTS = "optimiser.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """One saved step of a run."""

    step: int
    path: Path | None
    """None for step 0, the untouched base."""
    meta: Mapping[str, Any]

    @property
    def variant(self) -> str:
        """What was done to it after training, such as `wise_ft:0.5`; empty as trained."""
        return str(self.meta.get("variant", ""))

    @property
    def name(self) -> str:
        """Folder name, such as `step_000120` or `step_000120@wise_ft-0.5`."""
        return step_name(self.step, self.variant)

    @property
    def digest(self) -> str:
        """sha256 of what differs from the base; empty for the base itself."""
        return str(self.meta["delta_digest"]) if self.path else ""

    def delta(self) -> dict[str, Tensor]:
        """The changed tensors by live parameter name; checked against the digest.

        Raises:
            UserError: the file was damaged or edited.
        """
        if self.path is None:
            return {}
        from safetensors.torch import load_file

        from forgetbench.models.tensors import tensors_digest

        try:
            delta = load_file(self.path / "delta.safetensors")
        except Exception as error:
            raise UserError(
                f"{self.path}: delta.safetensors cannot be read ({error}); delete the folder and run finetune again."
            ) from error
        if tensors_digest(delta, self.meta["method"]) != self.digest:
            raise UserError(
                f"{self.path}: delta.safetensors does not match meta.json; delete the folder and run finetune again."
            )
        return delta


BASE = Checkpoint(0, None, {})
"""The untouched base of any run."""


def step_name(step: int, variant: str = "") -> str:
    """Folder name of a step, or of a variant of it."""
    return f"step_{step:06d}" + (f"@{variant.replace(':', '-')}" if variant else "")


def save_checkpoint(folder: Path, step: int, delta: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Checkpoint:
    """Write one checkpoint atomically.

    Args:
        folder: the run's folder.
        step: optimiser steps done.
        delta: changed tensors; may be empty.
        meta: configuration, versions, digests; `method` must be among them, `variant` where there is one.
    """
    from safetensors.torch import save_file

    from forgetbench.models.tensors import tensors_digest

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in delta.items()}
    # The method's settings count: an adapter's scale is not in its tensors.
    meta = {**meta, "step": step, "delta_digest": tensors_digest(tensors, meta["method"])}
    target = folder / "checkpoints" / step_name(step, str(meta.get("variant", "")))
    check_own(folder, target)
    with replacing(target) as temporary:
        temporary.mkdir()
        save_file(tensors, temporary / "delta.safetensors")
        (temporary / "meta.json").write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n")
    return Checkpoint(step, target, meta)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """All checkpoints of a run in step order, the base (step 0) first, variants after their step.

    A folder that is not named as its meta.json says, such as a copy, is no checkpoint. A variant of a checkpoint that
    is gone, or that was trained again to other weights, is left out.

    Raises:
        UserError: a folder is named like a step and holds another one, or nothing that can be read.
    """
    found = [BASE]
    check_own(folder, folder / "checkpoints")
    for path in sorted((folder / "checkpoints").glob("step_*")):
        if not path.is_dir() or not _NAME.match(path.name):
            continue
        check_own(folder, path)
        checkpoint = _read(path)
        if checkpoint.name == path.name:
            found.append(checkpoint)
        elif _STEP.fullmatch(path.name):
            raise UserError(f"{path} holds {checkpoint.name}, as its meta.json says; rename it back, or delete it.")
    trained = {(one.step, one.digest) for one in found if not one.variant}
    found = [one for one in found if not one.variant or (one.step, one.meta.get("source_digest")) in trained]
    return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.variant))


def _read(path: Path) -> Checkpoint:
    meta = read_json(path / "meta.json")
    lacking = {"step", "delta_digest", "method"} - set(meta if isinstance(meta, dict) else ())
    is_sound = not lacking and isinstance(meta["step"], int) and meta["step"] >= 0
    if not is_sound or not _VARIANT.fullmatch(str(meta.get("variant", ""))):
        raise UserError(f"{path / 'meta.json'} is not that of a checkpoint; delete {path} and run finetune again.")
    return Checkpoint(meta["step"], path, meta)


def check_own(folder: Path, path: Path) -> None:
    """Refuse a folder of a run that is a link to another place: what is there would be taken, replaced or removed.

    Args:
        folder: the run's; may itself be a link.
        path: in it.

    Raises:
        UserError: it leads out of the run's folder.
    """
    if leads_out(folder, path):
        raise UserError(f"{path} is a link that leads out of the run; move what it points to into {folder}.")


def chosen_steps(checkpoints: Sequence[Checkpoint], steps: Collection[int], key: str, folder: Path) -> list[Checkpoint]:
    """The checkpoints of a run at the given steps.

    Args:
        checkpoints: of the run, in step order.
        steps: to choose.
        key: the setting that names them, for a refusal.
        folder: the run's, for a refusal.

    Raises:
        UserError: there is none at a step.
    """
    known = sorted({one.step for one in checkpoints})
    if missing := sorted(set(steps) - set(known)):
        raise UserError(f"{key}: {folder} has no checkpoint at {missing}; it has {', '.join(map(str, known))}.")
    return [one for one in checkpoints if one.step in steps]


@dataclass(frozen=True)
class ResumePoint:
    """What continuing needs besides the weights of the checkpoint at the same step."""

    step: int
    tensors: Mapping[str, Tensor]
    """Moments `optimiser/<parameter>/<moment>`, and the method's state `method/<name>`."""


def save_resume(folder: Path, point: ResumePoint) -> None:
    """Add a resume point, then drop the older ones; at any moment one whole point is there.

    Written after its checkpoint, so that it never lacks weights.
    """
    from safetensors.torch import save_file

    from forgetbench.models.tensors import tensors_digest

    check_own(folder, folder / "resume")
    target = folder / "resume" / step_name(point.step)
    with replacing(target) as temporary:
        temporary.mkdir()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in point.tensors.items()}
        save_file(tensors, temporary / _MOMENTS, {"digest": tensors_digest(tensors)})
    for other in target.parent.iterdir():
        if other != target:
            shutil.rmtree(other) if other.is_dir() else other.unlink()


def load_resume(folder: Path) -> ResumePoint | None:
    """The run's newest resume point, if it has one.

    Raises:
        UserError: it was damaged.
    """
    check_own(folder, folder / "resume")
    named = ((_STEP.fullmatch(path.name), path / _MOMENTS) for path in (folder / "resume").glob("step_*"))
    # A kill may leave the folder of an older one without its file.
    found = max(((int(step[1]), path) for step, path in named if step and path.is_file()), default=None)
    return ResumePoint(found[0], _whole_moments(found[1])) if found else None


def _whole_moments(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    from forgetbench.models.tensors import tensors_digest

    try:
        with safe_open(path, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            expected = (stored.metadata() or {}).get("digest")
        if expected not in (None, tensors_digest(tensors)):
            raise ValueError("it is not as it was written")
    except (SafetensorError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}), so training cannot go on from {path.parent.name}. Its checkpoints are not "
            f"lost. Restore the file, or delete {path.parent}: the same command then trains from an older resume point "
            "or from the start, to the same weights."
        ) from error
    return tensors


def drop_resume(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    shutil.rmtree(folder / "resume", ignore_errors=True)
