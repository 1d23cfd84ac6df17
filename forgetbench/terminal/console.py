"""The console that commands write to: as wide as the terminal, or wide enough for the tables in a file or a pipe."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console, RenderableType

PLAIN_WIDTH = 120


def make_console() -> Console:
    """A console for results on standard output; of several processes of a run, only the first one speaks."""
    quiet = os.environ.get("RANK", "0") != "0"
    return Console(highlight=False, emoji=False, quiet=quiet, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


console = make_console()


def say(line: str) -> None:
    """One line, unwrapped: paths in it can be copied."""
    console.print(line, soft_wrap=True, markup=False)


def print_rows(table: RenderableType, rows: Sequence[Mapping[str, object]], as_json: bool) -> None:
    """The table (or several), or its rows for a program."""
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    else:
        console.print(table, markup=False)
