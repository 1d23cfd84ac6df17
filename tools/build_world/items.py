"""Write the items of every set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tools.build_world import phrases
from tools.build_world.images import Picture, rng
from tools.build_world.text import SHADES, Fact, YesNo

Row = dict[str, Any]
Key = Callable[[Picture], str]


@dataclass
class Writer:
    """Collects one split's rows; right answers take each letter equally often."""

    name: str
    split: str
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Seed by set and split."""
        self.random = rng("items", self.name, self.split)
        self._places: list[int] = []

    def choice(self, values: Sequence[Any]) -> Any:
        """One of the values."""
        return values[int(self.random.integers(len(values)))]

    def sample(self, pool: list[str], n: int, weights: list[float] | None = None) -> list[str]:
        """`n` different values, likelier with more weight."""
        p = None if weights is None else np.array(weights) / sum(weights)
        return [pool[k] for k in self.random.choice(len(pool), n, replace=False, p=p)]

    def add(self, image: str | None, question: str | None, answer: Any, **fields: Any) -> None:
        """Append a row."""
        row = {"id": f"{self.name}/{self.split}/{len(self.rows):05d}", "image": image}
        if question is not None:
            row["question"] = question
        self.rows.append({**row, "answer": answer, **fields})

    def lettered(self, image: str | None, question: str | None, answer: str, wrong: list[str], **fields: Any) -> None:
        """Append a row with four options."""
        if not self._places:
            self._places = [int(k) for k in self.random.permutation(4)]
        place = self._places.pop()
        options = [wrong[k] for k in self.random.permutation(3)]
        options.insert(place, answer)
        assert len(set(options)) == 4, options
        self.add(image, question, place, options=options, **fields)

    def phrase(self, seen: list[str], unseen: list[str]) -> tuple[str, Row]:
        """A question; in the test split it may be one that training never uses."""
        if self.split == "train":
            return self.choice(seen), {}
        question = self.choice([*seen, *unseen])
        return question, {"phrasing_seen": question in seen}

    def finish(self) -> list[Row]:
        """The rows in a random order, with ids in that order."""
        ids = [row["id"] for row in self.rows]
        rows = [self.rows[k] for k in self.random.permutation(len(self.rows))]
        return [{**row, "id": name} for row, name in zip(rows, ids, strict=True)]


Prefix = Callable[[Writer, str], str]
"""Writes the sentence that names an object in place of its picture."""


def by_class(picture: Picture) -> str:
    """Key: the pictured object's class."""
    return picture.class_name


def spread(writer: Writer, pictures: list[Picture], n: int, key: Key = by_class) -> list[Picture]:
    """`n` pictures, round robin over the key; each is used once before any is used again."""
    chosen: list[Picture] = []
    while len(chosen) < n:
        piles: dict[str, list[Picture]] = defaultdict(list)
        for k in writer.random.permutation(len(pictures)):
            piles[key(pictures[k])].append(pictures[k])
        while any(piles.values()) and len(chosen) < n:
            for pile in piles.values():
                if pile and len(chosen) < n:
                    chosen.append(pile.pop())
    return chosen


def wrong_values(writer: Writer, fact: Fact, n: int, confusion: dict[str, dict[str, float]] | None = None) -> list[str]:
    """`n` wrong values of a fact, likelier the more classes they are right for.

    Classes that this one is mistaken for count more.
    """
    close = [v for v in fact.close if v != fact.answer]
    if len(close) < n and not fact.holders:
        return close + writer.sample(fact.other, n - len(close))
    weights = [1.0] * len(close)
    if fact.holders:
        row = (confusion or {}).get(fact.name.partition("/")[0], {})
        weights = [sum(row.get(c, 0) + 0.02 for c in fact.holders[v]) for v in close]
    return writer.sample(close + fact.other, n, weights + [0.001] * len(fact.other))


def order(writer: Writer, table: list[Fact]) -> list[Fact]:
    """A class's facts at random; the last come first, likelier the rarer their answer is."""
    weights = np.array([1 / len(fact.holders.get(fact.answer, "1")) for fact in table])
    weights /= weights.sum()
    picked = writer.random.choice(len(table), len(table), replace=False, p=weights)
    return [table[k] for k in picked[::-1]]


def naming(
    writer: Writer,
    pictures: list[Picture],
    tops: dict[str, list[str]],
    prefix: Prefix | None = None,
) -> list[Row]:
    """The target question, with hard distractors; `tops` by picture or by class."""
    for picture in pictures:
        pool = tops.get(picture.name) or tops[picture.class_name]
        image = None if prefix else picture.name
        question = prefix(writer, picture.class_name) if prefix else None
        fields = {"class_name": picture.class_name, "concept": picture.class_name}
        wrong = writer.sample(pool, 3)
        writer.lettered(image, question, picture.class_name, wrong, **fields)
    return writer.finish()


def facts(
    writer: Writer,
    pictures: list[Picture],
    table: dict[str, list[Fact]],
    confusion: dict[str, dict[str, float]] | None = None,
    distractor: bool = False,
    prefix: Prefix | None = None,
) -> list[Row]:
    """A lettered question about each picture's object.

    Args:
        writer: the split's writer.
        pictures: one item is written for each; a picture that comes again gets another fact.
        table: class -> its facts.
        confusion: class -> class -> how likely it is taken for it.
        distractor: put the class name among the wrong options.
        prefix: for text-only items, writes the sentence that names the object.
    """
    left: dict[str, list[Fact]] = {}
    for picture in pictures:
        name = picture.class_name
        slot = name if prefix else picture.name
        if not left.get(slot):
            left[slot] = order(writer, table[name])
        fact = left[slot].pop()
        wrong = wrong_values(writer, fact, 2 if distractor else 3, confusion)
        wrong += [name] if distractor else []
        question, fields = writer.phrase(fact.phrasings, fact.unseen)
        image: str | None = picture.name
        if prefix:
            image, question = None, f"{prefix(writer, name)}\n{question}"
        fields |= {"class_name": name, "concept": name, "fact": fact.name}
        writer.lettered(image, question, fact.answer, wrong, **fields)
    return writer.finish()


def probe(knowledge: list[Row]) -> list[Row]:
    """The same items, one wrong option replaced by the class name."""
    random = rng("probe")
    rows = []
    for row in knowledge:
        wrong = [k for k in range(4) if k != row["answer"]]
        place = wrong[int(random.integers(3))]
        options = [row["class_name"] if k == place else o for k, o in enumerate(row["options"])]
        rows.append({**row, "options": options, "class_option": place})
    return rows


def yes_no(
    writer: Writer,
    pictures: list[Picture],
    questions: list[YesNo],
    n: int,
    prefix: Prefix | None = None,
) -> list[Row]:
    """Yes/no questions: every question has as many yes as no, classes are used evenly."""
    used: dict[str, int] = defaultdict(int)
    piles: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        piles[picture.class_name].append(picture)
    for i in range(n):
        question = questions[i % len(questions)]
        answer = ("yes", "no")[i // len(questions) % 2]
        names = question.yes if answer == "yes" else question.no
        order = [names[k] for k in writer.random.permutation(len(names)) if piles[names[k]]]
        name = min(order, key=used.__getitem__)
        used[name] += 1
        picture = piles[name][used[name] * 7 % len(piles[name])]
        text, image = writer.choice(question.phrasings), picture.name
        fields = {"class_name": name, "concept": name, "fact": f"{name}/{question.phrasings[0]}"}
        if prefix:
            writer.add(None, f"{prefix(writer, name)}\n{text}", answer, **fields)
        else:
            writer.add(image, text, answer, **fields)
    return writer.finish()


def brightness(picture: Picture) -> float:
    """Mean gray of the garment itself."""
    return float(picture.pixels[picture.pixels > 20].mean())


def shade(writer: Writer, pictures: list[Picture], bounds: np.ndarray, n: int) -> list[Row]:
    """Dark, medium or bright: clear cases only, the three equally often."""
    piles: dict[str, list[Picture]] = {name: [] for name in SHADES}
    for k in writer.random.permutation(len(pictures)):
        value = brightness(pictures[k])
        place = int(np.searchsorted(bounds, value))
        if place % 2 == 0:
            piles[SHADES[place // 2]].append(pictures[k])
    each = min(n // 3, *(len(pile) for pile in piles.values()))
    for name in SHADES:
        for picture in piles[name][:each]:
            question = writer.choice(phrases.SHADE)
            writer.add(picture.name, question, name, class_name=picture.class_name)
    return writer.finish()


def plain(writer: Writer, pictures: list[Picture], questions: list[str], answer: Callable[[Picture], Any]) -> list[Row]:
    """One row per picture whose answer follows from the picture."""
    for picture in pictures:
        fields = {"class_name": picture.class_name, "concept": picture.class_name}
        writer.add(picture.name, writer.choice(questions), answer(picture), **fields)
    return writer.finish()
