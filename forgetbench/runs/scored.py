"""Record how a run was scored: the matrix, the folders of its manifests, and the location of its cells.

`scored.json` is next to the tables. It is not part of a run's identity. With it, a command that is given only `run=`
can read the tables or make them again. It is written before the tables, so that after a kill between the two, `score`
makes the tables that were requested last.
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
"""`matrix=last` is the matrix that a run was last scored with."""
_REFERENCE = re.compile(r"(\\*)\$\{")


@dataclass(frozen=True)
class Scored:
    """How the tables in a folder were last scored; the folder may hold a run or not."""

    matrix: Mapping[str, Any]
    """The whole matrix, as nested settings."""
    manifests: Sequence[str]
    """Folders with the user's manifests."""
    outputs: Path
    """The folder that holds the cells."""
    engine: str | None = None
    """The inference engine with its version; None for transformers in this process."""

    @property
    def config(self) -> MatrixConfig:
        """The typed matrix."""
        return _matrix_config(self.matrix)


def _matrix_config(matrix: Any) -> MatrixConfig:
    """Convert nested settings to a checked matrix."""
    merged = OmegaConf.merge(OmegaConf.structured(MatrixConfig), literal(matrix))
    return cast(MatrixConfig, OmegaConf.to_object(merged))


def matrix_settings(matrix: MatrixConfig) -> dict[str, Any]:
    """Convert a matrix to nested settings."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(matrix)))
    return settings


def remember(folder: Path, scored: Scored) -> None:
    """Write scored.json to a folder; manifest folders that do not exist are left out."""
    place, cells = folder.resolve(), scored.outputs.resolve()
    # Not resolved, so that a link to a folder stays a link.
    manifests = [
        Path(os.path.normpath(Path.cwd() / folder_name))
        for folder_name in scored.manifests
        if Path(folder_name).is_dir()
    ]
    content = {
        "manifests": [_stored_path(path, place, path.parent) for path in manifests],
        "matrix": scored.matrix,
        "outputs": _stored_path(cells, place, cells),
        **({"engine": scored.engine} if scored.engine else {}),
    }
    write_json(folder / FILE, content)


def recall(folder: Path) -> Scored | None:
    """Read scored.json of a folder; None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
        matrix = matrix_settings(_matrix_config(content["matrix"]))
        paths = [content["outputs"], *content["manifests"]]
        if not all(isinstance(item, str) and "\0" not in item for item in paths):
            raise ValueError("outputs or manifests are no paths")
        outputs, *manifests = (_shown_path(folder, item) for item in paths)
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
    """The end of a message: how to make the answers behind the tables in a folder again."""
    if not (folder / RUN_FILE).is_file():
        return "The command that made these tables makes them again."
    last = f" matrix={LAST}" if (folder / FILE).is_file() else ""
    return f"`forgetbench eval-matrix {argument('run', folder)}{last}` makes them again."


def manifest_folders(folder: Path, run: Run | None) -> list[str]:
    """The manifest folders that the tables in a folder were made with, or else those of its training.

    Args:
        folder: the folder of the tables.
        run: the run in the folder; None for a base without a run and for predictions of other programs.

    Returns:
        The folders that exist; the default folders if there are none.
    """
    scored = recall(folder)
    named = scored.manifests if scored else training_manifests(run) if run else []
    return [path for path in named if Path(path).is_dir()] or list(USER_MANIFESTS)


def training_manifests(run: Run) -> list[str]:
    """The manifest folders of a run's configuration, relative to the folder in which training was started."""
    typed, outputs = Path(run.config.outputs), run.outputs
    is_known = not typed.is_absolute() and outputs.parts[-len(typed.parts) :] == typed.parts
    start = outputs.parents[len(typed.parts) - 1] if is_known and typed.parts else Path.cwd()
    return [_from_here(str(start / path)) for path in run.config.manifests]


def _stored_path(path: Path, folder: Path, shared: Path) -> str:
    """A path relative to `folder` if both are in the same tree, so that the tree can be moved; else the full path."""
    is_one_tree = shared in folder.parents and shared != Path(shared.anchor)
    return os.path.relpath(path, folder) if is_one_tree else str(path)


def _shown_path(folder: Path, written: str) -> str:
    return _from_here(os.path.normpath(folder.resolve() / written))


def _from_here(path: str) -> str:
    """A path below the working folder relative to it; other paths unchanged."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def literal(settings: Any) -> Any:
    """Escape references in settings, because the file may be untrusted and must not contain any."""
    if isinstance(settings, Mapping):
        return {str(key): literal(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [literal(value) for value in settings]
    return _REFERENCE.sub(r"\1\1\\${", settings) if isinstance(settings, str) else settings
