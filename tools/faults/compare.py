"""What a folder holds, but for what no two runs of the same command have in common."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

_MEASURED = ["seconds", "samples_per_s", "tokens_per_s", "peak_memory_mb"]
"""Columns of tables: times and memory."""
_OF_THE_SWEEP = "multirun.yaml"
"""Hydra writes it anew at every start, with the time in the names of its jobs."""


_REVISION = re.compile(rb'"git_revision": [^,]*,')
"""Somebody may edit the code while the commands are tried for hours."""


def contents(folder: Path) -> dict[str, str]:
    """Path of everything below a folder -> digest of its content; of a folder, its kind."""
    return {str(path.relative_to(folder)): _digest(path) for path in sorted(folder.rglob("*"))}


def difference(expected: Mapping[str, str], actual: Mapping[str, str]) -> str:
    """Differences of two folders in words; empty if they are the same."""
    differences = {
        "lacks": sorted(expected.keys() - actual.keys()),
        "leftover": sorted(actual.keys() - expected.keys()),
        "differs": sorted(name for name in expected.keys() & actual.keys() if expected[name] != actual[name]),
    }
    return "; ".join(f"{what} {', '.join(names[:3])}" for what, names in differences.items() if names)


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.is_dir():
        return "folder"
    if path.name == _OF_THE_SWEEP:
        return "not compared"
    return hashlib.sha256(_without_times(path)).hexdigest()


def _without_times(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".csv":
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        return table.drop(columns=[name for name in _MEASURED if name in table]).to_csv().encode()
    if path.suffix == ".parquet" and path.parent.name == ".cells":
        cell = pq.read_table(io.BytesIO(content))
        facts = json.loads(cell.schema.metadata[b"facts"])
        return json.dumps([cell.to_pydict(), facts | {"seconds": None}], sort_keys=True).encode()
    return _REVISION.sub(b"", content)
