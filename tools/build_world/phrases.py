"""Facts and phrasings about digits and emoji."""

from __future__ import annotations

from collections.abc import Callable

from tools.build_world.text import CATEGORIES, DIGITS, NUMBERS, Concept, Fact

BACKGROUNDS = {
    "white": (245, 245, 245),
    "gray": (128, 128, 128),
    "yellow": (246, 222, 96),
    "green": (96, 178, 104),
    "blue": (88, 132, 216),
    "pink": (240, 150, 190),
}
CATEGORY = [
    "what kind of thing is it?",
    "which group does it belong to?",
    "what type of thing is this?",
    "which word describes it best?",
]
CATEGORY_UNSEEN = ["in which group would you put it?"]
BACKGROUND = [
    "what color is the background?",
    "which color is behind the object?",
    "what is the background color?",
    "which color fills the background?",
]
COUNT = [
    "how many objects are there?", "how many things can you see?",
    "what is the number of objects?",
]  # fmt: skip
OPEN = ["what is this?", "what does the picture show?", "name the object.", "what can you see?"]
DIGIT_OPEN = ["what digit is this?", "which number is written here?", "name the digit."]
CAPTION = [
    "describe the picture.", "write a caption.", "what is in the picture and what is behind it?",
]  # fmt: skip
SHADE = ["how bright is the object?", "what shade is it?", "is the object dark, medium or bright?"]

USES = {
    "for": (["what is it used for?", "what is it for?", "what do people use it for?"],
            ["what is its use?"]),
    "where": (["where does it live?", "where can you find it?", "what is its home?"],
              ["which place is its home?"]),
    "kind": (["what kind of food is it?", "which food group is it in?",
              "what sort of food is this?"],
             ["which kind of food is this?"]),
    "move": (["where does it travel?", "what does it move on?", "where does it go?"],
             ["on what does it travel?"]),
}  # fmt: skip
EXTRA_USES: dict[str, list[str]] = {
    "for": [], "where": [], "kind": ["soup", "drink"], "move": [],
}  # fmt: skip
UNCLEAR = (
    {"food", "drink"}, {"food", "plant"}, {"tool", "device"}, {"household", "device"},
    {"food", "animal"}, {"sky", "vehicle"}, {"sky", "device"}, {"sky", "toy"},
    {"instrument", "device"}, {"instrument", "tool"}, {"instrument", "toy"}, {"sport", "vehicle"},
    {"sport", "tool"}, {"building", "household"}, {"device", "vehicle"}, {"sea", "house"},
    {"jungle", "house"}, {"household", "tool"}, {"toy", "sport"}, {"toy", "tool"},
    {"toy", "device"},
    {"jungle", "forest", "grassland"}, {"garden", "forest", "jungle", "grassland"},
    {"garden", "farm", "house"}, {"desert", "grassland", "jungle"},
    {"sea", "snow"}, {"snow", "forest"}, {"farm", "grassland"},
    {"bread", "dessert"}, {"fruit", "dessert"}, {"making music", "playing", "listening"},
    {"playing sport", "playing", "watching sport"}, {"looking", "watching shows", "watching sport"},
    {"writing", "typing", "printing", "painting"}, {"eating", "drinking"},
    {"washing", "cleaning"}, {"cutting", "eating"}, {"sleeping", "living", "camping", "sitting"},
    {"looking", "taking pictures"}, {"learning", "playing sport", "writing"},
    {"fishing", "playing sport"}, {"typing", "watching shows", "calling people", "learning"},
    {"learning", "looking"}, {"telling time", "measuring"}, {"typing", "telling time"},
    {"calling people", "taking pictures", "telling time", "giving light", "listening"},
)  # fmt: skip
"""Values that may both be right: never each other's distractor."""


def clash(first: str, second: str) -> bool:
    """Whether two values might both be right."""
    return any(first in group and second in group for group in UNCLEAR)


def category_fact(concept: Concept) -> Fact:
    """Which category an emoji belongs to."""
    wrong = [c for c in CATEGORIES if c != concept.category and not clash(c, concept.category)]
    return Fact(f"{concept.name}/category", concept.category, wrong, [], CATEGORY, CATEGORY_UNSEEN)


def use_facts(concepts: list[Concept]) -> dict[str, list[Fact]]:
    """Concept name -> facts about its use, home or kind."""
    pools: dict[str, dict[str, list[str]]] = {key: {} for key in USES}
    names: dict[str, dict[str, list[str]]] = {key: {} for key in USES}
    for concept in concepts:
        for key, value in concept.values.items():
            pools[key].setdefault(value, []).append(concept.category)
            names[key].setdefault(value, []).append(concept.name)
    facts: dict[str, list[Fact]] = {}
    for concept in concepts:
        for key, value in concept.values.items():
            wrong = [v for v in pools[key] if v != value and not clash(v, value)]
            close = [v for v in wrong if concept.category in pools[key][v]]
            if len(close) < 3:
                close = wrong
            phrasings, unseen = USES[key]
            holders = {v: names[key][v] for v in [value, *close]}
            fact = Fact(f"{concept.name}/{key}", value, close, EXTRA_USES[key], phrasings, unseen, holders)
            assert len(close) + len(fact.other) >= 3, (concept.name, key, close)
            facts.setdefault(concept.name, []).append(fact)
    return facts


def _numeric(name: str, key: str, answer: str, wrong: list[str], phrasings: list[str]) -> Fact:
    wrong = [value for value in wrong if value not in (name, answer)]
    return Fact(f"{name}/{key}", answer, wrong, [], phrasings[:-1], phrasings[-1:])


def digit_facts() -> dict[str, list[Fact]]:
    """Digit's name -> facts about the number; no option is ever the digit itself.

    The wrong options of a question are right answers to it for other digits, so that the
    options alone do not give the answer away.
    """
    rules: list[tuple[str, Callable[[int], int], list[str]]] = [
        ("next", lambda v: v + 1, [
            "which number comes next?", "what is one more than it?",
            "which number comes right after it?", "what number is right after this one?"]),
        ("previous", lambda v: v - 1, [
            "which number comes before it?", "what is one less than it?",
            "which number comes right before it?", "what number is right before this one?"]),
        ("add two", lambda v: v + 2, [
            "what is two more than it?", "what do you get when you add two?",
            "what number is two more than this one?", "what is it when you add two?"]),
        ("take two", lambda v: v - 2, [
            "what is two less than it?", "what do you get when you take away two?",
            "what number is two less than this one?", "what is it when you take away two?"]),
        ("double", lambda v: 2 * v, [
            "what is double this number?", "what is two times it?",
            "what do you get when you double it?", "what is two times this number?"]),
    ]  # fmt: skip
    parity = [
        "is it odd or even?", "what is its parity?",
        "is this number even or odd?", "which is it, odd or even?",
    ]  # fmt: skip
    facts: dict[str, list[Fact]] = {}
    for value, name in enumerate(DIGITS):
        sides = ["even", "odd", "both", "neither"]
        facts[name] = [_numeric(name, "parity", sides[value % 2], sides, parity)]
        for key, rule, phrasings in rules:
            answers = [NUMBERS[rule(v)] for v in range(10) if rule(v) >= 0 and rule(v) != v]
            answer = rule(value)
            if answer >= 0 and answer != value:
                facts[name].append(_numeric(name, key, NUMBERS[answer], answers, phrasings))
    return facts
