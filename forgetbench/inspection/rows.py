"""A table for people, or its rows for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from rich.table import Table

from forgetbench.reporting.console import console


def print_rows(table: Table, rows: Sequence[Mapping[str, object]], as_json: bool) -> None:
    """The table, or its rows for a program."""
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    else:
        console.print(table, markup=False)
