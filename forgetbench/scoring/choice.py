"""Which option an answer is: the likeliest one, or the one that its text names.

A reply is read by rules in order; the first that says something decides. None where a careful reader could not tell
either: a reply that names two options and states none, or whose letter and text contradict, is unparsed, so that format
failure and wrong answer stay two different things. docs/scoring.md has the rules in words, with tested examples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from forgetbench.scoring.mentions import BEYOND, Mention, Options, is_reckoned, known, mentions, only
from forgetbench.scoring.pieces import REFUSED, after_marker, bare_letter, first_sentence, line, opening
from forgetbench.scoring.statements import Statement, is_concluded, is_confirmed, says_none, statements

_OTHER = -3
"""A statement says something that is no option; one before it may still name one."""
_NEGATED = re.compile(r"\b(?:not|never|cannot)\b|n['’]t\b|不是|不为", re.IGNORECASE)
_NUMBER = re.compile(r"[\s*_`$\\(\[{]*[-+]?\d[\d.,/]*\s*(?:[.!)\]}*$]|$|\n)")


@dataclass(frozen=True)
class _Reply:
    """A reply to one item, folded as far as its options are."""

    text: str
    options: Options

    @cached_property
    def mentions(self) -> list[Mention]:
        """Every place where it names an option."""
        return mentions(self.text, self.options)

    @cached_property
    def lines(self) -> list[str]:
        """The lines that hold more than markup."""
        return [line.strip() for line in self.text.splitlines() if line.strip(" *_#`-\t>$\\[]")]

    @cached_property
    def listed(self) -> int:
        """Where a first line ends that goes on from one lettered option to the next; 0 if it does not."""
        first = self.lines[0] if self.lines else ""
        begun = opening(first, self.options) if first else None
        is_list = begun is not None and begun != REFUSED and _lists(first, begun, self.options)
        return self.text.find(first) + len(first) if is_list else 0


def likeliest(logprobs: Sequence[float]) -> int:
    """Index of the highest log-probability; the first of equals (lm-evaluation-harness's `acc`)."""
    return max(range(len(logprobs)), key=logprobs.__getitem__)


def likeliest_per_character(logprobs: Sequence[float], texts: Sequence[str]) -> int:
    """Index of the highest log-probability per character, so that long candidates are not at a disadvantage.

    This is lm-evaluation-harness's `acc_norm`. Its length is that of the candidate's text as the task lists it, in
    characters (its `acc_bytes` counts UTF-8 bytes), without the space that joins it to the prompt, although the
    log-probability includes that space. An empty text counts as one character.
    """
    return likeliest([logprob / max(len(text), 1) for logprob, text in zip(logprobs, texts, strict=True)])


def parse_choice(text: str, options: Sequence[str]) -> int | None:
    """Index of the lettered option that `text` states or names, by letter, by text or by both.

    Args:
        text: what the model wrote, without its thought.
        options: option texts in the order shown; the first is A.

    Returns:
        None for an empty or ambiguous reply, a contradiction, or a letter beyond the options.
    """
    return _read(text, known(tuple(options), True))


def parse_option(text: str, options: Sequence[str]) -> int | None:
    """Index of the one unlettered option, such as yes or no, that `text` states or names; or None."""
    return _read(text, known(tuple(options), False))


def _read(text: str, options: Options) -> int | None:
    reply = _Reply(options.folding(text).strip(), options)
    if not reply.text:
        return None
    found = next((one for rule in RULES if (one := rule(reply)) is not None), None)
    return None if found == REFUSED else found


def _stated(reply: _Reply) -> int | None:
    """The last statement with a marker: "the answer is B"."""
    has_other = False
    for statement in reversed(statements(reply.text)):
        found = _enclosed(reply, statement) if statement.is_enclosed else _spoken(reply, statement)
        if found == _OTHER:
            has_other = True
        elif found is not None:
            return found
    return REFUSED if has_other else None


def _enclosed(reply: _Reply, statement: Statement) -> int | None:
    """What stands between marks: a letter, an option, or a sentence that names one."""
    content = reply.text[statement.at : statement.end].strip()
    found = line(content, reply.options) if content else None
    if found is None and content:
        found = only(mentions(content, reply.options))
        return _OTHER if found is None else found
    return found


def _spoken(reply: _Reply, statement: Statement) -> int | None:
    """What follows the words of a statement; None where they state nothing."""
    if _NEGATED.search(reply.text, statement.marker, statement.at):
        return None
    if any(one.is_letter and statement.marker <= one.start < statement.at for one in reply.mentions):
        return None
    said, options = reply.text[statement.at : statement.end], reply.options
    found = after_marker(said, options)
    if found is not None:
        return found
    if says_none(said, [(one.start, one.end) for one in mentions(said, options)]):
        return _OTHER
    found = None if statement.is_wide else only(mentions(first_sentence(said), options))
    return _OTHER if found is None and not statement.is_wide and _NUMBER.match(said) else found


def _last_line(reply: _Reply) -> int | None:
    """A last line that is only a letter or an option, unless it ends a list of them."""
    if not reply.lines:
        return None
    *before, last = reply.lines
    found = line(last, reply.options)
    other = line(before[-1], reply.options) if before and found is not None else None
    if other is None or other == found:
        return found
    # A letter and another option's text contradict; options on both lines are a list.
    is_pair = len(reply.lines) == 2 and bare_letter(before[-1], reply.options) is not None
    return REFUSED if is_pair else None


def _confirmed(reply: _Reply) -> int | None:
    """What is called right, where that is one option: "C is correct"."""
    return only([one for one in reply.mentions if not one.negated and is_confirmed(reply.text, one.end)])


def _first_line(reply: _Reply) -> int | None:
    """A first line that begins with a letter set off or an option, unless it begins a list of them."""
    if not reply.lines:
        return None
    first, *after = reply.lines
    found = opening(first, reply.options)
    if found is None or found == REFUSED:
        return found
    if reply.listed:
        return None
    other = opening(after[0], reply.options) if after else None
    return found if other in (None, found) else None


def _lists(line: str, option: int, options: Options) -> bool:
    """Whether a line goes on from one lettered option to the next, as "A. shirt B. trousers" does."""
    texts = options.folding.options
    lettered = [
        rf"{letter}[\s.):\]*_-]+{re.escape(text)}" for letter, text in zip(options.letters, texts, strict=False)
    ]
    if not lettered:
        return False
    others = "|".join(one for place, one in enumerate(lettered) if place != option)
    return re.match(rf"\W*{lettered[option]}[\s,;.|/*_(\[-]*(?:{others})", line, re.IGNORECASE) is not None


def _without(reply: _Reply) -> int | None:
    """Refused where the reply says that it has no answer, or that no option is right."""
    return REFUSED if says_none(reply.text, [(one.start, one.end) for one in reply.mentions]) else None


def _concluded(reply: _Reply) -> int | None:
    """What conclusions come to, where that is one option: "so x is (B)"."""
    return only(
        [
            one
            for one in reply.mentions
            if one.start >= reply.listed and not one.negated and is_concluded(reply.text, one.start, one.end)
        ]
    )


def _named(reply: _Reply) -> int | None:
    """The only option that is named and not negated."""
    if any(one.option == BEYOND for one in reply.mentions):
        return REFUSED
    return only([one for one in reply.mentions if not is_reckoned(reply.text, one)])


RULES: tuple[Callable[[_Reply], int | None], ...] = (
    _stated,
    _last_line,
    _confirmed,
    _first_line,
    _without,
    _concluded,
    _named,
)
"""In order; each gives an option's index, REFUSED, or None where it says nothing."""
