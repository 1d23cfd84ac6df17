"""Where the package's own files are, in a checkout and in an installed wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
EMBEDDED = PACKAGE / "embedded"


def shipped(folder: str) -> Path:
    """`conf` or `data_manifests`: the wheel's copy, or the repository's in an editable install."""
    installed = PACKAGE / "_shipped" / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder
