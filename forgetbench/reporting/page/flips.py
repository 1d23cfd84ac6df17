"""The flip explorer's data: each item once, the answers of each checkpoint, and the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forgetbench.core.records import LETTERS
from forgetbench.reporting.contents import FLIP_KINDS, Answer, Flip, ReportContents
from forgetbench.terminal.wording import QUADRANT_NAMES

OUTSIDE = "none"
"""Value of the quadrant filter for the probe and sets in no quadrant."""


def explorer_data(contents: ReportContents) -> dict[str, Any]:
    """Data for the page's script; the base's answers to an item are repeated per checkpoint."""
    items: dict[tuple[object, ...], int] = {}
    details: list[Mapping[str, Any]] = []
    changes = []
    for flip in contents.flips:
        key = (flip.dataset, flip.sample_id, flip.quadrant, flip.question, flip.options, flip.target)
        if key not in items:
            items[key] = len(details)
            details.append(_item(flip))
        changes.append(_change(flip, items[key]))
    shown = {item["picture"] for item in details}
    return {
        "items": details,
        "flips": changes,
        # Pictures only: the page would load any other kind of URI.
        "pictures": {
            key: uri for key, uri in contents.pictures.items() if key in shown and uri.startswith("data:image/")
        },
        "total": len(contents.flips) if contents.n_flips is None else contents.n_flips,
        "whole": "in all runs" if contents.is_sweep else "in the run in all",
        "names": {"quadrant": {**QUADRANT_NAMES, OUTSIDE: "probe, or in no quadrant"}},
        "order": {"quadrant": [*QUADRANT_NAMES, OUTSIDE], "kind": list(FLIP_KINDS)},
    }


def _item(flip: Flip) -> dict[str, Any]:
    target, lettered = _target(flip)
    return {
        "dataset": flip.dataset,
        "quadrant": flip.quadrant or OUTSIDE,
        "id": flip.sample_id,
        "picture": flip.image,
        "question": flip.question,
        "options": [f"{LETTERS[i]}. {option}" if lettered else option for i, option in enumerate(flip.options)],
        "target": flip.target,
        "right": target,
        "class_option": flip.class_option,
    }


def _target(flip: Flip) -> tuple[int | None, bool]:
    """The right option's index, and whether options are answered by letter."""
    index = LETTERS.find(flip.target) if len(flip.target) == 1 else -1
    if 0 <= index < len(flip.options) <= len(LETTERS) and flip.target not in flip.options:
        return index, True
    return (flip.options.index(flip.target) if flip.target in flip.options else None), False


def _change(flip: Flip, item: int) -> dict[str, Any]:
    return {
        "item": item,
        "run": flip.run,
        "checkpoint": flip.checkpoint,
        "decoding": flip.decoding,
        "kind": list(flip.kinds),
        "before": _answer(flip.before),
        "after": _answer(flip.after),
    }


def _answer(answer: Answer) -> dict[str, Any]:
    shares = answer.probabilities
    return {
        "text": answer.text,
        "right": answer.is_right,
        "parsed": answer.is_parsed,
        "shares": None if shares is None else [round(share, 4) for share in shares],
    }
