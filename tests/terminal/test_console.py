"""Names in tables and lines: shown as they are, whatever signs they hold."""

from __future__ import annotations

import io

from rich.table import Table
from rich.text import Text

from forgetbench.terminal import console as module


def test_escape_sequences_and_markup_of_names_are_shown() -> None:
    console = module.make_console()
    console.file = written = io.StringIO()
    table = Table("name", title="\x1b]0;title\x07")
    table.add_row("[red]a[/red]\x1b[31m")
    table.add_row(Text("\x9b2J\u202e", style="bold"))
    console.print(table)
    shown = written.getvalue()
    assert all(text in shown for text in ("\\x1b]0;title", "[red]a[/red]\\x1b[31m", "\\x9b2J\\u202e"))
    assert not any(sign in shown for sign in ("\x1b", "\x9b", "\u202e"))
