"""`forgetbench doctor`: what works on this machine, what does not, and how to mend it. Leaves no file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from forgetbench.commands.doctor.finding import Finding, State
from forgetbench.commands.doctor.machine import attention, devices, disk, encoding, extras, hub, versions
from forgetbench.commands.doctor.self_test import run_self_test, self_test_overrides
from forgetbench.config import SweepConfig
from forgetbench.terminal.console import console, print_rows

__all__ = ["doctor", "self_test_overrides"]

_STYLES = {State.ok: "green", State.warning: "yellow", State.fails: "red"}
_RESULT = {
    State.ok: "All of it works.",
    State.warning: "What is needed works; see the warnings.",
    State.fails: "Something that is needed does not work.",
}


def doctor(settings: SweepConfig, as_json: bool) -> bool:
    """Look at this machine and train and score the embedded model; True if all that is needed works.

    Args:
        settings: of the self-test, whose `outputs` is a folder to throw away.
        as_json: whether the findings are for a program.
    """
    checks: list[Callable[[], Iterable[Finding]]] = [
        versions,
        extras,
        devices,
        attention,
        lambda: disk(_output_folders()),
        hub,
        encoding,
        lambda: run_self_test(settings),
    ]
    findings = list(_run_checks(checks))
    worst = max((finding.state for finding in findings), key=list(State).index)
    print_rows(_table(findings), [asdict(finding) for finding in findings], as_json)
    if not as_json:
        console.print(_RESULT[worst])
    return worst is not State.fails


def _run_checks(checks: Iterable[Callable[[], Iterable[Finding]]]) -> Iterator[Finding]:
    """All findings; a check that raises yields a failure and does not stop the others."""
    for check in checks:
        try:
            yield from check()
        except Exception as error:
            cause = (str(error).splitlines() or [""])[0]
            yield Finding(getattr(check, "__name__", "check"), State.fails, f"{type(error).__name__}: {cause}")


def _output_folders() -> dict[str, Path]:
    """Folders that runs, downloads and pictures go to."""
    from huggingface_hub import constants

    places = {"outputs": Path("outputs"), "Hub cache": Path(constants.HF_HUB_CACHE)}
    if downloads := os.environ.get("FORGETBENCH_DOWNLOADS"):
        places["downloads"] = Path(downloads)
    return places


def _table(findings: Iterable[Finding]) -> Table:
    table = Table.grid(padding=(0, 2))
    for is_wide in (False, False, True):
        table.add_column(no_wrap=not is_wide, overflow="fold")
    for finding in findings:
        fix = f"\n-> {finding.fix}" if finding.fix else ""
        state = Text(finding.state.value, style=_STYLES[finding.state])
        table.add_row(state, Text(finding.check), Text(finding.message + fix))
    return table
