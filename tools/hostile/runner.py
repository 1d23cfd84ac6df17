"""Run one case in a process of its own, and tell how it ended.

Each case is a fork of this process, which has imported forgetbench's libraries already: a fork costs milliseconds,
and what hangs, crashes or takes memory takes nothing with it.
"""

from __future__ import annotations

import os
import re
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tools.hostile.case import Case, Ends, Place

SECRET_VARIABLE, SECRET_FILE = "canary-of-the-environment-4711", "canary-of-a-file-0815"
_MOST_DATA = 12 * 2**30
"""Bytes of memory that a command may write to, so that a case cannot take the machine's."""
_SECRETS = (SECRET_VARIABLE.encode(), SECRET_FILE.encode())
_CHECK = ("data", "check")
"""Ends with 1 where it found something to tell."""
TIMEOUT_S = 60.0
MEMORY_BYTES = 3 * 2**30
"""Most resident memory that a case may take, that of the imported libraries included."""
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]")
"""Control characters, C0 and C1, but for tab, line feed and carriage return."""


@dataclass(frozen=True)
class Outcome:
    """How one case ended."""

    case: Case
    verdict: str
    """`refused` or `works` if correct; else the fault: traceback, hang, leak, memory, ..."""
    is_right: bool
    output: str
    """Text that the command wrote to stdout and stderr."""
    seconds: float


def run(case: Case, scratch: Path, prepared: Path) -> Outcome:
    """Run one case in a new folder below `scratch`, which is removed afterwards."""
    shutil.rmtree(scratch, ignore_errors=True)
    place = Place(scratch / "work", scratch / "outside", prepared)
    for folder in (place.folder, place.outside):
        folder.mkdir(parents=True)
    (place.outside / "secret.txt").write_text(SECRET_FILE)
    case.make(place)
    before = _everything(scratch, place.folder)
    started = time.monotonic()
    words = [word.replace("{outside}", str(place.outside)) for word in case.command]
    environment = {"HF_TOKEN": SECRET_VARIABLE, "CANARY": SECRET_VARIABLE, "COLUMNS": "140", **case.environment}
    code, peak_bytes = forked(words, place.folder, scratch / "output", environment)
    seconds = time.monotonic() - started
    output = (scratch / "output").read_bytes()
    verdict = _verdict(case, place, code, peak_bytes, output)
    if _everything(scratch, place.folder) - before - {"output"}:
        verdict = "wrote outside"
    wanted = {verdict} & {"refused", "works"} if case.ends is Ends.either else {str(case.ends)}
    shutil.rmtree(scratch, ignore_errors=True)
    return Outcome(case, verdict, verdict in wanted, output.decode(errors="replace"), seconds)


def _verdict(case: Case, place: Place, code: int | None, peak_bytes: int, output: bytes) -> str:
    """Verdict of a case; of several faults the worst, which comes first."""
    leaked = next(_leaks(place), None)
    unsaid = [text for text in case.says if text.encode() not in output]
    faults = {
        "hang": code is None,
        f"killed by signal {-(code or 0)}": (code or 0) < 0,
        "leak": any(secret in output for secret in _SECRETS),
        f"leak into {leaked}": leaked is not None,
        "traceback": b"Traceback (most recent call last)" in output,
        "memory": peak_bytes > MEMORY_BYTES,
        "control characters": _CONTROL.search(output) is not None,
        "unexpected error": code == 1 and b"Unexpected " in output,
        f"exit code {code}": code not in (0, 1 if case.command[:2] == _CHECK else 2, 2),
        "no message": bool(code) and not output.strip(),
        f"does not say {', '.join(unsaid)!r}": bool(unsaid),
    }
    return next((fault for fault, is_there in faults.items() if is_there), "refused" if code else "works")


def _leaks(place: Place) -> Iterator[Path]:
    """Files that a command wrote a secret into."""
    for path in sorted(place.folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**24:
            content = path.read_bytes()
            if any(secret in content for secret in _SECRETS):
                yield path.relative_to(place.folder)


def _everything(scratch: Path, besides: Path) -> set[str]:
    """Names of all that is beside a case's working directory."""
    return {str(path.relative_to(scratch)) for path in scratch.rglob("*") if besides not in (path, *path.parents)}


def forked(
    words: Sequence[str], folder: Path, output: Path, environment: Mapping[str, str] = MappingProxyType({})
) -> tuple[int | None, int]:
    """Run one command in a fork of this process.

    Args:
        words: arguments of `forgetbench`.
        folder: its working directory.
        output: where what it writes to stdout and stderr goes.
        environment: variables that are added.

    Returns:
        Its exit code (None: out of time; negative: a signal) and its peak resident bytes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(words, folder, output, environment)
    with _watching(child) as ended:
        in_time = bool(select.select([ended], [], [], TIMEOUT_S)[0])
    if not in_time:
        os.killpg(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    return (os.waitstatus_to_exitcode(status) if in_time else None), used.ru_maxrss * 1024


@contextmanager
def _watching(child: int) -> Iterator[int]:
    descriptor = os.pidfd_open(child)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _become(words: Sequence[str], folder: Path, output: Path, environment: Mapping[str, str]) -> None:
    """Be the command; never returns."""
    code = 1
    try:
        os.setsid()
        written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(written, 1)
        os.dup2(written, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_DATA, (_MOST_DATA, _MOST_DATA))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ |= environment
        sys.argv = ["forgetbench", *words]
        from forgetbench.cli import main

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
