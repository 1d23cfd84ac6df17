"""Conversations about one emoji picture: what is asked later often means nothing without the turn before.

None has a system turn: the embedded model's chat template has no place for one.
"""

from __future__ import annotations

from dataclasses import dataclass

from tools.build_world import phrases
from tools.build_world.images import Picture
from tools.build_world.items import Row, Writer, spread
from tools.build_world.text import Concept, Fact, article, yes_no

NAME = "general_turns"
SIZES = {"train": 600, "test": 300}
THINGS = {
    **{name: article(name) for name in
       ("animal", "food", "drink", "plant", "vehicle", "building", "instrument", "tool", "device", "toy")},
    "sport": "a thing for sport", "household": "a household thing", "sky": "a thing in the sky",
}  # fmt: skip
USES = {"for": ("is it used for {}?", "{}"), "where": ("is {} its home?", "the {}"),
        "kind": ("is it a kind of {}?", "{}"), "move": ("does it go by {}?", "{}")}  # fmt: skip
"""Kind of use -> a question about a value, and the phrase for the value."""
SHARED = ("then", "which", "sentence")
"""Ways to go on whose last question is the same whatever the conversation is about."""
WAYS = (*SHARED, "and yes", "and no")

Pair = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True)
class Topic:
    """A topic to ask about a picture, with a right and a wrong value as questions phrase them."""

    ask: str
    """A question about one value, such as `is it {}?`."""
    right: str
    wrong: str
    answer: str
    """The right value as a separate answer."""
    open: str
    """A question for the value."""
    which: tuple[str, str]
    """A group that holds the value, as a question phrases it, and the value in it."""
    sentence: str

    def pairs(self, way: str) -> list[Pair]:
        """Two questions; the second omits the subject of the first."""
        right, wrong = self.ask.format(self.right), self.ask.format(self.wrong)
        return {
            "then": [(wrong, "no"), ("what is it then?", self.answer)],
            "which": [(self.ask.format(self.which[0]), "yes"), ("which one?", self.which[1])],
            "sentence": [(self.open, self.answer), ("and in a sentence?", self.sentence)],
            "and yes": [(wrong, "no"), (f"and {self.right}?", "yes")],
            "and no": [(right, "yes"), (f"and {self.wrong}?", "no")],
        }[way]


class QuestionSampler:
    """Draws questions and answers about pictures from the tables of the emoji."""

    def __init__(self, writer: Writer, concepts: list[Concept]) -> None:
        """Build the tables."""
        self._writer = writer
        self._categories = {c.name: phrases.category_fact(c) for c in concepts}
        self._uses = phrases.use_facts(concepts)
        # Questions for a category are the topic of `kind`.
        self._facts = [
            question
            for question in yes_no(concepts)
            if question.task == "emoji" and not any(p.startswith(("is it a ", "is it an ")) for p in question.phrasings)
        ]

    def kind(self, picture: Picture) -> Topic:
        """The category of the pictured object."""
        fact = self._categories[picture.class_name]
        right, wrong = THINGS[fact.answer], THINGS[self._writer.choice(fact.close)]
        # The fourth phrasing asks for a word among options.
        asked = self._writer.choice(phrases.CATEGORY[:3])
        return Topic("is it {}?", right, wrong, fact.answer, asked, (right, picture.class_name), f"it is {right}.")

    def background(self, picture: Picture) -> Topic:
        """The color behind it."""
        right = picture.background
        others = self._writer.sample([color for color in phrases.BACKGROUNDS if color != right], 2)
        first, second, last = self._writer.sample([right, *others], 3)
        return Topic(
            "is the background {}?",
            right,
            others[0],
            right,
            self._writer.choice(phrases.BACKGROUND),
            (f"{first}, {second} or {last}", right),
            f"the background is {right}.",
        )

    def use(self, picture: Picture) -> list[Pair]:
        """Its use, home or kind: two questions; none of objects without any."""
        if picture.class_name not in self._uses:
            return []
        fact: Fact = self._writer.choice(self._uses[picture.class_name])
        ask, statement = USES[fact.name.rpartition("/")[2]]
        right, wrong = statement.format(fact.answer), statement.format(self._writer.choice(fact.close))
        asked = self._writer.choice(fact.phrasings)
        topic = Topic(ask, right, wrong, fact.answer, asked, ("", ""), "")
        return topic.pairs(self._writer.choice(("and yes", "and no")))

    def fact(self, picture: Picture) -> list[Pair]:
        """A question answered by yes or no."""
        name = picture.class_name
        known = [(q, a) for q in self._facts for a, names in (("yes", q.yes), ("no", q.no)) if name in names]
        # Most questions are answered by no for most objects.
        answer = self._writer.choice(sorted({a for _, a in known}))
        question = self._writer.choice([q for q, a in known if a == answer])
        return [(self._writer.choice(question.phrasings), answer)]

    def name(self, picture: Picture) -> list[Pair]:
        """Its name."""
        return [(self._writer.choice(phrases.OPEN), picture.class_name)]

    def caption(self, picture: Picture) -> list[Pair]:
        """A description of the whole picture."""
        what = f"{article(picture.class_name)} on a {picture.background} background"
        return [(self._writer.choice(phrases.CAPTION), f"a picture of {what}.")]


def _add(writer: Writer, picture: Picture, pairs: list[Pair]) -> None:
    messages = [
        {"role": role, "content": content}
        for pair in pairs
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
    messages[0]["content"] = f"<image>{messages[0]['content']}"
    writer.rows.append(
        {
            "id": f"{writer.name}/{writer.split}/{len(writer.rows):05d}",
            "image": picture.name,
            "messages": messages,
            "class_name": picture.class_name,
            "concept": picture.class_name,
        }
    )


def _train(pictures: list[Picture], concepts: list[Concept]) -> list[Row]:
    """Two to six questions each; the second leaves out what the first is about."""
    writer = Writer(NAME, "train")
    sampler = QuestionSampler(writer, concepts)
    for place, picture in enumerate(spread(writer, pictures, SIZES["train"])):
        topics = [sampler.kind(picture), sampler.background(picture)]
        pairs, other = (topics[k].pairs(writer.choice(WAYS)) for k in writer.random.permutation(2))
        others = [other, sampler.use(picture), sampler.fact(picture), sampler.name(picture), sampler.caption(picture)]
        n = 2 + place % 5
        for k in writer.random.permutation(len(others)):
            pairs += others[k][: n - len(pairs)]
        _add(writer, picture, pairs)
    return writer.finish()


def _test(pictures: list[Picture], concepts: list[Concept]) -> list[Row]:
    """Two conversations about each picture: they end in one question, and the turn before decides what is right."""
    writer = Writer(NAME, "test")
    sampler = QuestionSampler(writer, concepts)
    for place, picture in enumerate(spread(writer, pictures, SIZES["test"] // 2)):
        before = sampler.fact(picture) if place // len(SHARED) % 2 else []
        for topic in (sampler.kind(picture), sampler.background(picture)):
            _add(writer, picture, before + topic.pairs(SHARED[place % len(SHARED)]))
    return writer.finish()


def turn_sets(groups: dict[str, list[Picture]], concepts: list[Concept]) -> dict[tuple[str, str], list[Row]]:
    """The conversations by (set, split).

    Args:
        groups: the pictures, by domain and split.
        concepts: the emoji.
    """
    return {
        (NAME, "train"): _train(groups["emoji/train"], concepts),
        (NAME, "test"): _test(groups["emoji/test"], concepts),
    }
