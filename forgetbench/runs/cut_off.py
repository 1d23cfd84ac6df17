"""Say which datasets have caps that cut replies off: such replies tell the cap, not what the model knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from forgetbench.core.records import PROBE_SUFFIX
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
            counts = " and ".join(
                f"{len(_cut_off(one))} of {len(one.cell.frame)} of {one.work.checkpoint.name}" for one in told
            )
            lines.append(f"{name}, {decoding}: replies were cut off, {counts}. {_remedy(name, told)}")
    return lines


def _cut_off(scored: ScoredCell) -> list[str]:
    """The replies that were cut off."""
    frame = scored.cell.frame
    return [text for text, cut in zip(frame["text"], frame["cut_off"], strict=True) if cut is True]


def _remedy(name: str, told: Sequence[ScoredCell]) -> str:
    settings = json.loads(told[0].cell.frame["settings"].iloc[0])
    cap, thought = settings.get("max_new_tokens"), settings.get("max_thought_tokens")
    if cap is None:
        return "They were made elsewhere: give thoughts more tokens there."
    replies = [(text, one.cell.marks) for one in told for text in _cut_off(one)]
    in_thought = sum(answer_part(text, marks) is None for text, marks in replies)
    dataset = name.removesuffix(PROBE_SUFFIX)
    answers = f"answers have {cap} tokens: give more with matrix.max_new_tokens='{{{dataset}: {2 * cap}}}'"
    thoughts = (
        f"{in_thought} of them in a thought, for which matrix.reasoning.max_tokens={2 * thought if thought else 1024} "
        "gives more tokens"
    )
    parts = [thoughts] * bool(in_thought) + [answers] * (in_thought < len(replies))
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
