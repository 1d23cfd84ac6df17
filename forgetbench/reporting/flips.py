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
class _Found:
    """An item worth seeing, before anything is made of it."""

    run: StoredRun
    after: CellView
    before: CellView
    place: int
    sample_id: str
    kinds: tuple[str, ...]


Answered = Sequence[tuple[StoredRun, Sequence[tuple[CellView, CellView]]]]
"""Runs, each with cells of its checkpoints beside their base."""


def find_flips(answered: Answered, most: int) -> tuple[list[Flip], int]:
    """At most so many items whose answers changed or went wrong, and how many there are.

    They are drawn evenly over runs, datasets, checkpoints, decodings and kinds, the same ones every time.
    """
    groups: dict[tuple[object, ...], list[_Found]] = defaultdict(list)
    total = 0
    for run, pairs in answered:
        for after, before in pairs:
            context = after.context
            for found in _of_cell(run, after, before):
                total += 1
                for kind in found.kinds:
                    groups[run.name, context.dataset, context.checkpoint, context.decoding, kind].append(found)
    return [_flip(found) for found in _drawn(list(groups.values()), most)], total


def _of_cell(run: StoredRun, after: CellView, before: CellView) -> Iterator[_Found]:
    was, now = (view.frame["score"].to_numpy(dtype=np.float64) for view in (before, after))
    kinds = dict.fromkeys(FLIP_KINDS, np.zeros(len(now), dtype=bool))
    if after.context.metric.is_fraction:
        kinds["forgotten"], kinds["gained"] = (was == _RIGHT) & (now == 0), (was == 0) & (now == _RIGHT)
    kinds["unparsed"] = after.frame["parsed"].isna().to_numpy()
    kinds["mischoice"] = _names_class(after.frame)
    ids = after.frame["sample_id"].tolist()
    for place in np.flatnonzero(np.any(list(kinds.values()), axis=0)).tolist():
        yield _Found(run, after, before, place, ids[place], tuple(kind for kind in FLIP_KINDS if kinds[kind][place]))


def _names_class(frame: pd.DataFrame) -> np.ndarray:
    """Whose answer is the pictured object's class name, in the probe."""
    if frame["class_option"].isna().all():
        return np.zeros(len(frame), dtype=bool)
    columns = (frame[name] for name in ("class_option", "kind", "options", "parsed"))
    return np.array(
        [
            not pd.isna(k) and said == (LETTERS[int(k)] if kind == AnswerKind.letter else options[int(k)])
            for k, kind, options, said in zip(*columns, strict=True)
        ],
        dtype=bool,
    )


def _drawn(groups: Sequence[Sequence[_Found]], most: int) -> list[_Found]:
    """One of every group in turn, in an order that depends on the items alone, until there are enough."""
    queues = [sorted(group, key=_order) for group in groups]
    chosen: dict[tuple[str, str, int], _Found] = {}
    for turn in range(max(map(len, queues), default=0)):
        for queue in queues:
            if turn < len(queue) and len(chosen) < most:
                found = queue[turn]
                chosen.setdefault((found.run.name, found.after.context.cell, found.place), found)
        if len(chosen) >= most:
            break
    return sorted(chosen.values(), key=_sort_key)


def _order(found: _Found) -> bytes:
    return hashlib.sha256(found.sample_id.encode()).digest()


def _sort_key(found: _Found) -> tuple[object, ...]:
    context = found.after.context
    return found.run.name, context.stage, context.step, context.variant, context.dataset, context.decoding, found.place


def _flip(found: _Found) -> Flip:
    context = found.after.context
    row, old = (view.frame.iloc[found.place].to_dict() for view in (found.after, found.before))
    options = tuple(map(str, row["options"]))
    prompt = _prompts(found.run.store, context.cell).get(str(row["sample_id"]), "")
    place = row["class_option"]
    return Flip(
        run=found.run.name,
        recipe=found.run.recipe,
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
        before=_answer(old),
        after=_answer(row),
        kinds=found.kinds,
    )


@lru_cache(maxsize=64)
def _prompts(store: CellStore, digest: str) -> dict[str, str]:
    return store.prompts(digest)


def _question(prompt: str, options: Sequence[str]) -> str:
    """The prompt without the lines that list the options, which are shown beside it."""
    listed = {f"{letter}{mark} {option}" for letter, option in zip(LETTERS, options, strict=False) for mark in ".):"}
    kept = "\n".join(line for line in prompt.splitlines() if line.strip() not in listed)
    return re.sub(r"\n{3,}", "\n\n", kept).strip()


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
