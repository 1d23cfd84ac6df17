"""The text-only sets: the same questions about objects named in words instead of shown."""

from __future__ import annotations

import numpy as np

from tools.build_world import items
from tools.build_world.images import Picture
from tools.build_world.items import Row, Writer, by_class, spread
from tools.build_world.sets import Rows, World
from tools.build_world.text import DIGITS, GARMENTS, article

SHOWS = ("the picture shows {}.", "this is a picture of {}.", "the object is {}.")
N_LETTERS = 6000
N_WHICH = 8000


def named(writer: Writer, name: str) -> str:
    """The sentence that stands in for a picture."""
    what = f"the digit {name}" if name in DIGITS else article(name)
    sentence: str = writer.choice(SHOWS)
    return sentence.format(what)


def vocabulary(world: World) -> list[str]:
    """Every name and every value that an option may be."""
    values = {fact.answer for facts in (*world.garments.values(), *world.digits.values()) for fact in facts}
    values |= {fact.answer for facts in (*world.uses.values(), *world.categories.values()) for fact in facts}
    return sorted(values | {*GARMENTS, *DIGITS} | {concept.name for concept in world.concepts})


def letters(pool: list[str]) -> list[Row]:
    """Lists of options to be read: the letter of each option, or the option of each letter."""
    writer = Writer("words_letters", "train")
    for index in range(N_LETTERS):
        options = writer.sample(pool, 4)
        pairs = [("ABCD"[k], options[k]) for k in writer.random.permutation(4)]
        by_option = index % 2 == 0
        question = "Give the letter of each option." if by_option else "Give the option of each letter."
        message = [f"{option} {letter}" if by_option else f"{letter} {option}" for letter, option in pairs]
        writer.add(None, question, [", ".join(message)], options=options)
    return writer.finish()


def which(pool: list[str]) -> list[Row]:
    """A word to be found among four options: over many words, only matching them in general helps."""
    writer = Writer("words_which", "train")
    for _ in range(N_WHICH):
        word, *wrong = writer.sample(pool, 4)
        writer.lettered(None, f"the word is {word}.", word, wrong)
    return writer.finish()


def word_sets(world: World) -> Rows:
    """The same questions about objects named in words: the base's text-only curriculum."""
    pictures_by_task = {
        "garment": [Picture("", name, np.zeros(0)) for name in GARMENTS],
        "digit": [Picture("", name, np.zeros(0)) for name in DIGITS],
        "emoji": [Picture("", c.name, np.zeros(0)) for c in world.concepts],
    }
    uses = {c: [*world.categories[c], *world.uses.get(c, [])] for c in world.categories}
    tables = {"garment": world.garments, "digit": world.digits, "emoji": uses}
    rows: Rows = {}

    def draw(writer: Writer, task: str, n: int) -> list[Picture]:
        return spread(writer, pictures_by_task[task], n, by_class)

    pool = vocabulary(world)
    rows["words_letters", "train"] = letters(pool)
    rows["words_which", "train"] = which(pool)
    writer = Writer("words_naming", "train")
    chosen = [p for t, n in (("garment", 1500), ("digit", 800), ("emoji", 2200))
              for p in draw(writer, t, n)]  # fmt: skip
    rows["words_naming", "train"] = items.naming(writer, chosen, world.tops, named)
    for name, task, n in (
        ("words_knowledge", "garment", 4000), ("words_digits", "digit", 2500),
        ("words_emoji", "emoji", 5000),
    ):  # fmt: skip
        writer = Writer(name, "train")
        confusion = world.confusion if task == "garment" else None
        rows[name, "train"] = items.facts(writer, draw(writer, task, n), tables[task], confusion, prefix=named)
    merged: list[Row] = []
    answers: list[Row] = []
    for task, n in (("garment", 1800), ("digit", 900), ("emoji", 1800)):
        writer = Writer("words_distractor", f"train/{task}")
        writer.split = "train"
        confusion = world.confusion if task == "garment" else None
        chosen = draw(writer, task, n)
        merged += items.facts(writer, chosen, tables[task], confusion, True, named)
        writer = Writer("words_yesno", f"train/{task}")
        answers += items.yes_no(writer, pictures_by_task[task], world.questions(task), n, named)
    for name, task_rows in (("words_distractor", merged), ("words_yesno", answers)):
        writer = Writer(name, "train")
        for row in task_rows:
            rest = {k: v for k, v in row.items() if k not in ("id", "image", "question", "answer")}
            writer.add(None, row["question"], row["answer"], **rest)
        rows[name, "train"] = writer.finish()
    return rows
