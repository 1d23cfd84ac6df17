"""Report datasets whose replies were cut off by the token limit, which hides what the model knows."""

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

REPORTED_SHARE = 0.05
"""Share of a cell's replies above which cut-off replies are reported."""


def cut_off_replies(cells: Sequence[ScoredCell]) -> list[str]:
    """A message per dataset and decoding with more than 5 % cut-off replies, at the base or the last checkpoint."""
    groups: dict[tuple[str, str], list[ScoredCell]] = {}
    for scored in cells:
        if not scored.work.checkpoint.variant:
            groups.setdefault((scored.work.dataset.manifest.name, scored.work.settings.decoding.value), []).append(
                scored
            )
    lines = []
    for (name, decoding), group in groups.items():
        ordered = sorted(group, key=lambda scored: scored.work.checkpoint.step)
        first_and_last = ordered[:1] + ordered[1:][-1:]
        if any(len(_cut_off_texts(scored)) > REPORTED_SHARE * len(scored.cell.frame) for scored in first_and_last):
            counts = [
                f"{len(_cut_off_texts(scored))} of {len(scored.cell.frame)} at {scored.work.checkpoint.name}"
                for scored in first_and_last
            ]
            lines.append(
                f"{name}, {decoding}: replies were cut off ({', '.join(counts)}). {_remedy(name, first_and_last)}"
            )
    return lines


def _cut_off_texts(scored: ScoredCell) -> list[str]:
    """The replies that were cut off."""
    frame = scored.cell.frame
    return [text for text, cut in zip(frame["text"], frame["cut_off"], strict=True) if cut is True]


def _remedy(name: str, first_and_last: Sequence[ScoredCell]) -> str:
    """The settings that raise the token limit of answers, of thoughts, or of both."""
    settings = Settings.read(first_and_last[0].cell.frame["settings"].iloc[0])
    if settings.max_new_tokens is None:
        return "They are thoughts without an end, made elsewhere: give them more tokens there."
    replies = [answer_part(text, scored.cell.marks) for scored in first_and_last for text in _cut_off_texts(scored)]
    in_thought, lines = replies.count(None), []
    if in_thought:
        override = argument("matrix.reasoning.max_tokens", 2 * (settings.max_thought_tokens or 512))
        lines.append(f"{in_thought} of them in a thought: give thoughts more tokens, such as {override}.")
    if in_thought < len(replies):
        caps = {name.removesuffix(PROBE_SUFFIX): 2 * settings.max_new_tokens}
        override = argument("matrix.max_new_tokens", as_text(caps))
        lines.append(f"The cap of answers is {settings.max_new_tokens}: raise it, such as {override}.")
    return " ".join(lines)
