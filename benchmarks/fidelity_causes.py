"""Why two programs encode a conversation differently: every known cause, who is right, and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.fidelity_compare import Difference
from forgetbench.core.records import Sample

BLANKS = ("▁", "<0x0A>", "<0x0D>", "<0x09>", "Ċ", "Ġ", "\n", "\t", "\r")
"""Blanks and line breaks in the names of tokens."""
BREAKS = ("<0x0A>", "Ċ", "\n")
FACTORY, FACTORY_LAST = "LLaMA-Factory", "LLaMA-Factory, mask_history"
CONVERSATION, COMPLETION = "TRL, whole conversation", "TRL, completion"
LAST = (FACTORY_LAST, COMPLETION)
"""Baselines that train only the last reply."""
SAME, PUBLISHED = "LLaMA-Factory's", "published"
"""Kinds of chat templates."""


@dataclass(frozen=True)
class Case:
    """A conversation and the baseline it is compared with."""

    sample: Sample
    baseline: str
    template: str
    special: frozenset[str]
    """Names of the tokenizer's special tokens."""
    first: str
    """The token that the tokenizer puts first; empty if none."""

    @property
    def is_factory(self) -> bool:
        """Whether LLaMA-Factory is compared with."""
        return self.baseline in (FACTORY, FACTORY_LAST)

    @property
    def text(self) -> str:
        """The text of all turns."""
        parts = [part for turn in self.sample.turns for part in turn.parts if isinstance(part, str)]
        return "\n".join([*parts, self.sample.answer])

    @property
    def has_pictures_behind_text(self) -> bool:
        """Whether a turn's pictures do not all come first."""
        kinds = [[isinstance(part, str) for part in turn.parts] for turn in self.sample.turns]
        return any(is_text != sorted(is_text) for is_text in kinds)


@dataclass(frozen=True)
class Cause:
    """One reason for differences."""

    title: str
    right: str
    why: str
    explains: Callable[[Difference, Case], bool]


def cause_of(difference: Difference, case: Case) -> Cause:
    """The first known cause that explains a difference; `UNEXPLAINED` if there is none."""
    return next((cause for cause in CAUSES if cause.explains(difference, case)), UNEXPLAINED)


def _n_special(tokens: Iterable[str], case: Case) -> int:
    return sum(token in case.special for token in tokens)


def _without(text: str, blanks: Iterable[str]) -> str:
    for blank in blanks:
        text = text.replace(blank, "")
    return text


def _first_token(difference: Difference, case: Case) -> bool:
    return not difference.before and difference.ours == (case.first,) and not difference.theirs


def _spelled(difference: Difference, case: Case) -> bool:
    spells = any(token in case.text for token in case.special)
    return spells and _n_special(difference.theirs, case) > _n_special(difference.ours, case)


def _placeholder(difference: Difference, case: Case) -> bool:
    return case.is_factory and "{{image}} and {{idx}}" in case.text and "}}" in difference.pair[0]


def _reply_break(difference: Difference, case: Case) -> bool:
    ours, theirs = difference.pair
    is_break = bool(ours) and not _without(ours + theirs, BREAKS)
    return not case.is_factory and ours == theirs and is_break and not difference.trained


def _double_blank(difference: Difference, case: Case) -> bool:
    ours, theirs = difference.pair
    if case.template == PUBLISHED:  # where, at the end of a conversation, the missing end is in the same stretch
        ours, theirs = ours.removesuffix("</s>"), theirs.removesuffix("▁") if ours.endswith("</s>") else theirs
    return case.baseline == COMPLETION and theirs == "▁" + ours


def _default_system(difference: Difference, case: Case) -> bool:
    return case.template == PUBLISHED and not difference.before and difference.pair[1].startswith("▁A▁chat▁between")


def _no_end(difference: Difference, case: Case) -> bool:
    return case.template == PUBLISHED and not difference.ours and difference.theirs == ("</s>",)


def _only_ours_ends(difference: Difference, case: Case) -> bool:
    return case.template == PUBLISHED and difference.ours == ("</s>",) and not _without(difference.pair[1], BLANKS)


def _next_turn(difference: Difference, case: Case) -> bool:
    return case.template == PUBLISHED and difference.trained == "theirs" and difference.ours == ("▁USER:",)


def _blank_alone(difference: Difference, case: Case) -> bool:
    return case.template == PUBLISHED and difference.trained == "ours" and difference.ours == ("▁",)


def _double_break(difference: Difference, case: Case) -> bool:
    ours, theirs = difference.pair
    is_break = not _without(ours + theirs, BLANKS) and "<0x0A>" in theirs
    return case.template == PUBLISHED and not case.is_factory and is_break and bool(case.sample.images)


def _picture_place(difference: Difference, case: Case) -> bool:
    return case.template == PUBLISHED and not case.is_factory and case.has_pictures_behind_text


def _picture_break(difference: Difference, case: Case) -> bool:
    ours, theirs = difference.pair
    return case.template == PUBLISHED and _without(ours, BLANKS) == _without(theirs, BLANKS) and "<0x0A>" in ours


def _trimmed(difference: Difference, case: Case) -> bool:
    ours, theirs = difference.pair
    is_break = not _without(ours, BREAKS)
    alike = is_break if difference.trained else _without(ours, BLANKS) == _without(theirs, BLANKS)
    return case.template == PUBLISHED and case.is_factory and alike


CAUSES = (
    Cause(
        "The first token",
        "forgetbench",
        "It writes the `<s>` that LLaVA was trained with and that the tokenizer puts first. LLaMA-Factory's template "
        "has none, and TRL leaves it to the template.",
        _first_token,
    ),
    Cause(
        "No system prompt",
        "LLaMA-Factory",
        "LLaVA-1.5 was trained with one that the published template leaves out: give `model.system_prompt`.",
        _default_system,
    ),
    Cause(
        "No end after earlier replies",
        "LLaMA-Factory",
        "The published template of LLaVA-1.5 writes none: only the last reply, to which forgetbench adds it, is "
        "trained to end. Give `model.chat_template` one that does.",
        _no_end,
    ),
    Cause(
        "A text that spells a special token",
        "forgetbench",
        "What somebody wrote stays text. As a control token it would end a reply, open a turn, or stand for a picture"
        " that is not there.",
        _spelled,
    ),
    Cause(
        "A text that holds LLaMA-Factory's own placeholders",
        "forgetbench",
        "LLaMA-Factory writes a picture's tokens for `{{image}}` and the turn's number for `{{idx}}`, wherever they "
        "are.",
        _placeholder,
    ),
    Cause(
        "A reply that begins with line breaks",
        "forgetbench and LLaMA-Factory",
        "TRL tokenises the conversation at once, so that a reply's first line breaks and the prompt's become one "
        "token. A model that is asked has read the prompt's as a token of its own.",
        _reply_break,
    ),
    Cause(
        "Two blanks before a reply",
        "forgetbench and LLaMA-Factory",
        "TRL tokenises the completion alone, template's blank included; Llama's tokenizer puts another before it.",
        _double_blank,
    ),
    Cause(
        "No end at all",
        "forgetbench",
        "The published template of LLaVA-1.5 writes none and TRL adds none: a model is trained never to end.",
        _only_ours_ends,
    ),
    Cause(
        "A loss on the next question's first token",
        "forgetbench",
        "The published template of LLaVA-1.5 counts the blank behind a reply as the reply's, and the tokenizer makes "
        "one token of it and `USER:`.",
        _next_turn,
    ),
    Cause(
        "No loss on the blank before a reply",
        "forgetbench",
        "The prompt that asks for a reply ends in `ASSISTANT:`, so a model has to write the blank; the published "
        "template of LLaVA-1.5 counts it as the prompt's. It only shows where the blank is a token of its own.",
        _blank_alone,
    ),
    Cause(
        "Two line breaks behind a picture",
        "forgetbench",
        "The published template of LLaVA-1.5 writes one and so do LLaVA's files, whose own forgetbench leaves out "
        "then.",
        _double_break,
    ),
    Cause(
        "Pictures before all texts",
        "forgetbench",
        "The published template of LLaVA-1.5 writes a turn's pictures first; forgetbench keeps the places that the "
        "file gives them, which moves the blanks between a turn's texts, too.",
        _picture_place,
    ),
    Cause(
        "A line break behind a picture",
        "either, as long as training and scoring agree",
        "The published template of LLaVA-1.5 writes one, as LLaVA's own files have it; LLaMA-Factory's adds nothing.",
        _picture_break,
    ),
    Cause(
        "Blanks around a text",
        "either, as long as training and scoring agree",
        "The published template of Gemma 3 drops those around every text; LLaMA-Factory's keeps them.",
        _trimmed,
    ),
)
UNEXPLAINED = Cause("Unexplained", "nobody yet", "To be looked into.", lambda *_: True)
