"""Read rows of Parquet and Arrow tables. Pictures carry their cell's address, so their bytes need not stay in memory.

The address of a picture's bytes is `table.parquet#row group/row/column/...`; `read_cell` reads the bytes again. Parquet
is read by whole row groups, of which the last few stay in memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

from cachetools import LRUCache

from forgetbench.core.errors import UserError, reason
from forgetbench.core.reading import check_file

Row = dict[str, Any]
GROUPS_IN_MEMORY = 256 * 2**20
"""Bytes of row groups that stay in memory; the last row group stays even if it is larger."""
BATCH = 256


class CellBytes(bytes):
    """Bytes of a table's cell, with the cell's address."""

    cell: str = ""

    @classmethod
    def at(cls, data: bytes, cell: str) -> CellBytes:
        """The bytes of the cell at an address."""
        stored = cls(data)
        stored.cell = cell
        return stored


def parquet_rows(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file in order, a few hundred in memory at a time.

    Raises:
        OSError, ValueError: the file is not readable as Parquet.
    """
    import pyarrow.parquet as pq

    check_file(path, 2**63)
    with pq.ParquetFile(path) as file:
        _check_columns(file.schema_arrow.names)
        for group in range(file.num_row_groups):
            row = 0
            for batch in file.iter_batches(batch_size=BATCH, row_groups=[group]):
                for row_values in _batch_rows(batch):
                    yield with_addresses(row_values, f"{path}#{group}/{row}")
                    row += 1


def arrow_rows(path: str) -> Iterator[Row]:
    """The rows of a table that `datasets` has cached."""
    table, row = _arrow(path, Path(path).stat().st_mtime_ns), 0
    for batch in table.to_batches(max_chunksize=BATCH):
        for row_values in _batch_rows(batch):
            yield with_addresses(row_values, f"{path}#0/{row}")
            row += 1


def _check_columns(names: Sequence[str]) -> None:
    if duplicates := [name for name, n in Counter(names).items() if n > 1]:
        raise ValueError(f"it has two columns '{duplicates[0]}', of which one would be lost")


def _batch_rows(batch: Any) -> list[Row]:
    """A batch's rows.

    Raises:
        ValueError: a column holds a value that Python cannot, such as a date beyond the year 9999; names the column.
    """
    try:
        return cast(list[Row], batch.to_pylist())
    except Exception as error:  # pyarrow raises its own errors and any of Python's
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.to_pylist()
            except Exception as inner:
                raise ValueError(f"column '{name}' cannot be read ({reason(inner)})") from error
        raise


def table_length(path: str) -> int:
    """Number of rows of a cached table."""
    return int(_arrow(path, Path(path).stat().st_mtime_ns).num_rows)


def with_addresses(row: Row, cell: str) -> Row:
    """The row with every bytes value addressed as a part of `cell`."""
    return {name: _with_address(value, f"{cell}/{quote(name, safe='')}") for name, value in row.items()}


def _with_address(value: Any, cell: str) -> Any:
    if isinstance(value, bytes):
        return CellBytes.at(value, cell)
    if isinstance(value, list):
        return [_with_address(inner, f"{cell}/{place}") for place, inner in enumerate(value)]
    if isinstance(value, dict):
        return with_addresses(value, cell)
    return value


def is_cell(container: str) -> bool:
    """Whether a picture's container is the address of a table's cell."""
    return container.rpartition("#")[0].endswith((".parquet", ".arrow"))


def content_name(data: bytes) -> str:
    """Name of a picture without a file: the first 64 bits of its sha256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()[:16]


def read_cell(cell: str, name: str) -> bytes:
    """Read the bytes at the address of `CellBytes`, and check their `content_name`.

    Raises:
        UserError: the table no longer exists or has changed.
    """
    import pyarrow as pa

    path, _, inside = cell.rpartition("#")
    group, row, column, *within = map(unquote, inside.split("/"))
    try:
        changed_ns = Path(path).stat().st_mtime_ns
        arrow = path.endswith(".arrow")
        table = _arrow(path, changed_ns) if arrow else _read_group(path, changed_ns, int(group), column)
        value = table.column(column)[int(row)].as_py()
        for step in within:
            value = value[int(step)] if isinstance(value, list) else value[step]
        if content_name(value) != name:
            raise ValueError("it holds other bytes")
    except (OSError, LookupError, TypeError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} no longer holds the picture at {inside} ({error}); was it changed?") from error
    return cast(bytes, value)


def groups_in_memory() -> int:
    """Bytes of the cached row groups."""
    return sum(table.nbytes for table in _groups.values())


def groups_cache(max_bytes: int) -> LRUCache[tuple[str, int, int, str], Any]:
    """A cache of row groups, one column each; a row group larger than the cache takes all of it."""
    return LRUCache(max_bytes, getsizeof=lambda table: min(table.nbytes, max_bytes))


_groups = groups_cache(GROUPS_IN_MEMORY)


def _read_group(*key: Any) -> Any:
    """A column of a row group, cached because neighbouring pictures are read next."""
    if key not in _groups:
        path, changed_ns, group, column = key
        _groups[key] = _parquet(path, changed_ns).read_row_group(group, columns=[column])
    return _groups[key]


@lru_cache(maxsize=256)
def _parquet(path: str, changed_ns: int) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


@lru_cache(maxsize=256)
def _arrow(path: str, changed_ns: int) -> Any:
    """A cached table of `datasets`, memory-mapped, so that the system can drop unused pages."""
    import pyarrow as pa

    return pa.ipc.open_stream(pa.memory_map(path)).read_all()
