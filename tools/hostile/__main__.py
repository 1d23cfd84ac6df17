"""Run the cases, show those that end wrongly, and count."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from rich.progress import track

from tools.hostile import groups
from tools.hostile.case import Case
from tools.hostile.prepare import prepare
from tools.hostile.runner import Outcome, run

RESULT = Path(__file__).resolve().parents[2] / "docs/results/hostile.md"
_IMPORTED = (
    *(
        "torch",
        "transformers",
        "peft",
        "pandas",
        "pyarrow.parquet",
        "datasets",
        "forgetbench.cli",
        "forgetbench.compose",
    ),
    *(f"forgetbench.commands.{name}" for name in ("finetune", "eval_matrix", "score", "report", "compare", "power")),
    *(f"forgetbench.commands.{name}" for name in ("data_check", "data_list", "data_show", "models_show", "import_")),
)
_NO_CASE = Case("", (), print)
_RUN: list[Callable[[int], Outcome]] = []
"""The worker's function of a case's number; set before the fork."""


def main() -> None:
    """Entry point; ends with 1 if a case ended wrongly."""
    arguments = _arguments()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    chosen = select_cases(arguments.names, arguments.every)
    if arguments.list:
        print(*(f"{group}/{case.name}" for group, case in chosen), sep="\n")
        return
    for module in _IMPORTED:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix="hostile-") as temporary:
        prepared = arguments.prepared or Path(temporary) / "prepared"
        if not prepared.is_dir():
            prepare(prepared)
        outcomes: list[tuple[str, Outcome]] = []
        ended = _outcomes([case for _, case in chosen], Path(temporary), prepared, arguments.jobs)
        hidden = not sys.stdout.isatty()
        for (group, case), outcome in zip(track(chosen, "cases", disable=hidden, transient=True), ended, strict=True):
            outcomes.append((group, outcome))
            if arguments.verbose or not outcome.is_right:
                shown = "" if outcome.verdict in ("refused", "works") and not arguments.verbose else outcome.output
                print(f"{group}/{case.name}: {outcome.verdict} ({outcome.seconds:.1f} s)\n{shown[-800:]}", flush=True)
    print(counted(outcomes))
    if arguments.write:
        RESULT.write_text(page(outcomes), "utf-8")
    sys.exit(not all(outcome.is_right for _, outcome in outcomes))


def _outcomes(cases: Sequence[Case], scratch: Path, prepared: Path, jobs: int) -> Iterator[Outcome]:
    """How each case ended, in order; workers are forks, which know the cases already."""
    _RUN[:] = [partial(_ended, cases, scratch, prepared)]
    with ProcessPoolExecutor(jobs, get_context("fork")) as workers:
        for case, outcome in zip(cases, workers.map(_run_one, range(len(cases))), strict=True):
            yield replace(outcome, case=case)


def _run_one(place: int) -> Outcome:
    return _RUN[0](place)


def _ended(cases: Sequence[Case], scratch: Path, prepared: Path, place: int) -> Outcome:
    outcome = run(cases[place], scratch / f"case-{os.getpid()}", prepared)
    return replace(outcome, case=_NO_CASE)  # functions of cases cannot travel between processes


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.hostile", description=__doc__)
    parser.add_argument("names", nargs="*", help="groups, or cases as group/name; * matches any text")
    parser.add_argument("--every", type=int, default=1, help="only each N-th case of a group")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--prepared", type=Path, help="folder to keep the prepared runs in, for the next time")
    parser.add_argument("--verbose", action="store_true", help="show the output of every case")
    parser.add_argument("--list", action="store_true", help="only name the cases")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    return parser.parse_args()


def select_cases(names: Sequence[str], every: int = 1) -> list[tuple[str, Case]]:
    """Cases with their group, in order; all of them where no name is given."""
    chosen: list[tuple[str, Case]] = []
    for module in sorted(module_info.name for module_info in pkgutil.iter_modules(groups.__path__)):
        cases = list(importlib.import_module(f"{groups.__name__}.{module}").cases())
        if repeated := [name for name, count in Counter(case.name for case in cases).items() if count > 1]:
            raise ValueError(f"{module}: two cases are called {repeated[0]}")
        chosen += [(module, case) for case in cases[::every] if _is_meant(module, case, names)]
    return chosen


def _is_meant(group: str, case: Case, names: Sequence[str]) -> bool:
    return not names or any(fnmatchcase(label, name) for name in names for label in (group, f"{group}/{case.name}"))


def counted(outcomes: Sequence[tuple[str, Outcome]]) -> str:
    """How many cases of each group ended how, as a Markdown table."""
    ended = [(group, outcome.verdict.split(" ")[0], outcome.is_right) for group, outcome in outcomes]
    verdicts = ["refused", "works", *sorted({verdict for _, verdict, _ in ended} - {"refused", "works"})]
    lines = [["group", "cases", *verdicts, "not as it must"], ["---", *["--:"] * (len(verdicts) + 2)]]
    for name in [*dict.fromkeys(group for group, _, _ in ended), "all"]:
        group_outcomes = [(verdict, is_right) for group, verdict, is_right in ended if name in (group, "all")]
        counts = Counter(verdict for verdict, _ in group_outcomes)
        wrong = sum(not is_right for _, is_right in group_outcomes)
        lines.append([name, *map(str, (len(group_outcomes), *(counts[verdict] for verdict in verdicts), wrong))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(outcomes: Sequence[tuple[str, Outcome]]) -> str:
    """The committed list of what is tried, with counts."""
    lines = [
        "# Damaged and hostile inputs",
        "",
        "Made by `python -m tools.hostile --write`. Each input below is written into an empty folder, and one command "
        "reads it. `refused` is exit code 2 and one message; `works` is exit code 0. Anything else is a fault: a "
        "traceback, more than 60 seconds, more than 3 GiB, a secret of the environment or of a file outside the folder "
        "in the output, a file written outside it, a control character in the output.",
        "",
        counted(outcomes),
        "",
    ]
    for name in dict.fromkeys(group for group, _ in outcomes):
        lines += [f"## {name}", ""]
        lines += [f"- {outcome.case.name}: {outcome.verdict}" for group, outcome in outcomes if group == name]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
