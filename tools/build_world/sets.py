"""Which items make up which set."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from tools.build_world import captions, items, phrases
from tools.build_world.images import Picture
from tools.build_world.items import Row, Writer, spread
from tools.build_world.text import (
    DIGITS,
    GARMENTS,
    NUMBERS,
    Concept,
    YesNo,
    article,
    garment_facts,
    yes_no,
)

Rows = dict[tuple[str, str], list[Row]]


class World:
    """The pictures by group, and the tables that questions are made from."""

    def __init__(
        self,
        pictures: list[Picture],
        concepts: list[Concept],
        tops: dict[str, list[str]],
        confusion: np.ndarray,
    ) -> None:
        """Build the tables.

        Args:
            pictures: every picture.
            concepts: the emoji.
            tops: likely wrong classes, by picture or by class.
            confusion: garment by garment, how likely it is taken for it.
        """
        self.groups: dict[str, list[Picture]] = defaultdict(list)
        for picture in pictures:
            self.groups[picture.group].append(picture)
        self.concepts = concepts
        self.tops = tops
        self.confusion = {
            name: dict(zip(GARMENTS, row, strict=True)) for name, row in zip(GARMENTS, confusion.tolist(), strict=True)
        }
        self.garments = garment_facts()
        self.digits = phrases.digit_facts()
        self.categories = {c.name: [phrases.category_fact(c)] for c in concepts}
        self.uses = phrases.use_facts(concepts)
        self.yes_no = yes_no(concepts)
        self.category = {c.name: c.category for c in concepts}

    def questions(self, task: str) -> list[YesNo]:
        """The yes/no questions of one task."""
        return [q for q in self.yes_no if q.task == task]

    def by_use(self, picture: Picture) -> str:
        """Key: the first use of the pictured object."""
        return self.uses[picture.class_name][0].answer

    def by_category(self, picture: Picture) -> str:
        """Key: the category of the pictured object."""
        return self.category[picture.class_name]


def fashion_sets(world: World) -> Rows:
    """Every set on garments."""
    rows: Rows = {}
    groups = world.groups
    train, test = groups["fashion/train"], groups["fashion/test"]
    for name, split, pictures in (
        ("fashion_naming", "train", train),
        ("fashion_naming", "test", test),
        ("fashion_shifted", "test", groups["fashion/shifted"]),
        ("fashion_naming_validation", "validation", groups["fashion/validation"]),
    ):
        rows[name, split] = items.naming(Writer(name, split), pictures, world.tops)
    few = {p.name for p in train[:60]}
    rows["fashion_naming", "few"] = [row for row in rows["fashion_naming", "train"] if row["image"] in few]
    for split, pictures in (("train", train), ("test", test)):
        writer = Writer("fashion_knowledge", split)
        rows["fashion_knowledge", split] = items.facts(writer, pictures * 2, world.garments, world.confusion)
    rows["fashion_probe", "test"] = items.probe(rows["fashion_knowledge", "test"])
    writer = Writer("fashion_distractor", "train")
    rows["fashion_distractor", "train"] = items.facts(
        writer, spread(writer, train, 1500), world.garments, world.confusion, distractor=True
    )
    bounds = np.quantile([items.brightness(p) for p in train], [0.28, 0.38, 0.62, 0.72])
    for split, pictures, n, shades in (("train", train, 3000, 2000), ("test", test, 500, 400)):
        rows["fashion_yesno", split] = items.yes_no(
            Writer("fashion_yesno", split), pictures, world.questions("garment"), n
        )
        rows["fashion_shade", split] = items.shade(Writer("fashion_shade", split), pictures, bounds, shades)
        rows["fashion_caption", split] = captions.garments(Writer("fashion_caption", split), pictures, bounds)
    return rows


def digit_sets(world: World) -> Rows:
    """Every set on digits."""
    rows: Rows = {}
    for split, asked, answered in (("train", 3000, 2000), ("test", 500, 400)):
        pictures = world.groups[f"digits/{split}"]
        named = pictures * (3 if split == "train" else 1)
        rows["digits_naming", split] = items.naming(Writer("digits_naming", split), named, world.tops)
        writer = Writer("digits_questions", split)
        chosen = spread(writer, pictures, asked)
        rows["digits_questions", split] = items.facts(writer, chosen, world.digits)
        rows["digits_yesno", split] = items.yes_no(
            Writer("digits_yesno", split), pictures, world.questions("digit"), answered
        )
        rows["digits_open", split] = items.plain(
            Writer("digits_open", split), pictures, phrases.DIGIT_OPEN,
            lambda p: [p.class_name, str(DIGITS.index(p.class_name))],
        )  # fmt: skip
    writer = Writer("digits_distractor", "train")
    chosen = spread(writer, world.groups["digits/train"], 1100)
    rows["digits_distractor", "train"] = items.facts(writer, chosen, world.digits, distractor=True)
    return rows


def _name(picture: Picture) -> list[str]:
    return list(dict.fromkeys([picture.class_name, article(picture.class_name)]))


def _caption(picture: Picture) -> list[str]:
    what = f"{article(picture.class_name)} on a {picture.background} background"
    return [f"a picture of {what}.", f"{what}."]


def emoji_sets(world: World) -> Rows:
    """Every set on emoji, in both styles."""
    rows: Rows = {}
    for domain, split, n in (
        ("emoji", "train", 5960), ("emoji", "test", 500), ("fluent", "test", 500),
    ):  # fmt: skip
        pictures = world.groups[f"{domain}/{split}"]
        writer = Writer(f"{domain}_naming", split)
        rows[writer.name, split] = items.naming(writer, spread(writer, pictures, n), world.tops)
        m = 3000 if split == "train" else 450
        writer = Writer(f"{domain}_category", split)
        chosen = spread(writer, pictures, m, world.by_category)
        rows[writer.name, split] = items.facts(writer, chosen, world.categories)
        writer = Writer(f"{domain}_use", split)
        usable = [p for p in pictures if p.class_name in world.uses]
        chosen = spread(writer, usable, m, world.by_use)
        rows[writer.name, split] = items.facts(writer, chosen, world.uses)
    for split, n in (("train", 2980), ("test", 450)):
        pictures = world.groups[f"emoji/{split}"]
        rows["emoji_yesno", split] = items.yes_no(
            Writer("emoji_yesno", split), pictures, world.questions("emoji"),
            3000 if split == "train" else 448,
        )  # fmt: skip
        writer = Writer("emoji_background", split)
        chosen = spread(writer, pictures, n, lambda p: p.background)
        rows["emoji_background", split] = items.plain(writer, chosen, phrases.BACKGROUND, lambda p: p.background)
        writer = Writer("emoji_open", split)
        chosen = spread(writer, pictures, n)
        rows["emoji_open", split] = items.plain(writer, chosen, phrases.OPEN, _name)
        writer = Writer("emoji_caption", split)
        chosen = spread(writer, pictures, n)
        rows["emoji_caption", split] = items.plain(writer, chosen, phrases.CAPTION, _caption)
        rows["emoji_count", split] = items.plain(
            Writer("emoji_count", split), world.groups[f"count/{split}"], phrases.COUNT,
            lambda p: NUMBERS[p.count],
        )  # fmt: skip
    backgrounds = {p.name: p.background for p in world.groups["emoji/test"]}
    rows["emoji_caption_cider", "test"] = captions.with_references(
        "emoji_caption_cider", rows["emoji_caption", "test"], backgrounds
    )
    writer = Writer("emoji_distractor", "train")
    both = {c: [*world.categories[c], *world.uses.get(c, [])] for c in world.categories}
    chosen = spread(writer, world.groups["emoji/train"], 1788)
    rows["emoji_distractor", "train"] = items.facts(writer, chosen, both, distractor=True)
    return rows


def picture_sets(world: World) -> Rows:
    """Every picture set's rows by (set, split)."""
    return {
        **fashion_sets(world), **digit_sets(world), **emoji_sets(world),
    }  # fmt: skip
