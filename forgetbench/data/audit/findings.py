"""What `forgetbench data audit` found, as rows, a table, CSV files and a contact sheet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd
from rich.table import Table

from forgetbench.core.files import replacing
from forgetbench.core.records import ImageRef
from forgetbench.data.audit.contact_sheet import CaptionedPair, contact_sheet
from forgetbench.data.audit.contradictions import Shared, contradictions
from forgetbench.data.audit.duplicates import Pair
from forgetbench.data.audit.overlap import Asked
from forgetbench.data.manifest import Manifest
from forgetbench.data.pictures import decode_image
from forgetbench.tables.scores import write_csv

MOST_PAIRS = 48
"""Pairs on the contact sheet: identical ones first, then the nearest."""
SET_COLUMNS = (
    "training",
    "evaluation",
    "pictures",
    "identical",
    "near",
    "items",
    "same_item",
    "same_question",
    "same_question_and_answer",
    "near_question",
    "contradictions",
)
PICTURE_COLUMNS = (
    "training",
    "training_picture",
    "evaluation",
    "evaluation_picture",
    "identical",
    "bits",
    "rms",
)
Item = tuple[tuple[bytes, ...], Asked]
"""Digests of an item's pictures, and the words of its question and answer."""


@dataclass(frozen=True)
class Split:
    """One split of one set, read."""

    manifest: Manifest
    split: str
    items: list[Item]
    pictures: dict[bytes, ImageRef]
    """`Fingerprint.pixels` -> a picture that has it."""
    earlier: list[Item]
    """The questions of conversations that are trained on and not scored, as each is followed by others."""

    @property
    def name(self) -> str:
        """Set and split."""
        return f"{self.manifest.name}:{self.split}"


@dataclass(frozen=True)
class Compared:
    """A training set beside an evaluation set."""

    training: Split
    evaluated: Split
    shared: Shared
    pairs: list[Pair]
    """For each evaluation picture that is in training, exactly (at distance 0) or nearly, the nearest there."""

    @property
    def contradictions(self) -> list[str]:
        """Quadrant claims that do not hold, with the training set as target."""
        return list(contradictions(self.training.manifest, self.evaluated.manifest, self.shared))

    @property
    def is_finding(self) -> bool:
        """Whether more is shared than questions: two sets of one task ask alike."""
        return bool(self.pairs or self.shared.items or self.contradictions)


def row(one: Compared) -> dict[str, object]:
    """Counts of one pair of sets; None where an evaluation set has no pictures."""
    shared, texts = one.shared, one.shared.texts
    return {
        "training": one.training.name,
        "evaluation": one.evaluated.name,
        "pictures": shared.pictures or None,
        "identical": shared.identical if shared.pictures else None,
        "near": shared.near if shared.pictures else None,
        "items": texts.items,
        "same_item": shared.items,
        "same_question": texts.questions,
        "same_question_and_answer": texts.answered,
        "near_question": texts.near,
        "contradictions": one.contradictions,
    }


def findings_table(found: Sequence[Compared], title: str) -> Table:
    """A row for each evaluation set that shares more than questions with any training set."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column in ("evaluation", "identical", "near", "same item", "in training sets", "contradictions"):
        table.add_column(column, overflow="fold")
    by_set = defaultdict[str, list[Compared]](list)
    for one in found:
        if one.is_finding:
            by_set[one.evaluated.name].append(one)
    for name, comparisons in by_set.items():
        n_items, n_pictures = comparisons[0].shared.texts.items, comparisons[0].shared.pictures
        identical = {pair.evaluated for one in comparisons for pair in one.pairs if pair.is_identical}
        near = {pair.evaluated for one in comparisons for pair in one.pairs} - identical
        most = max(comparisons, key=lambda one: (one.shared.identical, one.shared.items, one.shared.near))
        others = f" and {len(comparisons) - 1} more" if len(comparisons) > 1 else ""
        table.add_row(
            name,
            _share(len(identical), n_pictures),
            _share(len(near), n_pictures),
            _share(max(one.shared.items for one in comparisons), n_items),
            most.training.name + others,
            "\n".join(f"{one.training.manifest.name}: {claim}" for one in comparisons for claim in one.contradictions),
        )
    return table


def _share(count: int, whole: int) -> str:
    return "" if not whole else f"{count} ({count / whole:.1%})" if count else "0"


def write_findings(found: Sequence[Compared], folder: Path) -> list[Path]:
    """Write sets.csv, pictures.csv and, where pictures are shared, contact_sheet.png.

    Returns:
        The files written; a sheet of an earlier audit does not outlive it.
    """
    sets, pictures, sheet = folder / "sets.csv", folder / "pictures.csv", folder / "contact_sheet.png"
    set_rows = [row(one) | {"contradictions": "; ".join(one.contradictions)} for one in found]
    write_csv(pd.DataFrame(set_rows, columns=SET_COLUMNS).convert_dtypes(), sets)
    write_csv(pd.DataFrame(_picture_rows(found), columns=PICTURE_COLUMNS), pictures)
    pairs = _worst_pairs(found)
    if not pairs:
        sheet.unlink(missing_ok=True)
        return [sets, pictures]
    with replacing(sheet) as temporary:
        contact_sheet(pairs).save(temporary, "PNG")
    return [sets, pictures, sheet]


def _picture_rows(found: Iterable[Compared]) -> list[dict[str, object]]:
    return [
        {
            "training": one.training.name,
            "training_picture": one.training.pictures[pair.known].name,
            "evaluation": one.evaluated.name,
            "evaluation_picture": one.evaluated.pictures[pair.evaluated].name,
            "identical": pair.is_identical,
            "bits": pair.bits,
            "rms": pair.rms,
        }
        for one in found
        for pair in one.pairs
    ]


def _worst_pairs(found: Iterable[Compared]) -> list[CaptionedPair]:
    """The worst pairs; two pictures that several sets share are shown once."""
    first = {(pair.evaluated, pair.known): (pair, one) for one in reversed(list(found)) for pair in one.pairs}
    worst = sorted(first.values(), key=lambda one: (not one[0].is_identical, one[0].rms))
    return [_captioned(pair, one) for pair, one in islice(worst, MOST_PAIRS)]


def _captioned(pair: Pair, one: Compared) -> CaptionedPair:
    shown, known = one.evaluated.pictures[pair.evaluated], one.training.pictures[pair.known]
    kind = "identical" if pair.is_identical else f"near: {pair.bits} bits, rms {pair.rms:.3f}"
    lines = (f"{one.evaluated.name} {shown.name}", f"{one.training.name} {known.name}", kind)
    return CaptionedPair(decode_image(shown), decode_image(known), lines)
