"""`forgetbench report`: one page and its figures from a run's or a sweep's tables and stored answers. No torch."""

from __future__ import annotations

import signal
import time
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.core.files import write_text
from forgetbench.reporting.contents import ReportContents
from forgetbench.reporting.gather import gather
from forgetbench.reporting.page import DrawnFigure, render
from forgetbench.terminal.console import say
from forgetbench.terminal.progress import working

PAGE = "report.html"
_POLL_S = 5.0
_REFRESH_S = 10
_MEGABYTE = 1e6


@dataclass(frozen=True)
class WrittenReport:
    """The files of a report."""

    page: Path
    figures: Sequence[Path]
    """As SVG and PNG."""


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    flips: int = 600
    """Items in the flip explorer, at most."""
    open_page: bool = False


def make_report(path: Path, options: Options) -> WrittenReport:
    """Write report.html and figures/ into the folder of a run or a sweep.

    Raises:
        UserError: there is no run, or a table is damaged.
    """
    with working(f"reading the tables and answers of {path}"):
        contents = gather(path, options.flips)
    written = _write(path, contents, with_files=True)
    _open(path, options)
    return written


def _write(path: Path, contents: ReportContents, with_files: bool) -> WrittenReport:
    from forgetbench.reporting.charts import figures, vega_spec  # Altair takes a second to load
    from forgetbench.reporting.static_figures import save_figures

    with working(f"drawing {path / PAGE}"):
        drawn = figures(contents.tables)
        files = save_figures(drawn, path / "figures") if with_files else []
    page = [
        DrawnFigure(figure.name, figure.title, figure.caption, figure.alt_text, vega_spec(figure, "page"))
        for figure in drawn
    ]
    html = render(contents, page)
    write_text(path / PAGE, html)
    size = len(html.encode()) / _MEGABYTE
    also_written = f"; {len(files)} files in {path / 'figures'}" if files else ""
    say(
        f"{path / PAGE} ({size:.1f} MB, {len(drawn)} figures, {len(contents.flips)} of {contents.n_flips or 0} flips)"
        + also_written
    )
    return WrittenReport(path / PAGE, files)


def _open(path: Path, options: Options) -> None:
    if options.open_page:
        webbrowser.open((path / PAGE).resolve().as_uri())


def watch(path: Path, options: Options) -> None:
    """Write the page whenever a table changes, until Ctrl-C; then once more, without its refreshing itself."""
    last_tables: frozenset[tuple[str, int, int]] | None = None
    last_contents: ReportContents | None = None
    last_message = ""
    say(f"Watching {path}; Ctrl-C ends it.")
    old_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's way of saying Ctrl-C
    try:
        while True:
            tables = _table_states(path)
            if tables != last_tables:
                try:
                    contents = gather(path, options.flips, refresh_s=_REFRESH_S)
                    _write(path, contents, with_files=False)
                    if last_contents is None:
                        _open(path, options)
                    last_tables, last_contents = tables, contents
                except UserError as error:  # not begun yet, or a table is damaged: the next look may find it whole
                    if last_message != (last_message := str(error)):
                        say(f"Waiting: {error}")
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        if last_contents is not None:
            _write(path, replace(last_contents, refresh_s=None), with_files=True)
    finally:
        signal.signal(signal.SIGTERM, old_handler)


def _table_states(path: Path) -> frozenset[tuple[str, int, int]]:
    """Name, time and size of every table and run.json, of the folder's run or its points."""
    states = set()
    for pattern in ("*.csv", "*/*.csv", "run.json", "*/run.json"):
        for file in path.glob(pattern):
            with suppress(FileNotFoundError):  # replaced in between
                states.add((str(file), file.stat().st_mtime_ns, file.stat().st_size))
    return frozenset(states)
