"""Run the commands with a fault at every operation, show those that end wrongly, and count."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetbench.core.errors import BAD_INPUT
from tools.faults.cases import CASES, WARM_UP
from tools.faults.compare import contents, difference
from tools.faults.injector import TAKES_SPACE, Fault
from tools.faults.trial import Ended, run, warm_up

RESULT = Path(__file__).resolve().parents[2] / "docs/results/faults.md"
_IMPORTED = (
    "torch",
    "transformers",
    "peft",
    "pandas",
    "pyarrow.parquet",
    "forgetbench.cli",
    "forgetbench.compose",
    "accelerate",
    "transformers.models.llava.modeling_llava",
    "transformers.models.llava.processing_llava",
    "transformers.models.clip.modeling_clip",
    "forgetbench.commands.finetune",
    "forgetbench.commands.sweep",
    "forgetbench.commands.score",
    "forgetbench.commands.export",
    "forgetbench.commands.import_",
)
_CODES = {
    Fault.kill: (-signal.SIGKILL,),
    Fault.interrupt: (130,),
    Fault.full: (0, 1, 2),  # 0: what was refused is not needed
    Fault.read_only: (0, 1, 2),
}
_CAUSES = {Fault.full: os.strerror(errno.ENOSPC), Fault.read_only: os.strerror(errno.EROFS)}


@dataclass(frozen=True)
class Outcome:
    """Outcome of a fault."""

    case: str
    fault: Fault
    at: int
    """Number of the operation."""
    operation: str
    """Kind and path."""
    wrong: str
    """What went wrong; empty if nothing did."""
    output: str


def main() -> None:
    """Entry point; ends with 1 if a fault ended wrongly."""
    arguments = _arguments()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for module in _IMPORTED:
        importlib.import_module(module)
    names = arguments.names or [name for name, case in CASES.items() if case.is_listed]
    outcomes: list[Outcome] = []
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        runner = FaultRunner(Path(temporary).resolve())
        (Path(temporary) / "warm").mkdir()
        warm_up(WARM_UP, Path(temporary) / "warm")
        for name in names:
            operations = runner.prepared(name).operations
            counts[name] = len(operations)
            for fault in arguments.fault:
                for at in _places(operations, fault)[arguments.first :: arguments.every]:
                    outcome = runner.disturb(name, fault, at)
                    outcomes.append(outcome)
                    if arguments.verbose or outcome.wrong:
                        place = f"{name}: {fault} at {at}/{counts[name]} ({outcome.operation})"
                        print(f"{place}: {outcome.wrong or 'as it must'}", flush=True)
                    if outcome.wrong:
                        print(outcome.output[-arguments.shown :], flush=True)
    print(counted(outcomes, counts))
    if arguments.write:
        RESULT.write_text(page(outcomes, counts, " ".join(sys.argv[1:])), "utf-8")
    sys.exit(any(outcome.wrong for outcome in outcomes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.faults", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"commands: {', '.join(CASES)}")
    parser.add_argument("--fault", nargs="+", type=Fault, default=list(Fault), help=", ".join(Fault))
    parser.add_argument("--every", type=int, default=1, help="only at each N-th operation")
    parser.add_argument("--first", type=int, default=0, help="leave out so many operations")
    parser.add_argument("--verbose", action="store_true", help="name what ends as it must, too")
    parser.add_argument("--shown", type=int, default=1000, help="characters of the output of what ends wrongly")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    return parser.parse_args()


def _places(operations: Sequence[str], fault: Fault) -> list[int]:
    """Numbers of the operations that a fault can meet."""
    kinds = [line.partition(" ")[0] for line in operations]
    return [n for n, kind in enumerate(kinds, start=1) if fault is not Fault.full or kind in TAKES_SPACE]


class FaultRunner:
    """Folders to start in, made once, and disturbed copies of them."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which must be empty."""
        self._folder = folder
        self._ended: dict[str, Ended] = {}
        self._expected: dict[str, dict[str, str]] = {}

    def prepared(self, name: str) -> Ended:
        """Run a command undisturbed, once.

        Raises:
            RuntimeError: it failed.
        """
        if name not in self._ended:
            folder = self._start(name)
            self._ended[name] = run(CASES[name].command, folder)
            if self._ended[name].code:
                raise RuntimeError(f"{name}: exit code {self._ended[name].code}\n{self._ended[name].output}")
            self._expected[name] = contents(folder)
            folder.rename(self._folder / name)
        return self._ended[name]

    def disturb(self, name: str, fault: Fault, at: int) -> Outcome:
        """Run a command with a fault at an operation, then again without, and compare."""
        operation = self.prepared(name).operations[at - 1]
        folder = self._start(name)
        hit = run(CASES[name].command, folder, fault, at)
        wrong, output = _wrong(hit, fault, at), hit.output
        again = run(CASES[name].command, folder)
        done = CASES[name].is_done
        if again.code and not (done and again.code == BAD_INPUT and done in again.output):
            wrong, output = f"{wrong}; then exit code {again.code}", output + again.output
        if differing := difference(self._expected[name], contents(folder)):
            wrong, output = f"{wrong}; {differing}", output + again.output
        return Outcome(name, fault, at, operation, wrong.removeprefix("; "), output)

    def _start(self, name: str) -> Path:
        case = CASES[name]
        if case.after:
            self.prepared(case.after)
        folder = self._folder / "work"  # the same for all, for some files hold its path
        shutil.rmtree(folder, ignore_errors=True)
        if case.after:
            shutil.copytree(self._folder / case.after, folder, symlinks=True)
        else:
            folder.mkdir()
            case.make(folder)
        return folder


def _wrong(hit: Ended, fault: Fault, at: int) -> str:
    """What went wrong in a disturbed command; empty if nothing did."""
    if len(hit.operations) < at:
        return "the operation was not reached"
    if "Traceback (most recent call last)" in hit.output:
        return f"traceback, exit code {hit.code}"
    if hit.code not in _CODES[fault]:
        return f"exit code {hit.code}"
    output = hit.output.replace("\n", " ")
    lacking = [text for text in (_CAUSES[fault], "again") if text not in output] if hit.code in (1, 2) else []
    return f"does not say {lacking[0]!r}" if lacking else ""


def counted(outcomes: Iterable[Outcome], operations: dict[str, int]) -> str:
    """How many faults each command met, and how many ended wrongly, as a Markdown table."""
    outcomes = list(outcomes)
    tried = Counter((outcome.case, outcome.fault) for outcome in outcomes)
    wrong = Counter(outcome.case for outcome in outcomes if outcome.wrong)
    lines = [["command", "operations", *(f"{fault}".replace("_", "-") for fault in Fault), "not as it must"]]
    lines.append(["---", *["--:"] * (len(lines[0]) - 1)])
    for name, count in operations.items():
        lines.append([name, str(count), *(str(tried[name, fault]) for fault in Fault), str(wrong[name])])
    total = [sum(int(line[place]) for line in lines[2:]) for place in range(1, len(lines[0]))]
    lines.append(["all", *map(str, total)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(outcomes: Sequence[Outcome], operations: dict[str, int], arguments: str) -> str:
    """The committed result, with the arguments that made it."""
    wrong = [
        f"- {outcome.case}, {outcome.fault} at {outcome.operation}: {outcome.wrong}"
        for outcome in outcomes
        if outcome.wrong
    ]
    commands = [f"| {name} | `forgetbench {' '.join(CASES[name].command)}` |" for name in operations]
    lines = [
        "# Interrupted at every file operation",
        "",
        f"Made by `python -m tools.faults {arguments}`. Each command below is disturbed at one operation that changes "
        "a file: one is created, opened for writing, written, renamed or removed, or a folder is made or removed. Then "
        "the same command runs again, and the folder must hold the bytes of an undisturbed run, measured times and "
        "memory aside, and nothing else. (`multirun.yaml`, Hydra's, holds the time of the start and is not compared.)",
        "",
        "| fault | what happens | how the command must end |",
        "|---|---|---|",
        "| kill | SIGKILL; half of a write was done | |",
        "| interrupt | Ctrl-C | exit code 130, a message |",
        "| full | no space left, from that operation to the end | exit code 1, or 2, with a message that says so |",
        "| read-only | the file system refuses all changes, from that operation to the end | the same |",
        "",
        "The columns of faults say at how many operations each was tried; without `--every` it is all of them (a full "
        "disk refuses only what takes space).",
        "",
        counted(outcomes, operations),
        "",
        *wrong,
        *([""] if wrong else []),
        "| name | command |",
        "|---|---|",
        *commands,
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
