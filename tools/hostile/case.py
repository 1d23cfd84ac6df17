"""One input: the files it writes, the command that reads them, and how that must end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Ends(StrEnum):
    """How a command may end."""

    refused = "refused"
    """Exit code 2 and a message."""
    works = "works"
    """Exit code 0: the input is odd, and right."""
    either = "either"
    """Refused or understood; which of the two may depend on versions of libraries."""


@dataclass(frozen=True)
class Place:
    """Where a case may write."""

    folder: Path
    """Empty; the command's working directory."""
    outside: Path
    """Beside it, where no command may read or write: `secret.txt` holds SECRET_FILE."""
    prepared: Path
    """Made once for all cases, to copy from: see `tools.hostile.prepare`."""

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file below the working directory."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def copy(self, what: str, to: str | None = None) -> Path:
        """Copy a prepared folder or file, such as `outputs/lora`, to the same place below the working directory."""
        source, target = self.prepared / what, self.folder / (to or what)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
        return target


@dataclass(frozen=True)
class Case:
    """One input."""

    name: str
    """Unique in its group; says what is wrong with the input."""
    command: tuple[str, ...]
    """Arguments of `forgetbench`; `{outside}` stands for that folder's absolute path."""
    make: Callable[[Place], object]
    """Writes the files."""
    ends: Ends = Ends.refused
    says: tuple[str, ...] = ()
    """Texts that the output must hold, such as the file's name."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables for the command, besides those of every case."""
