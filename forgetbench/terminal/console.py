"""The console that commands write to: as wide as the terminal, or wide enough for the tables in a file or a pipe."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from forgetbench.core.streams import accept_all_letters, has_all_letters, shown, visible_json

PLAIN_WIDTH = 120


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
    return _SafeConsole(highlight=False, emoji=False, markup=False, quiet=quiet, width=width)


console = make_console()


def say(line: str) -> None:
    """One line, unwrapped: paths in it can be copied."""
    console.print(line, soft_wrap=True)


def print_rows(table: RenderableType, rows: Sequence[Mapping[str, object]], as_json: bool) -> None:
    """The table (or several), or its rows for a program."""
    if as_json:
        sys.stdout.write(visible_json(json.dumps(rows, indent=2, ensure_ascii=not has_all_letters())) + "\n")
    else:
        console.print(table)
