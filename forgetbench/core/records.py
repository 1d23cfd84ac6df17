"""Frozen records that cross module borders; nothing here imports torch, hydra or pandas."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PROBE_SUFFIX = "+class_name"
"""Ends the name of a dataset that was made into a class-label probe."""
THOUGHT_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""What public models write around what they think before they answer."""
PARTS = ("vision", "projector", "language")
"""What a multimodal language model is made of."""
SEEING_PARTS = ("vision", "projector")
"""The parts that pictures pass through, and texts do not."""


class Precision(StrEnum):
    """Arithmetic of the forward pass; weights and optimiser state are fp32 either way."""

    fp32 = "fp32"
    bf16 = "bf16"


class AnswerKind(StrEnum):
    """How a dataset's items are answered."""

    letter = "letter"
    """One of the lettered options; the answer is its letter."""
    option = "option"
    """One of a few fixed words, such as yes or no; the answer is the word."""
    text = "text"
    """Open: a word, a number or a sentence."""


class Metric(StrEnum):
    """How an answer is scored."""

    accuracy = "accuracy"
    """Share right: the right candidate, or for open answers a normalised exact match with any reference."""
    vqa_accuracy = "vqa_accuracy"
    """Open answers: agreement with several people's answers (VQAv2)."""
    anls = "anls"
    """Open answers: normalised Levenshtein similarity to the nearest reference (DocVQA)."""
    relaxed_accuracy = "relaxed_accuracy"
    """Open answers: a number within 5 % of a reference, or its text (ChartQA)."""
    caseless_match = "caseless_match"
    """Open answers: equal but for case (UCIT; CoIN's VizWiz, VQAv2 and OCR-VQA)."""
    compact_match = "compact_match"
    """Open answers: equal but for case, blanks and full stops (MLLM-CL's Fin; CoIN's GQA)."""
    contains_match = "contains_match"
    """Open answers: the accepted answer stands in what was written (MLLM-CL's Med)."""
    lenient_match = "lenient_match"
    """Open answers: the accepted answer stands at an end of a word of what was written (MLLM-CL's RS and AD)."""
    mutual_match = "mutual_match"
    """Open answers: either text stands in the other (CoIN's ImageNet)."""
    letter_match = "letter_match"
    """Open answers: the first letter that stands alone (CoIN's ScienceQA)."""
    science_match = "science_match"
    """Open answers: letters, lists of states or texts (MLLM-CL's Sci)."""
    box_match = "box_match"
    """Open answers: a box that overlaps the right one by more than half (CoIN's referring expressions)."""
    cider_d = "cider_d"
    """Captions: CIDEr-D, from 0 to 10; not a fraction, so in no mean of accuracies."""

    @property
    def is_fraction(self) -> bool:
        """Whether it is a share of 1, as accuracies are."""
        return self is not Metric.cider_d


class Role(StrEnum):
    """What a dataset is for, where it is neither a target nor a set that forgetting is measured on."""

    curriculum = "curriculum"
    """The embedded base was trained on it."""
    control = "control"
    """An auxiliary set that others are compared with."""
    validation = "validation"
    """Settings are chosen by it."""


class Decoding(StrEnum):
    """How a prediction is read from a model."""

    choice = "choice"
    """The candidate with the highest likelihood."""
    greedy = "greedy"
    """What the model writes, decoded greedily and then parsed."""
    sample = "sample"
    """What the model writes, drawn at a temperature and then parsed."""


@dataclass(frozen=True)
class ImageRef:
    """Where one picture's encoded bytes are: a member of a folder or ZIP, a table's cell, or the bytes themselves."""

    container: str
    """Path of a folder or of a .zip file; address of a table's cell; the manifest's path where `data` is set."""
    name: str
    """File name inside the container; the bytes' digest where a table holds them."""
    data: bytes | None = None
    """The encoded picture, where a table holds it in a column."""


class Speaker(StrEnum):
    """Who says a turn of a conversation."""

    system = "system"
    user = "user"
    assistant = "assistant"


Part = str | ImageRef
"""A piece of a turn: text, or a picture."""


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: texts and pictures, in the order in which they are read."""

    speaker: Speaker
    parts: tuple[Part, ...]
    has_loss: bool = True
    """Whether a turn of the assistant may be trained on; files can except turns one by one."""

    @property
    def text(self) -> str:
        """What is said, each picture as `<image>`."""
        return "".join(part if isinstance(part, str) else "<image>" for part in self.parts)


@dataclass(frozen=True)
class Sample:
    """One item of a dataset, rendered: a conversation up to the reply that is asked for, and what counts as right."""

    id: str
    turns: tuple[Turn, ...]
    """All that is said before the answer: perhaps a system turn, then user and assistant in turns, the user last."""
    answer: str
    """The last reply, which is asked for and trained on: a letter, an option, or open text."""
    kind: AnswerKind
    references: tuple[str, ...] = ()
    """Every text that counts as right; `answer` first."""
    options: tuple[str, ...] = ()
    """Option texts, in the order shown; empty for open answers."""
    clusters: tuple[str, ...] = ()
    """One label per way of clustering, e.g. ("image=shirt_12", "fact=shirt/season")."""
    class_option: int | None = None
    """Index of the option that is the pictured object's class name (the class-label probe)."""
    class_name: str = ""
    """The pictured object's class; empty where items do not say."""

    @classmethod
    def question(
        cls,
        id: str,
        prompt: str,
        answer: str,
        kind: AnswerKind,
        images: tuple[ImageRef, ...] = (),
        references: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
        clusters: tuple[str, ...] = (),
    ) -> Sample:
        """A conversation of one turn: pictures, then a question."""
        return cls(id, (Turn(Speaker.user, (*images, prompt)),), answer, kind, references, options, clusters)

    @property
    def is_question(self) -> bool:
        """Whether it is one turn of the user's, its pictures before its one text."""
        if len(self.turns) != 1:
            return False
        *before, last = self.turns[0].parts
        return isinstance(last, str) and not any(isinstance(part, str) for part in before)

    @cached_property
    def images(self) -> tuple[ImageRef, ...]:
        """All pictures, in the order in which they are read."""
        return tuple(part for turn in self.turns for part in turn.parts if isinstance(part, ImageRef))

    @cached_property
    def prompt(self) -> str:
        """What is asked, for people: a question's text; else every turn's, with its speaker where there are several."""
        if self.is_question:
            return str(self.turns[0].parts[-1])
        if len(self.turns) == 1:
            return self.turns[0].text
        return "\n".join(f"{turn.speaker}: {turn.text}" for turn in self.turns)

    @property
    def layout(self) -> list[object]:
        """What a digest needs besides `prompt` and `images` to tell conversations apart; nothing of a question."""
        if self.is_question:
            return []
        shown = [[part if isinstance(part, str) else None for part in turn.parts] for turn in self.turns]
        return [[turn.speaker, parts, turn.has_loss] for turn, parts in zip(self.turns, shown, strict=True)]

    @property
    def candidates(self) -> tuple[str, ...]:
        """What the model may answer: letters, or the option texts; empty for open answers."""
        if self.kind is AnswerKind.letter:
            return tuple(LETTERS[: len(self.options)])
        return self.options if self.kind is AnswerKind.option else ()

    @property
    def target(self) -> int | None:
        """Index of the right candidate; None for open answers."""
        return self.candidates.index(self.answer) if self.candidates else None


@dataclass(frozen=True)
class Prediction:
    """What a model gave for one item."""

    option_logprobs: tuple[float, ...] | None = None
    """Log-probability of each candidate; None when text was generated."""
    text: str | None = None
    """Generated text without special tokens; None when candidates were scored."""
    cut_off: bool | None = None
    """Whether the text ends at its cap, with neither an end of turn nor a stop text; None where that is not known."""


class Axis(StrEnum):
    """Where an evaluation set sits on one axis, relative to the target set."""

    id = "id"
    ood = "ood"
    partial = "partial"
    """Shares some but not all of the target's domains or tasks; in no quadrant."""


QUADRANTS = ("id_text-id_image", "id_text-ood_image", "ood_text-id_image", "ood_text-ood_image")


@dataclass(frozen=True)
class Placement:
    """A dataset's place in the 2x2 matrix of one target set; computed, never typed in."""

    text_axis: Axis
    image_axis: Axis
    quadrant: str
    """One of QUADRANTS; empty for the class-label probe and for partial overlaps."""
    seen_in_mix: bool
    """An auxiliary training set shares a text task with it."""
