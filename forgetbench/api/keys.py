"""The keys of the commands as type checkers see them; `config/` says what each means and what it is by default.

A group is the name of an option, such as matrix="quick", or a mapping of its keys, such as matrix={"limit": 200}.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

Tracker = Literal["none", "tensorboard", "trackio", "wandb", "mlflow"]
Path = str | os.PathLike[str]
Group = str | Mapping[str, Any]
Groups = str | tuple[str, ...] | Mapping[str, Any]
"""Of a sweep: an option, or several, a point for each."""
Sets = Group | list[str]
"""One set, or several that are trained one after the other."""


class _Common(TypedDict, total=False):
    outputs: Path
    manifests: Sequence[Path]
    threads: int | None
    tracker: Tracker
    hydra: Mapping[str, Any]


class FinetuneKeys(_Common, total=False):
    """Of `finetune`."""

    name: str
    run: Path | None
    seed: int
    sharding: Literal["none", "fsdp2"]
    resume_minutes: float
    guard: Mapping[str, Any]
    strategy: str | None
    model: Group
    data: Sets
    recipe: Group
    method: Group


class EvalMatrixKeys(_Common, total=False):
    """Of `eval_matrix`."""

    name: str | None
    run: Path | None
    seed: int
    model: Group
    data: Sets
    matrix: Group
    engine: Group


class SweepKeys(_Common, total=False):
    """Of `sweep`: what is a tuple is swept."""

    name: str
    run: Path | None
    seed: int | tuple[int, ...]
    sharding: Literal["none", "fsdp2"]
    resume_minutes: float
    guard: Mapping[str, Any]
    search: Mapping[str, Any]
    sweep: str
    launcher: str
    strategy: str | tuple[str, ...] | None
    model: Groups
    data: Groups | list[str]
    recipe: Groups
    method: Groups
    matrix: Group
    engine: Group
