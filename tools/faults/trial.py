"""Run a command in a process of its own, with a fault or without, and say how it ended and what it left.

Each is a fork of this process, which has imported forgetbench's libraries already.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from tools.faults.injector import Fault, Injector

TIMEOUT_S = 300


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; negative for a signal."""
    output: str
    """What it wrote to stdout and stderr."""
    operations: Sequence[str]
    """Kind and path of every operation that it began."""


def warm_up(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Run commands in this process, so that those that follow find modules, items and pictures read.

    Args:
        commands: that train nothing: a process that has, and forks, may hang.
        folder: where, an empty one.

    Raises:
        SystemExit: one failed.
    """
    from typer.testing import CliRunner

    from forgetbench.cli import app

    with chdir(folder):
        for command in commands:
            ended = CliRunner().invoke(app, list(command), catch_exceptions=False)
            if ended.exit_code:
                raise SystemExit(ended.output)


def run(command: Sequence[str], folder: Path, fault: Fault | None = None, at: int = 0) -> Ended:
    """Run a forgetbench command in a folder; a fault meets its operation `at`, counted from 1."""
    output, record = folder.with_suffix(".output"), folder.with_suffix(".record")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(command, folder, output, Injector(folder, record, fault, at))
    _, status = os.waitpid(child, 0)
    shown = output.read_text(errors="replace")
    return Ended(os.waitstatus_to_exitcode(status), shown, record.read_text().splitlines())


def _become(command: Sequence[str], folder: Path, output: Path, injector: Injector) -> None:
    """Be the command; never returns."""
    code = 1
    try:
        signal.alarm(TIMEOUT_S)
        written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(written, 1)
        os.dup2(written, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        os.environ["COLUMNS"] = "140"
        sys.argv = ["forgetbench", *command]
        from forgetbench.cli import main

        injector.install()
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
