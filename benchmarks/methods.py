"""What each method costs beside plain fine-tuning: step time, memory, time before the first step, in one run.

    python -m benchmarks.methods [--rounds 7] [--only spider mdgd] [--write docs/results/methods_speed.md]

The embedded model, the recipe `methods` (the whole language part, batches of 32), one thread. Every way is a process
of its own and takes its turn of a few steps in every round; a ratio is the median over rounds, with the lowest and the
highest behind it. Steps are those on items seen before; what a method does before its first step has its own column.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import Speed, Worker, take_turns
from benchmarks.methods_loop import MethodSetup

PLAIN = "plain"
TARGETS = {"spider": 1.15, "l2sp": 1.15, "gmt": 1.15, "hft": 1.15, "mdgd": 2.2, "mdgd_gm": 1.1}
"""A step takes at most this many plain ones."""
DENSITY = 0.1
"""rho, the share of entries that MDGD-GM trains by default."""
SAVED = 0.8 * (1 - DENSITY)
"""Share of plain fine-tuning's optimiser memory that MDGD-GM saves at least."""
OPERATION_ROUNDS = 3


@dataclass(frozen=True)
class Group:
    """Setups that are measured together; the others are compared with the first."""

    title: str
    ways: Mapping[str, MethodSetup]


def method_setup(method: str, *overrides: str, stages: int = 1) -> MethodSetup:
    """A method with its default settings but for some overrides."""
    return MethodSetup((f"method={method}", *overrides), stages)


def in_fp32(method: str, *overrides: str) -> MethodSetup:
    """The same, passes in fp32."""
    return method_setup(method, "recipe.precision=fp32", *overrides)


FULL = Group(
    "Full fine-tuning, bf16",
    {name: method_setup(name) for name in (PLAIN, "l2sp", "ewc", "lwf", "hft", "gmt", "spider", "magnitude_mask")},
)
MDGD = Group(
    "MDGD, fp32",
    {
        PLAIN: in_fp32(PLAIN),
        "mdgd": in_fp32("mdgd"),
        "mdgd, nothing cached": in_fp32("mdgd", "method.cache_gb=0"),
        "mdgd_gm": in_fp32("mdgd_gm"),
    },
)
ADAPTERS = Group(
    "Adapters, bf16",
    {
        PLAIN: method_setup(PLAIN),
        "lora": method_setup("lora"),
        "rslora": method_setup("rslora"),
        "dora": method_setup("dora"),
        "o_lora, second stage": method_setup("o_lora", stages=2),
    },
)
OPERATIONS = Group(
    "Operations after training, bf16",
    {
        PLAIN: method_setup(PLAIN),
        "wise_ft (3 variants)": method_setup("wise_ft"),
        "dare": method_setup("dare"),
        "ties": method_setup("ties"),
        "grafting (20 of its 100 updates)": method_setup("grafting", "method.updates=20"),
        "model_tailor": method_setup("model_tailor"),
    },
)
NOTE = """\
A step is one of 32 items, the optimiser's part included; *of plain* is its time over that of a plain step in the same
round (median, lowest and highest round). *Before* is what the method does before the first step: base weights copied,
Fisher information measured, entries chosen, hidden states looked at. *Optimiser* is its state as a resume point holds
it, *method* what the method itself keeps between steps (base weights, masks, indices, caches). *Peak* is the process's
resident memory at its highest, before the first step included. It hides most of this: the weights are 8 MiB. MDGD and
MDGD-GM make their passes in fp32 by default, so in their table plain fine-tuning does, too."""


def main() -> None:
    """Measure everything, print the tables; the ratios, named, are the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="of every method that acts during training")
    parser.add_argument("--only", nargs="*", help="these methods alone, by the first word of their row")
    parser.add_argument("--write", type=Path, help="write the tables, as Markdown, to this file")
    given = parser.parse_args()
    paragraphs, ratios = [NOTE], dict[str, float]()
    print(NOTE)
    for group in (FULL, MDGD, ADAPTERS, OPERATIONS):
        rounds = min(given.rounds, OPERATION_ROUNDS) if group is OPERATIONS else given.rounds
        if speeds := measured(group, rounds, given.only):
            table = operations_table if group is OPERATIONS else training_table
            paragraphs.append("\n".join(table(group.title, speeds)))
            print(f"\n{paragraphs[-1]}", flush=True)
            ratios |= {name: speeds[PLAIN].over(speed) for name, speed in speeds.items() if name != PLAIN}
    paragraphs.append("ratios: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    print(f"\n{paragraphs[-1]}")
    if given.write:
        command = f"    python -m benchmarks.methods {' '.join(sys.argv[1:])}"
        given.write.write_text("\n\n".join(["# Speed and memory of methods", command, *paragraphs]) + "\n", "utf-8")


def measured(group: Group, rounds: int, only: Sequence[str] | None) -> dict[str, Speed]:
    """Let the wanted ways of a group take turns; empty if none is wanted."""
    ways = {name: setup for name, setup in group.ways.items() if only is None or _first_word(name) in (PLAIN, *only)}
    if len(ways) < 2:
        return {}
    command = [sys.executable, "-m", "benchmarks.methods_loop"]
    return take_turns({name: Worker([*command, json.dumps(asdict(setup))]) for name, setup in ways.items()}, rounds)


def training_table(title: str, speeds: Mapping[str, Speed]) -> Iterator[str]:
    """A row for each way, in Markdown."""
    plain = speeds[PLAIN]
    yield f"## {title}"
    yield ""
    yield "| method | ms a step | of plain | target | before, s | peak MiB | optimiser MiB | of plain | method MiB |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, speed in speeds.items():
        optimiser = speed.facts["optimiser_mb"]
        cells = [
            name,
            f"{1000 / speed.steps_per_s:.0f}",
            spread(plain.ratios(speed), plain.over(speed)),
            verdict(name, plain.over(speed)),
            f"{speed.facts['begin_s']:.1f}",
            f"{speed.peak_memory_mb:.0f}",
            f"{optimiser:.1f}",
            f"{optimiser / plain.facts['optimiser_mb']:.2f}",
            f"{speed.facts['method_mb']:.1f}",
        ]
        yield f"| {' | '.join(cells)} |"
    if "mdgd_gm" in speeds:
        yield ""
        yield from saving(speeds)


def saving(speeds: Mapping[str, Speed]) -> Iterator[str]:
    """Share of plain fine-tuning's optimiser memory that MDGD-GM saves."""
    plain, masked = (speeds[name].facts for name in (PLAIN, "mdgd_gm"))
    state = masked["optimiser_mb"]
    yield f"MDGD-GM trains {DENSITY:.0%} of the entries and should save {SAVED:.0%} of plain's optimiser memory:"
    yield ""
    for what, memory in (
        ("the optimiser's own state", state),
        ("with the chosen entries' places and copies, which the method keeps for it", state + masked["method_mb"]),
    ):
        saved = 1 - memory / plain["optimiser_mb"]
        yield f"- {what}: {memory:.1f} MiB, saved {saved:.1%} ({met(saved >= SAVED)})"


def operations_table(title: str, speeds: Mapping[str, Speed]) -> Iterator[str]:
    """A row for each operation, in Markdown."""
    plain = speeds[PLAIN]
    yield f"## {title}"
    yield ""
    yield "On one checkpoint, variants written; the model is loaded already, items are read for the first time."
    yield ""
    yield "| operation | seconds | plain steps | peak MiB |"
    yield "|---|---|---|---|"
    yield f"| (a plain step) | {1 / plain.steps_per_s:.2f} | 1 | {plain.peak_memory_mb:.0f} |"
    for name, speed in speeds.items():
        if name != PLAIN:
            steps = spread(plain.ratios(speed), plain.over(speed), digits=1)
            yield f"| {name} | {1 / speed.steps_per_s:.2f} | {steps} | {speed.peak_memory_mb:.0f} |"


def spread(rounds: Sequence[float], middle: float, digits: int = 2) -> str:
    """A ratio, and the lowest and highest round."""
    return f"{middle:.{digits}f} ({min(rounds):.{digits}f} to {max(rounds):.{digits}f})"


def verdict(name: str, ratio: float) -> str:
    """A method's target and whether it is met; empty if it has none."""
    return f"{TARGETS[name]:.2f}: {met(ratio <= TARGETS[name])}" if name in TARGETS else ""


def met(is_met: bool) -> str:
    """In words."""
    return "met" if is_met else "**not met**"


def _first_word(name: str) -> str:
    return name.partition(" ")[0].rstrip(",")


if __name__ == "__main__":
    main()
