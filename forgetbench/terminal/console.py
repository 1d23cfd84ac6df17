"""The console that commands write to: as wide as the terminal, or wide enough for the tables in a file or a pipe."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from io import StringIO
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from forgetbench.core.streams import accept_all_letters, has_all_letters, shown, visible_json

PLAIN_WIDTH = 120
_PLAIN: dict[str, Any] = {"highlight": False, "emoji": False, "markup": False, "force_jupyter": False}
"""Texts as they are written; in a notebook, too, where Rich would make a separate output of each line."""


class _SafeConsole(Console):
    """Rich's console for texts of any origin: escape sequences in them are shown, not carried out."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """A text of a table or a line."""
        return super().render_str(shown(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Anything else."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))


def make_console() -> Console:
    """A console for results on standard output; of several processes of a run, only the first one speaks."""
    accept_all_letters()
    quiet = os.environ.get("RANK", "0") != "0"
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return _SafeConsole(quiet=quiet, width=width, **_PLAIN)


console = make_console()
_returned: ContextVar[bool] = ContextVar("results are returned", default=False)


@contextmanager
def results_returned() -> Iterator[None]:
    """Inside, a caller in Python gets results instead of printed tables, and lines go to standard error."""
    before, token = console.stderr, _returned.set(True)
    console.stderr = True
    try:
        yield
    finally:
        console.stderr = before
        _returned.reset(token)


def print_result(table: RenderableType) -> None:
    """Print the result of a command, unless it is returned to a caller in Python."""
    if not _returned.get():
        console.print(table)


def unwrapped(line: str) -> Text:
    """A line that is never wrapped: paths in it can be copied."""
    return Text(line, no_wrap=True)


def print_parts(to: Console, parts: Iterable[RenderableType]) -> None:
    """Tables and lines, one below the other."""
    for part in parts:
        to.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))


def as_text(parts: Iterable[RenderableType], width: int) -> str:
    """Tables and lines as plain text."""
    screen = StringIO()
    print_parts(_SafeConsole(file=screen, width=width, **_PLAIN), parts)
    return "\n".join(line.rstrip() for line in screen.getvalue().splitlines())


def say(line: str) -> None:
    """One line, unwrapped: paths in it can be copied."""
    console.print(line, soft_wrap=True)


def note(line: str) -> None:
    """One line beside the results: on standard error, of the first process alone."""
    if not console.quiet:
        sys.stderr.write(f"{line}\n")


def print_rows(table: RenderableType, rows: Sequence[Mapping[str, object]], as_json: bool) -> None:
    """Print the table (or several), or its rows as JSON for a program."""
    if as_json:
        sys.stdout.write(visible_json(json.dumps(rows, indent=2, ensure_ascii=not has_all_letters())) + "\n")
    else:
        console.print(table)


def print_listing(table: RenderableType, rows: Sequence[Mapping[str, object]], as_json: bool) -> None:
    """The table in a terminal; in a pipe its rows, tab-separated below a header; JSON if asked for."""
    if as_json:
        print_rows(table, rows, as_json)
        return
    if console.is_terminal:
        console.print(table, crop=False)  # a name that is wider than the terminal is whole, too
        return
    lines = [list(rows[0]), *(map(_cell, row.values()) for row in rows)] if rows else []
    sys.stdout.writelines("\t".join(line) + "\n" for line in lines)


def _cell(value: object) -> str:
    """A value in one cell: lists with commas, mappings as key=value, nothing where it is absent."""
    if isinstance(value, Mapping):
        return ",".join(f"{_cell(key)}={_cell(element)}" for key, element in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(_cell, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else " ".join(str(value).split())
