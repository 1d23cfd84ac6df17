"""Whether everything holds on this machine's GPU, how fast it is, and whether memory is as planned: eight minutes.

    python -m benchmarks.gpu [--minutes 8] [--only PART] [--list]
    python -m benchmarks.gpu --tiny          every part on tiny shapes, on CPUs too: it runs, speeds mean nothing

Each part is a process of its own; one that fails, or takes more than its share of the time, is named, and the others go
on. Results are printed as they come and written after every part, to docs/results/gpu.md and gpu.json; those of
`--tiny` and `--only` to outputs/. The ratios, named, are the last line. Exit codes: 0 all holds, 1 something does not,
2 no GPU or a wrong option.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from benchmarks.gpu.parts import BY_NAME, PARTS, Planned
from benchmarks.gpu.report import MARKS, Outcome, last_line, listed, problems, succeeded, write

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "gpu.md"
STRETCH = 2
"""A part may take so many times its share of what is left: those that end early leave some."""
LEAST_S, WAIT_S, RESERVE_S = 5.0, 10.0, 5.0
"""With less time than that, a part is not begun; to leave the GPU, after the last finding; to end the check."""
NO_GPU = (
    "python -m benchmarks.gpu: torch finds no CUDA GPU here, and the check needs one. Run it on a machine with a GPU "
    "and a torch built for CUDA, or see that every part runs with --tiny."
)


def main() -> int:
    """Run the parts in their order; the exit code."""
    given = parsed()
    if given.list:
        print(listed())
        return 0
    if not given.tiny and not has_gpu():
        print(NO_GPU, file=sys.stderr)
        return 2
    chosen = [part for part in PARTS if not given.only or part.name in given.only]
    options = [*(["--tiny"] * given.tiny), *flags("--family", given.family), *flags("--method", given.method)]
    path = given.write or (PAGE if not (given.tiny or given.only) else ROOT / "outputs" / "gpu_check" / "gpu.md")
    command, deadline = (
        f"python -m benchmarks.gpu {shlex.join(sys.argv[1:])}".strip(),
        time.monotonic() + 60 * given.minutes - RESERVE_S,
    )
    outcomes: list[Outcome] = []
    for number, part in enumerate(chosen):
        left, shares = deadline - time.monotonic(), sum(later.share for later in chosen[number:])
        outcomes.append(run(part, options, min(left, STRETCH * left * part.share / shares)))
        write(path, outcomes, command, given.tiny)
    print("\n".join(problems(outcomes)))
    print(f"Written: {path} and {path.with_suffix('.json').name}")
    print(last_line(outcomes))
    return 0 if succeeded(outcomes) else 1


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=minutes, default=8.0, help="stop before so many have passed (8)")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on CPUs too")
    parser.add_argument("--only", action="append", choices=BY_NAME, default=[], help="run this part; may be repeated")
    parser.add_argument("--list", action="store_true", help="show the parts and end")
    parser.add_argument("--family", action="append", default=[], help="of the tiny models; by default all")
    parser.add_argument("--method", action="append", default=[], help="by default all")
    parser.add_argument("--write", type=Path, help="the page; a JSON file of the same name is written beside it")
    return parser.parse_args()


def minutes(written: str) -> float:
    """A time that is some."""
    number = float(written)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{written} is no number of minutes above 0")
    return number


def has_gpu() -> bool:
    """Whether torch finds one."""
    import torch

    return bool(torch.cuda.is_available())


def flags(name: str, values: Sequence[str]) -> list[str]:
    """An option, repeated for every value."""
    return [word for value in values for word in (name, value)]


def run(part: Planned, options: Sequence[str], limit_s: float) -> Outcome:
    """One part, in a process of its own, until it ends or its time is over."""
    outcome, started = Outcome(part.name, part.group), time.monotonic()
    print(f"\n{part.group}: {part.name}, at most {max(limit_s, 0):.0f} s", flush=True)
    if limit_s < LEAST_S:
        outcome.state, outcome.error = "not started", "no time is left"
        return outcome
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.parts", part.name, *options],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            for line in lines_until(process, started + limit_s):
                outcome.findings.append(json.loads(line))
                print(shown(outcome), flush=True)
            outcome.state = "done" if process.wait(WAIT_S) == 0 else "failed"
        except (TimeoutError, subprocess.TimeoutExpired):
            outcome.state, outcome.error = "cut off", f"it took more than its {limit_s:.0f} s"
        finally:
            end(process)
        if outcome.state == "failed":
            outcome.error = reason(errors, process.returncode)
    outcome.seconds = time.monotonic() - started
    if outcome.state != "done":
        print(f"  {outcome.state}: {outcome.error}", flush=True)
    return outcome


def lines_until(process: subprocess.Popen[str], deadline: float) -> Iterator[str]:
    """What a process writes, line by line.

    Raises:
        TimeoutError: it had not ended at the deadline, on the clock that is `time.monotonic`.
    """
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            return
        yield line


def end(process: subprocess.Popen[str]) -> None:
    """The process and those that it started, if they are still there."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def reason(errors: IO[str], code: int) -> str:
    """Why a process failed: the last line that names an error, else the last line."""
    errors.seek(0)
    lines = [line.strip() for line in errors if line.strip()]
    message = ([line for line in lines if "Error" in line] or lines or ["it said nothing"])[-1]
    return f"{message} (exit code {code})"


def shown(outcome: Outcome) -> str:
    """The newest finding as one line."""
    finding = outcome.findings[-1]
    expected = f" ({finding['expected']}: {MARKS[finding['holds']].strip('*')})" if finding["expected"] else ""
    return f"  {finding['name']}: {finding['value']}{expected}"


if __name__ == "__main__":
    sys.exit(main())
