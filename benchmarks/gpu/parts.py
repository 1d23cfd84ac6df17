"""The parts of the check in their order, and one part as a process of its own.

    python -m benchmarks.gpu.parts families [--tiny] [--family llava] [--method l2sp]

A CUDA error or a lack of memory ends its process and leaves the GPU to the others. Findings go to standard output as
lines of JSON, everything else to standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

LLAVA, QWEN = "llava_1_5_7b", "qwen2_5_vl_3b"


@dataclass(frozen=True)
class Planned:
    """A part of the check and its share of the time."""

    name: str
    group: str
    run: str
    """A function of a `Scope`, by its module in this package."""
    share: int
    """Seconds of eight minutes; what a part leaves goes to those after it."""
    given: Mapping[str, Any] = field(default_factory=dict)

    def function(self) -> Callable[..., Iterator[Any]]:
        """The function, imported."""
        module, _, name = self.run.rpartition(".")
        function: Callable[..., Iterator[Any]] = getattr(import_module(f"benchmarks.gpu.{module}"), name)
        return function


RIGHT, FAST, AS_PLANNED = "right", "fast", "as planned"
PARTS = (
    Planned("machine", RIGHT, "machine.machine", 15),
    Planned("families", RIGHT, "right.families", 60),
    Planned("steps", RIGHT, "right.steps", 50),
    Planned("resume", RIGHT, "bits.resume", 20),
    Planned("same_bytes", RIGHT, "bits.same_bytes", 30),
    Planned("together", RIGHT, "bits.together", 20),
    Planned("bitsandbytes", RIGHT, "optional.bitsandbytes", 15),
    Planned("flash", RIGHT, "optional.flash", 10),
    Planned("training_7b", FAST, "training.training", 80, {"name": LLAVA}),
    Planned("scoring_7b", FAST, "scoring.scoring", 40, {"name": LLAVA}),
    Planned("training_3b", FAST, "training.training", 40, {"name": QWEN}),
    Planned("scoring_3b", FAST, "scoring.scoring", 25, {"name": QWEN}),
    Planned("trl", FAST, "optional.trl", 20, {"name": QWEN}),
    Planned("memory_7b", AS_PLANNED, "training.memory", 40, {"name": LLAVA}),
    Planned("memory_3b", AS_PLANNED, "training.memory", 20, {"name": QWEN}),
)
BY_NAME = {part.name: part for part in PARTS}


def main() -> None:
    """Run one part, and write what it finds as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=BY_NAME)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--family", action="append", default=[])
    parser.add_argument("--method", action="append", default=[])
    given = parser.parse_args()
    output, part = sys.stdout, BY_NAME[given.part]
    with redirect_stdout(sys.stderr):
        from benchmarks.gpu.findings import scratch_scope

        with scratch_scope(given.tiny, given.family, given.method) as scope:
            for finding in part.function()(scope, **part.given):
                print(finding.line(), file=output, flush=True)


if __name__ == "__main__":
    main()
