"""What came of all parts: a page, a JSON file and a last line of ratios."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import PARTS

TINY = "**Tiny shapes: this shows that everything runs, and its speeds mean nothing.**"
MARKS: Mapping[bool | None, str] = {True: "yes", False: "**no**", None: ""}


@dataclass
class Outcome:
    """One part, as far as it came."""

    part: str
    group: str
    state: str = "running"
    """`done`, `failed`, `cut off` at its share of the time, or `not started` as none was left."""
    seconds: float = 0.0
    error: str = ""
    findings: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """Names of what did not hold."""
        return [one["name"] for one in self.findings if one["holds"] is False]


def write(path: Path, outcomes: Sequence[Outcome], command: str, tiny: bool) -> None:
    """Write the page, and everything in it as JSON beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(outcomes, command, tiny), "utf-8")
    found = {"command": command, "tiny": tiny, "parts": [asdict(one) for one in outcomes]}
    path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def page(outcomes: Sequence[Outcome], command: str, tiny: bool) -> str:
    """Markdown: what is broken first, then a table for every part."""
    lines = [
        "# On a GPU",
        "",
        f"    {command}",
        "",
        *([TINY, ""] if tiny else []),
        *(f"- {one}" for one in told(outcomes)),
    ]
    for outcome in outcomes:
        lines += ["", f"## {outcome.group.capitalize()}: {outcome.part}", ""]
        lines += [f"{outcome.state.capitalize()}, {outcome.seconds:.0f} s. {outcome.error}".strip(), ""]
        if outcome.findings:
            lines += ["| what | found | expected | holds |", "|---|---|---|---|"]
        for one in outcome.findings:
            cells = (one["name"], one["value"], one["expected"], MARKS[one["holds"]])
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "", last_line(outcomes), ""])


def told(outcomes: Sequence[Outcome]) -> list[str]:
    """Which parts did not come to their end, and what does not hold."""
    found = [f"{one.part} {one.state}: {one.error}" for one in outcomes if one.state not in ("done", "running")]
    found += [f"{one.part}: does not hold: {name}" for one in outcomes for name in one.broken]
    return found or ["All parts ran to their end, and everything holds."]


def succeeded(outcomes: Sequence[Outcome]) -> bool:
    """Whether all parts ran to their end and everything holds."""
    return all(one.state == "done" and not one.broken for one in outcomes)


def last_line(outcomes: Sequence[Outcome]) -> str:
    """Every ratio, with its goal."""
    found = [
        f"{one['name']} {one['ratio']:.2f}" + (f" ({one['expected']})" if one["expected"] else "")
        for outcome in outcomes
        for one in outcome.findings
        if one["ratio"] is not None
    ]
    return f"ratios: {', '.join(found) or 'none'}"


def listed() -> str:
    """The parts, with their shares of the time."""
    total = sum(part.share for part in PARTS)
    return "\n".join(f"{part.name:14} {part.group:11} {100 * part.share / total:3.0f} %" for part in PARTS)
