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
        """Names of the findings that do not hold."""
        return [finding["name"] for finding in self.findings if finding["holds"] is False]


def write(path: Path, outcomes: Sequence[Outcome], command: str, tiny: bool) -> None:
    """Write the page, and everything in it as JSON beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(outcomes, command, tiny), "utf-8")
    content = {"command": command, "tiny": tiny, "parts": [asdict(outcome) for outcome in outcomes]}
    path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def page(outcomes: Sequence[Outcome], command: str, tiny: bool) -> str:
    """Markdown: what is broken first, then a table for every part."""
    lines = [
        "# On a GPU",
        "",
        f"    {command}",
        "",
        *([TINY, ""] if tiny else []),
        *(f"- {problem}" for problem in problems(outcomes)),
    ]
    for outcome in outcomes:
        lines += ["", f"## {outcome.group.capitalize()}: {outcome.part}", ""]
        lines += [f"{outcome.state.capitalize()}, {outcome.seconds:.0f} s. {outcome.error}".strip(), ""]
        if outcome.findings:
            lines += ["| what | found | expected | holds |", "|---|---|---|---|"]
        for finding in outcome.findings:
            cells = (finding["name"], finding["value"], finding["expected"], MARKS[finding["holds"]])
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "", last_line(outcomes), ""])


def problems(outcomes: Sequence[Outcome]) -> list[str]:
    """Parts that did not end, and findings that do not hold."""
    lines = [
        f"{outcome.part} {outcome.state}: {outcome.error}"
        for outcome in outcomes
        if outcome.state not in ("done", "running")
    ]
    lines += [f"{outcome.part}: does not hold: {name}" for outcome in outcomes for name in outcome.broken]
    return lines or ["All parts ran to their end, and everything holds."]


def succeeded(outcomes: Sequence[Outcome]) -> bool:
    """Whether all parts ran to their end and everything holds."""
    return all(outcome.state == "done" and not outcome.broken for outcome in outcomes)


def last_line(outcomes: Sequence[Outcome]) -> str:
    """Every ratio, with its goal."""
    ratios = [
        f"{finding['name']} {finding['ratio']:.2f}" + (f" ({finding['expected']})" if finding["expected"] else "")
        for outcome in outcomes
        for finding in outcome.findings
        if finding["ratio"] is not None
    ]
    return f"ratios: {', '.join(ratios) or 'none'}"


def listed() -> str:
    """The parts, with their shares of the time."""
    total = sum(part.share for part in PARTS)
    return "\n".join(f"{part.name:14} {part.group:11} {100 * part.share / total:3.0f} %" for part in PARTS)
