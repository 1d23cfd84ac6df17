"""The findings of `forgetbench data audit` as rows, a table, CSV files and a contact sheet."""

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
from forgetbench.data.audit.contradictions import SharedContent, contradictions
from forgetbench.data.audit.duplicates import Pair
from forgetbench.data.audit.overlap import QuestionAnswer
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
Item = tuple[tuple[bytes, ...], QuestionAnswer]
"""Digests of an item's pictures, and the words of its question and answer."""


@dataclass(frozen=True)
class Split:
    """The items and pictures of a dataset's split."""

    manifest: Manifest
    split: str
    items: list[Item]
    pictures: dict[bytes, ImageRef]
    """`Fingerprint.pixels` -> a picture that has it."""
    earlier: list[Item]
    """Earlier questions of conversations; they are trained on and never scored."""

    @property
    def name(self) -> str:
        """`dataset:split`."""
        return f"{self.manifest.name}:{self.split}"


@dataclass(frozen=True)
class SplitComparison:
    """A training set compared with an evaluation set."""

    training: Split
    evaluated: Split
    shared: SharedContent
    pairs: list[Pair]
    """Evaluation pictures that are in training, exactly (distance 0) or nearly, each with the nearest picture there."""

    @property
    def contradictions(self) -> list[str]:
        """Quadrant claims that the data contradict, with the training set as target."""
        return list(contradictions(self.training.manifest, self.evaluated.manifest, self.shared))

    @property
    def is_finding(self) -> bool:
        """Whether more than questions is shared; two datasets of the same task share questions."""
        return bool(self.pairs or self.shared.items or self.contradictions)


def comparison_row(comparison: SplitComparison) -> dict[str, object]:
    """The counts of a comparison; None for pictures if the evaluation set has none."""
    shared, texts = comparison.shared, comparison.shared.texts
    return {
        "training": comparison.training.name,
        "evaluation": comparison.evaluated.name,
        "pictures": shared.pictures or None,
        "identical": shared.identical if shared.pictures else None,
        "near": shared.near if shared.pictures else None,
        "items": texts.items,
        "same_item": shared.items,
        "same_question": texts.questions,
        "same_question_and_answer": texts.answered,
        "near_question": texts.near,
        "contradictions": comparison.contradictions,
    }


def findings_table(comparisons: Sequence[SplitComparison], title: str) -> Table:
    """A row for each evaluation set that shares more than questions with any training set."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column in ("evaluation", "identical", "near", "same item", "in training sets", "contradictions"):
        table.add_column(column, overflow="fold")
    by_set = defaultdict[str, list[SplitComparison]](list)
    for comparison in comparisons:
        if comparison.is_finding:
            by_set[comparison.evaluated.name].append(comparison)
    for name, of_set in by_set.items():
        n_items, n_pictures = of_set[0].shared.texts.items, of_set[0].shared.pictures
        identical = {pair.evaluated for comparison in of_set for pair in comparison.pairs if pair.is_identical}
        near = {pair.evaluated for comparison in of_set for pair in comparison.pairs} - identical
        most = max(
            of_set,
            key=lambda comparison: (comparison.shared.identical, comparison.shared.items, comparison.shared.near),
        )
        others = f" and {len(of_set) - 1} more" if len(of_set) > 1 else ""
        table.add_row(
            name,
            _share(len(identical), n_pictures),
            _share(len(near), n_pictures),
            _share(max(comparison.shared.items for comparison in of_set), n_items),
            most.training.name + others,
            "\n".join(
                f"{comparison.training.manifest.name}: {claim}"
                for comparison in of_set
                for claim in comparison.contradictions
            ),
        )
    return table


def _share(count: int, whole: int) -> str:
    return "" if not whole else f"{count} ({count / whole:.1%})" if count else "0"


def write_findings(comparisons: Sequence[SplitComparison], folder: Path) -> list[Path]:
    """Write sets.csv, pictures.csv and, where pictures are shared, contact_sheet.png.

    Returns:
        The files written. If no pictures are shared, the sheet of an earlier audit is deleted.
    """
    sets, pictures, sheet = folder / "sets.csv", folder / "pictures.csv", folder / "contact_sheet.png"
    set_rows = [
        comparison_row(comparison) | {"contradictions": "; ".join(comparison.contradictions)}
        for comparison in comparisons
    ]
    write_csv(pd.DataFrame(set_rows, columns=SET_COLUMNS).convert_dtypes(), sets)
    write_csv(pd.DataFrame(_picture_rows(comparisons), columns=PICTURE_COLUMNS), pictures)
    pairs = _worst_pairs(comparisons)
    if not pairs:
        sheet.unlink(missing_ok=True)
        return [sets, pictures]
    with replacing(sheet) as temporary:
        contact_sheet(pairs).save(temporary, "PNG")
    return [sets, pictures, sheet]


def _picture_rows(comparisons: Iterable[SplitComparison]) -> list[dict[str, object]]:
    return [
        {
            "training": comparison.training.name,
            "training_picture": comparison.training.pictures[pair.known].name,
            "evaluation": comparison.evaluated.name,
            "evaluation_picture": comparison.evaluated.pictures[pair.evaluated].name,
            "identical": pair.is_identical,
            "bits": pair.bits,
            "rms": pair.rms,
        }
        for comparison in comparisons
        for pair in comparison.pairs
    ]


def _worst_pairs(comparisons: Iterable[SplitComparison]) -> list[CaptionedPair]:
    """The worst pairs; a pair of pictures that several datasets share is shown once."""
    first = {
        (pair.evaluated, pair.known): (pair, comparison)
        for comparison in reversed(list(comparisons))
        for pair in comparison.pairs
    }
    worst = sorted(
        first.values(),
        key=lambda pair_and_comparison: (not pair_and_comparison[0].is_identical, pair_and_comparison[0].rms),
    )
    return [_captioned(pair, comparison) for pair, comparison in islice(worst, MOST_PAIRS)]


def _captioned(pair: Pair, comparison: SplitComparison) -> CaptionedPair:
    evaluated, known = comparison.evaluated.pictures[pair.evaluated], comparison.training.pictures[pair.known]
    kind = "identical" if pair.is_identical else f"near: {pair.bits} bits, rms {pair.rms:.3f}"
    lines = (f"{comparison.evaluated.name} {evaluated.name}", f"{comparison.training.name} {known.name}", kind)
    return CaptionedPair(decode_image(evaluated), decode_image(known), lines)
