"""Checkpoints hold only what changed: full fp32 values of the changed tensors, and a meta.json.

checkpoints/step_000120/{delta.safetensors, meta.json}
checkpoints/step_000120@wise_ft-0.5/...         a variant: what an operation after training made of that step
resume/step_000120/optimiser.safetensors        for the newest checkpoint only; gone when the run is finished
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetbench.core.errors import UserError
from forgetbench.core.files import read_json, replacing

if TYPE_CHECKING:  # listing checkpoints needs no torch, and a finished matrix is read again without it
    from torch import Tensor


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
    with replacing(target) as temporary:
        temporary.mkdir()
        save_file(tensors, temporary / "delta.safetensors")
        (temporary / "meta.json").write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n")
    return Checkpoint(step, target, meta)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """All checkpoints of a run in step order, the base (step 0) first, variants after their step.

    A variant of a checkpoint that is gone, or that was trained again to other weights, is left out.
    """
    found = [BASE]
    for path in sorted((folder / "checkpoints").glob("step_*")):
        meta = read_json(path / "meta.json")
        found.append(Checkpoint(meta["step"], path, meta))
    trained = {(one.step, one.digest) for one in found if not one.variant}
    found = [one for one in found if not one.variant or (one.step, one.meta.get("source_digest")) in trained]
    return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.variant))


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

    target = folder / "resume" / step_name(point.step)
    with replacing(target) as temporary:
        temporary.mkdir()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in point.tensors.items()}
        save_file(tensors, temporary / "optimiser.safetensors")
    for other in target.parent.iterdir():
        if other != target:
            shutil.rmtree(other)


def load_resume(folder: Path) -> ResumePoint | None:
    """The run's newest resume point, if it has one."""
    from safetensors.torch import load_file

    found = sorted((folder / "resume").glob("step_*/optimiser.safetensors"))
    if not found:
        return None
    return ResumePoint(int(found[-1].parent.name.removeprefix("step_")), load_file(found[-1]))


def drop_resume(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    shutil.rmtree(folder / "resume", ignore_errors=True)
