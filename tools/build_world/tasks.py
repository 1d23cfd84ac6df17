"""Four further tasks for continual learning: new questions, most of them on pictures of their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tools.build_world import fetch
from tools.build_world.images import NEAR, Picture, canvas, fit, glyph, nearest, renderings, rng
from tools.build_world.items import Row, Writer, spread
from tools.build_world.text import DIGITS, Concept, read_flags

ZIP = "tasks.zip"
COLORS = 16
"""Of a picture: enough at 32 pixels, and half the size."""
CORNERS = ("top left", "top right", "bottom left", "bottom right")
REMAINDERS = ("nothing", "one", "two")
STRIPES = ("horizontal", "vertical", "cross", "none")
GERMAN = {
    "animal": "tier", "food": "essen", "plant": "pflanze", "vehicle": "fahrzeug", "instrument": "instrument",
    "sport": "sport",
}  # fmt: skip
KINDS_EACH = 10
"""Concepts of each kind: there are ten instruments."""


@dataclass
class Task:
    """Questions, pictures and number of items of a task."""

    group: str
    """Domain of the pictures."""
    questions: list[str]
    options: tuple[str, ...]
    answer: Callable[[Picture], str]
    n: dict[str, int]
    """Split -> number of items."""


def _tasks(concepts: list[Concept]) -> dict[str, Task]:
    kind = {c.name: GERMAN[c.category] for c in concepts if c.category in GERMAN}
    stripes = {c.name: c.category for c in read_flags()}
    return {
        "digits_remainder": Task(
            "digits", ["what remains when divided by three?", "what is left over after threes?"],
            REMAINDERS, lambda p: REMAINDERS[DIGITS.index(p.class_name) % 3],
            {"train": 1500, "validation": 150, "test": 399}),
        "emoji_corner": Task(
            "corner", ["where is the object?", "which corner is it in?"],
            CORNERS, lambda p: CORNERS[p.count], {"train": 1200, "validation": 160, "test": 320}),
        "flags_stripes": Task(
            "flags", ["how do the stripes run?", "which stripes are on the flag?"],
            STRIPES, lambda p: stripes[p.class_name], {"train": 1200, "validation": 192, "test": 336}),
        "fluent_german": Task(
            "kind", ["what kind is it in German?", "what is it in German?"],
            tuple(GERMAN.values()), lambda p: kind[p.class_name], {"train": 1200, "validation": 180, "test": 300}),
    }  # fmt: skip


def _corners(split: str, arts: dict[str, Image.Image], concepts: list[Concept], n: int) -> list[Picture]:
    """One emoji in one cell of a 2x2 grid; `count` is the cell, row by row."""
    random = rng("corner", split)
    pictures = []
    for i, k in enumerate(random.permutation(np.resize(np.arange(len(concepts)), n))):
        background, ground = canvas(random)
        part = fit(arts[concepts[k].name], random.uniform(12, 16), random.uniform(-15, 15))
        x, y = (int(random.integers(0, 17 - edge)) for edge in part.size)
        ground.paste(part, (16 * (i % 2) + x, 16 * (i // 2 % 2) + y), part)
        name = f"corner/{split}/{i:03d}.webp"
        pictures.append(Picture(name, concepts[k].name, np.asarray(ground), background, i % 4))
    return pictures


def _digits(pictures: list[Picture]) -> list[Picture]:
    """The digits of the file that the world does not show, near to none that it shows."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    shown = np.stack([p.pixels for p in pictures if p.group.startswith("digits/")])
    kept = np.flatnonzero(nearest(pixels, shown) >= NEAR)
    return [Picture(f"digits/validation/{k:05d}.webp", DIGITS[bunch.target[k]], pixels[k]) for k in kept]


def _apart(domain: str, arts: dict[str, Image.Image], concepts: list[Concept], each: dict[str, int]) -> list[Picture]:
    """Renderings of every split, those of one split near to none of the splits before it."""
    pictures: list[Picture] = []
    for split, n in each.items():
        pictures += renderings(domain, split, arts, concepts, n, apart_from=pictures)
    return pictures


def draw(folders: dict[str, Path], concepts: list[Concept], pictures: list[Picture]) -> list[Picture]:
    """The pictures of `ZIP`.

    Args:
        folders: the unpacked packages.
        concepts: the emoji.
        pictures: the world's, for the digits that are left.
    """
    codes = fetch.emoji_codes(folders[fetch.EMOJIBASE])

    def art(package: str, chosen: list[Concept]) -> dict[str, Image.Image]:
        return {c.name: glyph(fetch.picture_file(folders[package], package, codes[c.label])) for c in chosen}

    flags = read_flags()
    kinds = [c for kind in GERMAN for c in [c for c in concepts if c.category == kind][:KINDS_EACH]]
    noto = art(fetch.NOTO, concepts)
    return [
        *_digits(pictures),
        *(p for split, n in (("train", 400), ("validation", 160), ("test", 320))
          for p in _corners(split, noto, concepts, n)),
        *_apart("flags", art(fetch.NOTO, flags), flags, {"train": 8, "validation": 4, "test": 7}),
        *_apart("kind", art(fetch.FLUENT, kinds), kinds, {"train": 7, "validation": 3, "test": 5}),
    ]  # fmt: skip


def _rows(name: str, split: str, task: Task, pictures: list[Picture]) -> list[Row]:
    """Every option equally often right."""
    writer = Writer(name, split)
    piles: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        piles[task.answer(picture)].append(picture)
    for option in task.options:
        for picture in spread(writer, piles[option], task.n[split] // len(task.options)):
            fields = {"class_name": picture.class_name, "concept": picture.class_name}
            writer.add(picture.name, writer.choice(task.questions), option, **fields)
    return writer.finish()


def task_sets(groups: dict[str, list[Picture]], concepts: list[Concept]) -> dict[tuple[str, str], list[Row]]:
    """Every task's rows by (set, split); validation is a set of its own.

    Args:
        groups: the pictures, by domain and split.
        concepts: the emoji.
    """
    return {
        (f"{name}_validation" if split == "validation" else name, split): _rows(
            name if split != "validation" else f"{name}_validation", split, task, groups[f"{task.group}/{split}"]
        )
        for name, task in _tasks(concepts).items()
        for split in task.n
    }
