"""The same seed gives the same bytes: again, after a kill, beside another process, and with which switches."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.findings import FAMILY, Finding, Scope, all_of, is_true, text
from benchmarks.gpu.short_run import CUBLAS, ShortRun, answer_of
from tests.support.families import FAMILIES

STEPS, KILLED_RUN = 6, 40
"""Steps of a run; of one that is killed on its way."""


def checkpoint(scope: Scope, family: str = FAMILY) -> str:
    """The folder of a tiny model, made when it is first asked for."""
    folder = scope.scratch / "models" / family
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        FAMILIES[family](folder)
    return str(folder)


def resume(scope: Scope) -> Iterator[Finding]:
    """A run that is killed and taken up again ends as one that was not."""
    model = checkpoint(scope)
    straight = ShortRun(model, str(scope.scratch / "straight"), KILLED_RUN).run()
    killed = ShortRun(model, str(scope.scratch / "killed"), KILLED_RUN)
    process = killed.start()
    log = Path(killed.folder) / "train.csv"
    while process.poll() is None and not (log.is_file() and log.read_text().count("\n") > KILLED_RUN // 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    yield is_true("killed before its end", process.returncode == -signal.SIGKILL)
    yield is_true("killed and resumed: the same bytes as straight through", killed.run() == straight)


def same_bytes(scope: Scope) -> Iterator[Finding]:
    """Two runs of one seed, as found and with PyTorch's deterministic kernels."""
    model = checkpoint(scope)
    for precision in ("fp32", "bf16"):
        run = ShortRun(model, str(scope.scratch / precision), STEPS, precision)
        first, second = (replace(run, folder=f"{run.folder}_{number}").run() for number in (1, 2))
        yield is_true(f"same seed, same bytes, {precision}, no switch set", first == second)
        switched = [replace(run, folder=f"{run.folder}_switched_{number}", deterministic=True) for number in (1, 2)]
        if scope.device == "cuda":  # cuBLAS reads its variable when it starts
            first_switched, second_switched = (
                answer_of(process)["digest"] for process in [each.start(CUBLAS) for each in switched]
            )
        else:
            first_switched, second_switched = (each.run() for each in switched)
        yield is_true(f"same seed, same bytes, {precision}, deterministic kernels", first_switched == second_switched)
        yield text(
            f"deterministic kernels give the same bytes as no switch, {precision}",
            "yes" if first_switched == first else "no",
        )


def together(scope: Scope) -> Iterator[Finding]:
    """Two processes on one GPU at once, as the points of a sweep, each with the bytes that it has alone."""
    run = ShortRun(checkpoint(scope), str(scope.scratch / "alone"), STEPS)
    reference_digest = run.run()
    other = replace(run, folder=str(scope.scratch / "other"), steps=STEPS).start()
    beside = [replace(run, folder=str(scope.scratch / "beside_0")).run()]
    while other.poll() is None:
        beside.append(replace(run, folder=str(scope.scratch / f"beside_{len(beside)}")).run())
    digests = [*beside, answer_of(other)["digest"]]
    right = sum(digest == reference_digest for digest in digests)
    yield all_of("runs of two processes on one device with the bytes of one alone", right, len(digests))
