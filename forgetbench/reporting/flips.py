"""The items behind the figures: forgotten, gained, answered with the class name, or not readable."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from forgetbench.core.records import LETTERS, AnswerKind
from forgetbench.evaluation.cells import CellStore
from forgetbench.reporting.contents import FLIP_KINDS, Answer, Flip
from forgetbench.runs.stored import StoredRun
from forgetbench.tables.cell_view import CellView

_RIGHT = 1.0


@dataclass(frozen=True)
class _FlipCandidate:
    """An item to show, before its answers are read."""

    run: StoredRun
    after: CellView
    before: CellView
    place: int
    sample_id: str
    kinds: tuple[str, ...]


AnsweredRuns = Sequence[tuple[StoredRun, Sequence[tuple[CellView, CellView]]]]
"""Runs, each with cells of its checkpoints beside their base."""


def find_flips(answered: AnsweredRuns, max_flips: int) -> tuple[list[Flip], int]:
    """At most `max_flips` items whose answers changed or went wrong, and how many there are.

    They are drawn evenly over runs, datasets, checkpoints, decodings and kinds, the same ones every time.
    """
    groups: dict[tuple[object, ...], list[_FlipCandidate]] = defaultdict(list)
    total = 0
    for run, pairs in answered:
        for after, before in pairs:
            context = after.context
            for candidate in _candidates_of_cell(run, after, before):
                total += 1
                for kind in candidate.kinds:
                    groups[run.name, context.dataset, context.checkpoint, context.decoding, kind].append(candidate)
    return [_flip(candidate) for candidate in _draw_evenly(list(groups.values()), max_flips)], total


def _candidates_of_cell(run: StoredRun, after: CellView, before: CellView) -> Iterator[_FlipCandidate]:
    before_N, after_N = (view.frame["score"].to_numpy(dtype=np.float64) for view in (before, after))
    kinds = dict.fromkeys(FLIP_KINDS, np.zeros(len(after_N), dtype=bool))
    if after.context.metric.is_fraction:
        kinds["forgotten"], kinds["gained"] = (
            (before_N == _RIGHT) & (after_N == 0),
            (before_N == 0) & (after_N == _RIGHT),
        )
    kinds["unparsed"] = after.frame["parsed"].isna().to_numpy()
    kinds["mischoice"] = _names_class(after.frame)
    ids = after.frame["sample_id"].tolist()
    for place in np.flatnonzero(np.any(list(kinds.values()), axis=0)).tolist():
        yield _FlipCandidate(
            run, after, before, place, ids[place], tuple(kind for kind in FLIP_KINDS if kinds[kind][place])
        )


def _names_class(frame: pd.DataFrame) -> np.ndarray:
    """Mask of the answers that are the pictured object's class name, in the probe."""
    if frame["class_option"].isna().all():
        return np.zeros(len(frame), dtype=bool)
    columns = (frame[name] for name in ("class_option", "kind", "options", "parsed"))
    return np.array(
        [
            not pd.isna(k) and answer == (LETTERS[int(k)] if kind == AnswerKind.letter else options[int(k)])
            for k, kind, options, answer in zip(*columns, strict=True)
        ],
        dtype=bool,
    )


def _draw_evenly(groups: Sequence[Sequence[_FlipCandidate]], max_flips: int) -> list[_FlipCandidate]:
    """Draw from each group in turn, in an order that depends on the items only, until there are enough."""
    queues = [sorted(group, key=_random_order) for group in groups]
    chosen: dict[tuple[str, str, int], _FlipCandidate] = {}
    for turn in range(max(map(len, queues), default=0)):
        for queue in queues:
            if turn < len(queue) and len(chosen) < max_flips:
                candidate = queue[turn]
                chosen.setdefault((candidate.run.name, candidate.after.context.cell, candidate.place), candidate)
        if len(chosen) >= max_flips:
            break
    return sorted(chosen.values(), key=_sort_key)


def _random_order(candidate: _FlipCandidate) -> bytes:
    return hashlib.sha256(candidate.sample_id.encode()).digest()


def _sort_key(candidate: _FlipCandidate) -> tuple[object, ...]:
    context = candidate.after.context
    return (
        candidate.run.name,
        context.stage,
        context.step,
        context.variant,
        context.dataset,
        context.decoding,
        candidate.place,
    )


def _flip(candidate: _FlipCandidate) -> Flip:
    context = candidate.after.context
    row, base_row = (view.frame.iloc[candidate.place].to_dict() for view in (candidate.after, candidate.before))
    options = tuple(map(str, row["options"]))
    prompt = _prompts(candidate.run.store, context.cell).get(str(row["sample_id"]), "")
    place = row["class_option"]
    return Flip(
        run=candidate.run.name,
        recipe=candidate.run.recipe,
        checkpoint=context.checkpoint,
        dataset=context.dataset,
        quadrant=context.placement.quadrant,
        decoding=context.decoding,
        sample_id=str(row["sample_id"]),
        image=str(row["image_sha256"] or ""),
        question=_question(prompt, options),
        options=options,
        target=str(row["target"]),
        class_option=None if pd.isna(place) else int(place),
        before=_answer(base_row),
        after=_answer(row),
        kinds=candidate.kinds,
    )


@lru_cache(maxsize=64)
def _prompts(store: CellStore, digest: str) -> dict[str, str]:
    return store.prompts(digest)


def _question(prompt: str, options: Sequence[str]) -> str:
    """The prompt without the lines that list the options, which are shown beside it."""
    listed = {f"{letter}{mark} {option}" for letter, option in zip(LETTERS, options, strict=False) for mark in ".):"}
    lines = "\n".join(line for line in prompt.splitlines() if line.strip() not in listed)
    return re.sub(r"\n{3,}", "\n\n", lines).strip()


def _answer(row: Mapping[Any, Any]) -> Answer:
    logprobs = row["option_logprobs"]
    is_parsed = not pd.isna(row["parsed"])
    written = row["text"] if isinstance(row["text"], str) else None
    return Answer(
        text=written if written is not None else str(row["parsed"]) if is_parsed else "",
        is_right=float(row["score"]) == _RIGHT,
        is_parsed=is_parsed,
        probabilities=None if logprobs is None else _softmax(np.asarray(logprobs, dtype=np.float64)),
    )


def _softmax(logprobs: np.ndarray) -> tuple[float, ...]:
    """Probabilities among the options alone."""
    exponentials = np.exp(logprobs - logprobs.max())
    return tuple((exponentials / exponentials.sum()).round(4).tolist())
