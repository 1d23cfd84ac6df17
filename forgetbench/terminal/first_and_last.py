"""The table of last checkpoints: a row per run or variant, a column per quadrant, base -> last with the change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from forgetbench.core.records import QUADRANTS
from forgetbench.terminal.cells import DASH, Change, change, fold
from forgetbench.terminal.plain import PROBE

NAMES = {
    "id_text": "ID text",
    "ood_text": "OOD text",
    "id_image": "ID image",
    "ood_image": "OOD image",
}
SEEN = "seen in mix"
_HEADINGS = (*("\n".join(NAMES[axis] for axis in quadrant.split("-")) for quadrant in QUADRANTS), "mischoice")
_VALUES = 12
"""Characters of "41.7 -> 60.0", the least that a column has."""
_NAME = 24
"""A name may be folded to this for the sake of more detail."""
_SHORTEST_NAME = 8


@dataclass(frozen=True)
class ChangeRow:
    """One checkpoint's row: for each column its changes from the base, with a note on each."""

    name: str
    cells: Sequence[Sequence[tuple[Change, str]]]

    def changes(self) -> Iterator[Change]:
        """Every change that the row shows."""
        return (score_change for cell in self.cells for score_change, _ in cell)


def change_row(name: str, rows: pd.DataFrame) -> ChangeRow:
    """The row for the plain rows of one checkpoint in one decoding."""
    cells = []
    for quadrant in QUADRANTS:
        part = rows[(rows["quadrant"] == quadrant) & (rows["metric"] == "accuracy")]
        cells.append([(change(row), SEEN * bool(row["seen_in_mix"])) for row in part.to_dict("records")])
    probes = rows[rows["quadrant"].str.startswith(PROBE) & (rows["metric"] == "mischoice")]
    several = len(probes) > 1
    cells.append([(change(row), row["quadrant"].removeprefix(PROBE) * several) for row in probes.to_dict("records")])
    return ChangeRow(name, cells)


def first_and_last_table(first: str, rows: Sequence[ChangeRow], width: int) -> Table:
    """As much as fits: intervals in a wide terminal, folded names in a narrow one.

    Below about 75 columns cells are folded too; nothing is cut off.
    """
    longest = max(len(line) for line in (first, *(row.name for row in rows)))
    for half_width, gap in ((True, 2), (False, 2), (False, 1)):
        texts = [[_text(cell, half_width) for cell in row.cells] for row in rows]
        widths = [
            max(_VALUES, *(len(line) for text in column for line in text.plain.split("\n")))
            for column in zip(*texts, strict=True)
        ]
        name_width = width - sum(widths) - gap * len(widths)
        if name_width >= min(longest, _NAME):
            break
    fits = name_width >= min(longest, _SHORTEST_NAME)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0), show_lines=True)
    table.add_column(first, overflow="fold", width=min(longest, name_width) if fits else None)
    for heading, column in zip(_HEADINGS, widths, strict=True):
        table.add_column(heading, overflow="fold", width=column if fits else None)
    for row, cells in zip(rows, texts, strict=True):
        table.add_row(Text("\n".join(fold(row.name, name_width)) if fits else row.name), *cells)
    return table


def _text(cell: Sequence[tuple[Change, str]], half_width: bool) -> Text:
    lines = []
    for score_change, note in cell:
        lines += [
            Text(score_change.path()),
            score_change.words(half_width),
            *(Text(line, "dim") for line in fold(note, _VALUES) if line),
        ]
    return Text("\n").join(lines) if lines else Text(DASH, "dim")
