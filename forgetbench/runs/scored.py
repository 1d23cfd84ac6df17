"""What a run remembers of its scoring: the matrix, the folders of its manifests, and where its cells are.

`scored.json` stands beside the tables. It decides nothing about what a run is; it tells how its tables were made, so
that a command that says no more than `run=` can make them again, and read them. It is written before the tables: after
a kill between the two, `score` makes those that were asked for last.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from forgetbench.config import MatrixConfig
from forgetbench.core.errors import UserError
from forgetbench.core.files import write_json
from forgetbench.core.options import USER_MANIFESTS
from forgetbench.core.shell import argument
from forgetbench.runs.run import FILE as RUN_FILE
from forgetbench.runs.run import Run

FILE = "scored.json"
LAST = "last"
"""`matrix=last`: the matrix that a run was scored with last."""
_REFERENCE = re.compile(r"(\\*)\$\{")


@dataclass(frozen=True)
class Scored:
    """How a run, or what stands beside a run's tables without one, was scored last."""

    matrix: Mapping[str, Any]
    """The whole of it, as nested settings."""
    manifests: Sequence[str]
    """Folders with the user's own manifests."""
    outputs: Path
    """The folder that holds its cells."""
    engine: str | None = None
    """What ran the model, with its version; None for transformers in this process."""

    @property
    def config(self) -> MatrixConfig:
        """The matrix."""
        return _typed(self.matrix)


def _typed(matrix: Any) -> MatrixConfig:
    """Nested settings as a matrix, checked."""
    merged = OmegaConf.merge(OmegaConf.structured(MatrixConfig), literal(matrix))
    return cast(MatrixConfig, OmegaConf.to_object(merged))


def matrix_settings(matrix: MatrixConfig) -> dict[str, Any]:
    """A matrix as nested settings."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(matrix)))
    return settings


def remember(folder: Path, scored: Scored) -> None:
    """Write how the tables in a folder are made; folders of manifests that are not there are left out."""
    place, cells = folder.resolve(), scored.outputs.resolve()
    # Not resolved: a folder that is a link is found by the link.
    own = [Path(os.path.normpath(Path.cwd() / one)) for one in scored.manifests if Path(one).is_dir()]
    content = {
        "manifests": [_written(one, place, one.parent) for one in own],
        "matrix": scored.matrix,
        "outputs": _written(cells, place, cells),
        **({"engine": scored.engine} if scored.engine else {}),
    }
    write_json(folder / FILE, content)


def recall(folder: Path) -> Scored | None:
    """How the tables in a folder were made; None where nothing tells.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
        matrix = matrix_settings(_typed(content["matrix"]))
        paths = [content["outputs"], *content["manifests"]]
        if not all(isinstance(one, str) and "\0" not in one for one in paths):
            raise ValueError("outputs or manifests are no paths")
        outputs, *manifests = (_shown(folder, one) for one in paths)
        engine = content.get("engine")
        if not isinstance(engine, str | None):
            raise ValueError("engine is no name")
        return Scored(matrix, manifests, Path(outputs), engine)
    except (OSError, ValueError, LookupError, TypeError, RecursionError, OmegaConfBaseException) as error:
        cause = str(error).strip().split("\n")[0]
        raise UserError(
            f"{path} does not tell how the run was scored ({cause}). Delete it; the next `forgetbench eval-matrix` "
            "writes it again."
        ) from error


def remade_by(folder: Path) -> str:
    """What makes the answers behind the tables in a folder again, as the end of a message."""
    if not (folder / RUN_FILE).is_file():
        return "The command that made these tables makes them again."
    last = f" matrix={LAST}" if (folder / FILE).is_file() else ""
    return f"`forgetbench eval-matrix {argument('run', folder)}{last}` makes them again."


def manifest_folders(folder: Path, run: Run | None) -> list[str]:
    """The folders of manifests that the tables in a folder were made with; before that, those it was trained with.

    Args:
        folder: of the tables.
        run: in the folder; None for a base alone and for predictions made elsewhere.

    Returns:
        Those that are there; of nothing that tells, the default.
    """
    scored = recall(folder)
    named = scored.manifests if scored else training_manifests(run) if run else []
    return [one for one in named if Path(one).is_dir()] or list(USER_MANIFESTS)


def training_manifests(run: Run) -> list[str]:
    """The folders that a run's configuration names, as seen from where training was started."""
    typed, outputs = Path(run.config.outputs), run.outputs
    is_known = not typed.is_absolute() and outputs.parts[-len(typed.parts) :] == typed.parts
    start = outputs.parents[len(typed.parts) - 1] if is_known and typed.parts else Path.cwd()
    return [_from_here(str(start / one)) for one in run.config.manifests]


def _written(path: Path, folder: Path, shared: Path) -> str:
    """A path as seen from a folder that lies in the same tree, so that the tree may move; else the whole path."""
    is_one_tree = shared in folder.parents and shared != Path(shared.anchor)
    return os.path.relpath(path, folder) if is_one_tree else str(path)


def _shown(folder: Path, written: str) -> str:
    return _from_here(os.path.normpath(folder.resolve() / written))


def _from_here(path: str) -> str:
    """A path below the working folder as one would type it there."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def literal(settings: Any) -> Any:
    """Settings whose texts stand for themselves: the file may come from anyone, and nothing in it is a reference."""
    if isinstance(settings, Mapping):
        return {str(key): literal(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [literal(value) for value in settings]
    return _REFERENCE.sub(r"\1\1\\${", settings) if isinstance(settings, str) else settings
