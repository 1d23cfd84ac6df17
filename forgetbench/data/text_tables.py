"""Read rows of CSV and TSV files as spreadsheets and pandas write them, with a header and quotes where needed.

Every cell is a text; an empty cell is absent. Cells that hold lists are read as JSON or as Python literals.
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
"""Fields that may be lists; an answer is a list only if it is a JSON list of texts."""
_MAX_CELL = 256 * 2**20
"""Longest cell in characters: pictures in base64 are long."""
_MAX_COLUMNS = 10_000


def separator(path: Path) -> str | None:
    """The separator of a file's cells, by the file's name; None if it is not CSV or TSV."""
    return _SEPARATORS.get((path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower())


def text_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    """The rows of a file.

    Args:
        path: a file that has a `separator`.
        columns: our field's name -> the column's, where they differ.

    Raises:
        UserError: a line has another number of cells than the header; names the line.
    """
    lists = {columns.get(name, name) for name in _LISTS}
    answer = columns.get("answer", "answer")
    csv.field_size_limit(_MAX_CELL)
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
                    name: _parse_list(cell) if name in lists else _parse_texts(cell) if name == answer else cell
                    for name, cell in zip(header, cells, strict=True)
                    if cell.strip()
                }
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not readable as {path.suffix[1:]} ({error}).") from error


def _check_header(path: Path, header: list[str]) -> None:
    if len(header) > _MAX_COLUMNS:
        raise UserError(f"{path}:1: the header has {len(header):,} columns, and may have {_MAX_COLUMNS:,}.")
    if duplicates := [name for name, n in Counter(header).items() if n > 1]:
        raise UserError(f"{path}:1: the header names the column '{duplicates[0]}' twice; rename one.")
    if len(header) == 1 and (other := next((mark for mark in ";\t," if mark in header[0]), None)):
        raise UserError(
            f"{path}:1: the header is one cell, with {other!r} inside; a .csv has commas between cells, a .tsv tabs."
        )


def _parse_list(cell: str) -> object:
    """The list that a cell holds, or else its text."""
    if not cell.lstrip().startswith("["):
        return cell
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return value if isinstance(value, list) else cell
    return cell


def _parse_texts(cell: str) -> object:
    value = _parse_list(cell) if cell.lstrip().startswith('["') else cell
    return value if isinstance(value, list) and all(isinstance(text, str) for text in value) else cell
