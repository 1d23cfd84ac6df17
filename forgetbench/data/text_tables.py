"""Rows of CSV and TSV files, as spreadsheets and pandas write them: a header, quotes around what needs them.

Every cell is a text; an empty one is absent. Cells that stand for lists are read as JSON, or as Python writes a list.
"""

from __future__ import annotations

import ast
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.core.reading import lines, opened

Row = dict[str, Any]
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_LISTS = ("options", "images", "image", "messages", "conversations", "prompt", "completion", "history")
"""Fields that may be lists; an answer is one only where it is a JSON list of texts."""
_LONGEST = 256 * 2**20
"""Characters of a cell: pictures in base64 are long."""
_MOST_COLUMNS = 10_000


def separator(path: Path) -> str | None:
    """What stands between the cells of a file, by its name; None if it is no table as text."""
    return _SEPARATORS.get((path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower())


def text_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    """The rows of a file.

    Args:
        path: a file that has a `separator`.
        columns: our field's name -> the column's, where they differ.

    Raises:
        UserError: a line is not laid out as the header; names it.
    """
    lists = {columns.get(name, name) for name in _LISTS}
    answer = columns.get("answer", "answer")
    csv.field_size_limit(_LONGEST)
    with opened(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.reader(lines(path, text.readline), delimiter=separator(path) or ",", strict=True)
        try:
            header = next(reader, [])
            _check_header(path, header)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise UserError(
                        f"{path}:{reader.line_num}: {len(cells)} cells, but the header has {len(header)}; put texts "
                        "with separators, quotes or line breaks into quotes."
                    )
                yield {
                    name: _list(cell) if name in lists else _texts(cell) if name == answer else cell
                    for name, cell in zip(header, cells, strict=True)
                    if cell.strip()
                }
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not readable as {path.suffix[1:]} ({error}).") from error


def _check_header(path: Path, header: list[str]) -> None:
    if len(header) > _MOST_COLUMNS:
        raise UserError(f"{path}:1: the header has {len(header):,} columns, and may have {_MOST_COLUMNS:,}.")
    if twice := [name for name, n in Counter(header).items() if n > 1]:
        raise UserError(f"{path}:1: the header names the column '{twice[0]}' twice; rename one.")
    if len(header) == 1 and (other := next((mark for mark in ";\t," if mark in header[0]), None)):
        raise UserError(
            f"{path}:1: the header is one cell, with {other!r} inside; a .csv has commas between cells, a .tsv tabs."
        )


def _list(cell: str) -> object:
    """The list that a cell holds, or else its text."""
    if not cell.lstrip().startswith("["):
        return cell
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) else cell
    return cell


def _texts(cell: str) -> object:
    found = _list(cell) if cell.lstrip().startswith('["') else cell
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else cell
