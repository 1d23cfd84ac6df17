"""Say which datasets have caps that cut replies off: such replies tell the cap, not what the model knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from forgetbench.core.override_text import as_text
from forgetbench.core.records import PROBE_SUFFIX
from forgetbench.core.shell import argument
from forgetbench.evaluation.settings import Settings
from forgetbench.scoring.reply import answer_part

if TYPE_CHECKING:
    from forgetbench.evaluation.evaluate import ScoredCell

WORTH_SAYING = 0.05
"""Above this share of a cell's replies."""


def cut_off_replies(cells: Sequence[ScoredCell]) -> list[str]:
    """A line per dataset and decoding of which more than 5 % were cut off, at the base or at the last checkpoint."""
    groups: dict[tuple[str, str], list[ScoredCell]] = {}
    for one in cells:
        if not one.work.checkpoint.variant:
            groups.setdefault((one.work.dataset.manifest.name, one.work.settings.decoding.value), []).append(one)
    lines = []
    for (name, decoding), group in groups.items():
        ordered = sorted(group, key=lambda one: one.work.checkpoint.step)
        told = ordered[:1] + ordered[1:][-1:]
        if any(len(_cut_off(one)) > WORTH_SAYING * len(one.cell.frame) for one in told):
            counts = [f"{len(_cut_off(one))} of {len(one.cell.frame)} at {one.work.checkpoint.name}" for one in told]
            lines.append(f"{name}, {decoding}: replies were cut off ({', '.join(counts)}). {_remedy(name, told)}")
    return lines


def _cut_off(scored: ScoredCell) -> list[str]:
    """The replies that were cut off."""
    frame = scored.cell.frame
    return [text for text, cut in zip(frame["text"], frame["cut_off"], strict=True) if cut is True]


def _remedy(name: str, told: Sequence[ScoredCell]) -> str:
    """Which key gives more tokens: of answers, of thoughts, or both."""
    settings = Settings.read(told[0].cell.frame["settings"].iloc[0])
    if settings.max_new_tokens is None:
        return "They are thoughts without an end, made elsewhere: give them more tokens there."
    replies = [answer_part(text, one.cell.marks) for one in told for text in _cut_off(one)]
    in_thought, lines = replies.count(None), []
    if in_thought:
        more = argument("matrix.reasoning.max_tokens", 2 * (settings.max_thought_tokens or 512))
        lines.append(f"{in_thought} of them in a thought: give thoughts more tokens, such as {more}.")
    if in_thought < len(replies):
        caps = {name.removesuffix(PROBE_SUFFIX): 2 * settings.max_new_tokens}
        more = argument("matrix.max_new_tokens", as_text(caps))
        lines.append(f"The cap of answers is {settings.max_new_tokens}: raise it, such as {more}.")
    return " ".join(lines)
