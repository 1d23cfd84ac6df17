"""Read the fact tables beside this module, and phrase questions about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
GARMENTS = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMBERS = (
    *DIGITS, "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
    "seventeen", "eighteen",
)  # fmt: skip
SHADES = ("dark", "medium", "bright")
CATEGORIES = (
    "animal", "food", "drink", "plant", "vehicle", "building", "instrument", "sport", "tool",
    "device", "household", "toy", "sky",
)  # fmt: skip

NAMING = "What is the class of this image? Please answer with a single letter (A, B, C or D).\n{options}"
LETTERED = "{question}\n{options}\nChoose A, B, C, or D."
PLAIN = "{question}"

NO_ARTICLE: set[str] = {"trousers"}
"""Names that take no article; the concept table adds to it."""


@dataclass
class Fact:
    """One answerable (class, attribute) pair."""

    name: str
    answer: str
    close: list[str]
    """Wrong values that are right for other classes of the same kind: the preferred distractors."""
    other: list[str]
    """Further wrong values, used where `close` has fewer than three."""
    phrasings: list[str]
    unseen: list[str] = field(default_factory=list)
    """Phrasings kept for the test split."""
    holders: dict[str, list[str]] = field(default_factory=dict)
    """Value -> the classes it is right for."""


@dataclass
class Concept:
    """A pictured emoji."""

    name: str
    label: str
    category: str
    values: dict[str, str]
    """Attribute -> value, such as where -> farm."""

    @property
    def key(self) -> str:
        """The name as a file stem."""
        return self.name.replace(" ", "_")


@dataclass
class YesNo:
    """A yes/no question: which classes answer which."""

    task: str
    yes: list[str]
    no: list[str]
    phrasings: list[str]


def article(name: str) -> str:
    """The name with its indefinite article."""
    if name in NO_ARTICLE:
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _lines(file: str) -> list[str]:
    text = (HERE / file).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def read_concepts() -> list[Concept]:
    """The emoji concepts, in the table's order."""
    concepts = []
    for line in _lines("concepts.txt"):
        category, attributes, names = (part.strip() for part in line.split("|"))
        # A value may hold a space, so attributes are cut at the next `word:`.
        tokens, values = attributes.split(), {}
        for token in tokens:
            if ":" in token:
                key, value = token.split(":")
                values[key] = value
            else:
                values[key] += f" {token}"
        for entry in _names(names):
            name, _, label = entry.removeprefix("*").partition("=")
            if entry.startswith("*"):
                NO_ARTICLE.add(name)
            concepts.append(Concept(name, label or name, category, dict(values)))
    assert len({concept.name for concept in concepts}) == len(concepts)
    return concepts


def read_flags() -> list[Concept]:
    """The flags; a flag's category is how its stripes run."""
    flags = []
    for line in _lines("flags.txt"):
        stripes, names = line.split(":")
        for entry in _names(names):
            name, _, label = entry.partition("=")
            flags.append(Concept(name, f"flag: {label or name}", stripes, {}))
    return flags


def garment_facts() -> dict[str, list[Fact]]:
    """Class -> its facts."""
    blocks: list[list[str]] = []
    for line in _lines("garments.txt"):
        if line.startswith("["):
            blocks.append([])
        blocks[-1].append(line)
    facts: dict[str, list[Fact]] = {name: [] for name in GARMENTS}
    for head, *lines in blocks:
        marked = [(line[0], line[2:]) for line in lines]
        holders = {
            value.strip(): _names(classes)
            for value, classes in (text.split(":") for mark, text in marked if mark == "=")
        }
        allowed = {
            name.strip(): _names(values) for name, values in (text.split(":") for mark, text in marked if mark == "~")
        }
        extras = [value for mark, text in marked if mark == "+" for value in _names(text)]
        for answer, classes in holders.items():
            for name in classes:
                wrong = [v for v in holders if v != answer and v not in allowed.get(name, [])]
                facts[name].append(
                    Fact(
                        f"{name}/{head.strip('[]')}",
                        answer,
                        wrong,
                        extras,
                        [text for mark, text in marked if mark == "?"],
                        [text for mark, text in marked if mark == "!"],
                        holders,
                    )
                )
                assert len(wrong) + len(extras) >= 3, (head, name)
    return facts


def yes_no(concepts: list[Concept]) -> list[YesNo]:
    """Every yes/no question, with the classes that answer it."""
    tags: dict[str, list[str]] = {}
    for concept in concepts:
        for tag in (concept.category, *concept.values.values()):
            tags.setdefault(f"@{tag}", []).append(concept.name)
    universe = {
        "garment": list(GARMENTS), "digit": list(DIGITS), "emoji": [c.name for c in concepts],
    }  # fmt: skip
    questions: list[YesNo] = []
    for line in _lines("yesno.txt"):
        if line.startswith("["):
            task = line.strip("[]")
            questions.append(YesNo(task, [], list(universe[task]), []))
            continue
        question = questions[-1]
        if line.startswith("?"):
            question.phrasings.append(line[2:])
            continue
        word, names = line.split(":")
        members = [m for name in _names(names) for m in tags.get(name, [name])]
        if word == "yes":
            question.yes = [m for m in universe[question.task] if m in members]
            members = question.yes
        question.no = [m for m in question.no if m not in members]
        if word == "skip":
            question.no = [m for m in question.no if m not in question.yes]
    return questions
