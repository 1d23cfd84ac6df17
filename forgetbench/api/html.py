"""Results as HTML for a notebook. Names may be anyone's: every text is escaped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from forgetbench.core.records import QUADRANTS, Metric
from forgetbench.core.streams import shown
from forgetbench.runs.guard import endings
from forgetbench.terminal import sweep_lines, variant_lines
from forgetbench.terminal.cells import DASH, STAR, Change, change
from forgetbench.terminal.first_and_last import NAMES, SEEN, ChangeRow
from forgetbench.terminal.plain import PROBE
from forgetbench.terminal.wording import first_decoding

if TYPE_CHECKING:
    from forgetbench.commands.show import StoredTables

_COLOURS = {"red": "#c0392b", "green": "#1e8449"}
_IMAGES, _TEXTS = ("id_image", "ood_image"), ("id_text", "ood_text")
_LEFT = "text-align:left;vertical-align:top"


def as_text(text: str) -> str:
    """A plain text, preformatted."""
    return f"<pre>{_safe(text)}</pre>"


def link(page: Path, text: str) -> str:
    """A link to a file, relative to the working folder, where a notebook's server looks for it."""
    return f'<a href="{escape(quote(os.path.relpath(page)))}" target="_blank">{_safe(text)}</a>'


def run_html(run: StoredTables) -> str:
    """The 2x2 of one run's last checkpoint beside its base, then probes and variants."""
    rows = run.rows()
    trained = rows[rows["variant"].isna()]
    entries: dict[str, list[tuple[Change, str]]] = {}
    for row in trained.to_dict("records"):
        metric = "" if row["metric"] == Metric.accuracy else f" {row['metric']}"
        note = f"{row['decoding']}{metric}{f', {SEEN}' if row['seen_in_mix'] is True else ''}"
        entries.setdefault(str(row["quadrant"]), []).append((change(row), note))
    body = [
        _row([_safe(NAMES[text]), *(_cell(entries.get(f"{text}-{image}", ())) for image in _IMAGES)]) for text in _TEXTS
    ]
    probes = [_row([_safe(name), _cell(cell)]) for name, cell in entries.items() if name.startswith(PROBE)]
    variants = variant_lines(rows)
    shown_changes = [score_change for cell in entries.values() for score_change, _ in cell]
    shown_changes += [score_change for line in variants for score_change in line.changes()]
    checkpoint = ", ".join(dict.fromkeys(str(name) for name in trained["checkpoint"]))
    return "".join(
        [
            f"<p>{_safe(run.runs[0].name)}: base &rarr; {_safe(checkpoint)}, %</p>",
            _table(["", *(NAMES[image] for image in _IMAGES)], body),
            _table(["probe", ""], probes) if probes else "",
            _lines("variant", variants) if variants else "",
            _star(shown_changes),
        ]
    )


def sweep_html(sweep: StoredTables) -> str:
    """A row per run and variant: base, last and change of each quadrant, and the probe's mischoice."""
    decoding = first_decoding(sweep.matrix["decoding"]) or "choice"
    lines = sweep_lines(sweep.matrix, sweep.scores, decoding, endings(run.folder for run in sweep.runs))
    head = f"<p>base &rarr; last, % ({_safe(decoding)})</p>"
    return head + _lines("run", lines) + _star(score_change for line in lines for score_change in line.changes())


def _lines(first: str, lines: Sequence[ChangeRow]) -> str:
    headings = [", ".join(NAMES[axis] for axis in quadrant.split("-")) for quadrant in QUADRANTS]
    body = [_row([_safe(line.name), *map(_cell, line.cells)]) for line in lines]
    return _table([first, *headings, "mischoice"], body)


def _cell(entries: Iterable[tuple[Change, str]]) -> str:
    texts = [_entry(score_change, note) for score_change, note in entries]
    return "<br>".join(texts) or DASH


def _entry(score_change: Change, note: str) -> str:
    words = score_change.words(half_width=True)
    colour = _COLOURS.get(str(words.style), "inherit")
    coloured = f'<span style="color:{colour}">{_safe(words.plain)}</span>'
    noted = f"<br><small>{_safe(note)}</small>" if note else ""
    return f"{_safe(score_change.path())} {coloured}{noted}"


def _table(headings: Sequence[str], body: Sequence[str]) -> str:
    head = "".join(f'<th style="{_LEFT}">{_safe(heading)}</th>' for heading in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _row(cells: Sequence[str]) -> str:
    first, *others = cells
    rest = "".join(f'<td style="{_LEFT}">{cell}</td>' for cell in others)
    return f'<tr><th style="{_LEFT}">{first}</th>{rest}</tr>'


def _star(changes: Iterable[Change]) -> str:
    return f"<p><small>{_safe(STAR)}</small></p>" if any(score_change.is_starred for score_change in changes) else ""


def _safe(text: str) -> str:
    return escape(shown(text))
