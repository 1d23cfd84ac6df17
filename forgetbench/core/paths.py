"""Where the package's own files are, in a checkout and in an installed wheel."""

import os
import re
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
EMBEDDED = PACKAGE / "embedded"


def shipped(folder: str) -> Path:
    """`conf` or `data_manifests`: the wheel's copy, or the repository's in an editable install."""
    installed = PACKAGE / "_shipped" / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder


def is_relative(name: str) -> bool:
    """Whether a file's name, as Unix or Windows writes it, leads down from a folder and not elsewhere."""
    written = name.replace("\\", "/")
    return not (written.startswith("/") or re.match("[A-Za-z]:/", written) or ".." in written.split("/"))


def leads_out(folder: str | Path, path: str | Path) -> bool:
    """Whether a file in a folder is a link to a place outside of it.

    The folder itself may be a link, and the Hub's cache keeps its files as links to `blobs`, beside its folders.
    """
    inside = Path(os.path.realpath(path))
    is_blob = inside.parent.name == "blobs" and inside.parents[1].name.startswith(("models--", "datasets--"))
    return not (is_blob or inside.is_relative_to(_real(str(folder))))


@lru_cache(maxsize=256)
def _real(folder: str) -> str:
    return os.path.realpath(folder)
