"""Which option an answer is: the likeliest option, or the option that its text names.

Rules read a reply in order; the first rule with a result decides. The result is None if a careful reader could not tell
either: if the reply names two options and states none, or if letter and text contradict. So a format failure differs
from a wrong answer. docs/scoring.md has the rules in words, with tested examples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from forgetbench.scoring.mentions import (
    BEYOND,
    Mention,
    Options,
    build_options,
    find_mentions,
    is_in_calculation,
    only_option,
)
from forgetbench.scoring.pieces import (
    REFUSED,
    first_sentence,
    match_after_marker,
    match_bare_letter,
    match_line,
    match_line_start,
)
from forgetbench.scoring.statements import Statement, find_statements, is_concluded, is_confirmed, says_no_answer

_OTHER = -3
"""A statement says something that is no option; an earlier statement may still name an option."""
_NEGATED = re.compile(r"\b(?:not|never|cannot)\b|n['’]t\b|不是|不为", re.IGNORECASE)
_NUMBER = re.compile(r"[\s*_`$\\(\[{]*[-+]?\d[\d.,/]*\s*(?:[.!)\]}*$]|$|\n)")


@dataclass(frozen=True)
class _Reply:
    """A reply to one item, with the same folding as the options."""

    text: str
    options: Options

    @cached_property
    def mentions(self) -> list[Mention]:
        """Every place where the reply names an option."""
        return find_mentions(self.text, self.options)

    @cached_property
    def lines(self) -> list[str]:
        """The lines with more than markup."""
        return [line.strip() for line in self.text.splitlines() if line.strip(" *_#`-\t>$\\[]")]

    @cached_property
    def list_end(self) -> int:
        """Position where a first line with a list of lettered options ends; 0 if it is no list."""
        first = self.lines[0] if self.lines else ""
        begun = match_line_start(first, self.options) if first else None
        is_list = begun is not None and begun != REFUSED and _is_list(first, begun, self.options)
        return self.text.find(first) + len(first) if is_list else 0


def likeliest(logprobs: Sequence[float]) -> int:
    """Index of the highest log-probability, the first if several are equal (lm-evaluation-harness's `acc`)."""
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
    return _read(text, build_options(tuple(options), True))


def parse_option(text: str, options: Sequence[str]) -> int | None:
    """Index of the one unlettered option, such as yes or no, that `text` states or names; or None."""
    return _read(text, build_options(tuple(options), False))


def _read(text: str, options: Options) -> int | None:
    reply = _Reply(options.folding(text).strip(), options)
    if not reply.text:
        return None
    index = next((decision for rule in RULES if (decision := rule(reply)) is not None), None)
    return None if index == REFUSED else index


def _stated(reply: _Reply) -> int | None:
    """The last statement with a marker: "the answer is B"."""
    has_other = False
    for statement in reversed(find_statements(reply.text)):
        index = _read_enclosed(reply, statement) if statement.is_enclosed else _read_spoken(reply, statement)
        if index == _OTHER:
            has_other = True
        elif index is not None:
            return index
    return REFUSED if has_other else None


def _read_enclosed(reply: _Reply, statement: Statement) -> int | None:
    """Read a statement between marks: a letter, an option, or a sentence that names an option."""
    content = reply.text[statement.start : statement.end].strip()
    index = match_line(content, reply.options) if content else None
    if index is None and content:
        index = only_option(find_mentions(content, reply.options))
        return _OTHER if index is None else index
    return index


def _read_spoken(reply: _Reply, statement: Statement) -> int | None:
    """Read what follows the marker of a statement; None if it states nothing."""
    if _NEGATED.search(reply.text, statement.marker, statement.start):
        return None
    if any(mention.is_letter and statement.marker <= mention.start < statement.start for mention in reply.mentions):
        return None
    content, options = reply.text[statement.start : statement.end], reply.options
    index = match_after_marker(content, options)
    if index is not None:
        return index
    if says_no_answer(content, [(mention.start, mention.end) for mention in find_mentions(content, options)]):
        return _OTHER
    index = None if statement.is_wide else only_option(find_mentions(first_sentence(content), options))
    return _OTHER if index is None and not statement.is_wide and _NUMBER.match(content) else index


def _last_line(reply: _Reply) -> int | None:
    """A last line that is only a letter or an option, unless it ends a list of options."""
    if not reply.lines:
        return None
    *before, last = reply.lines
    index = match_line(last, reply.options)
    other = match_line(before[-1], reply.options) if before and index is not None else None
    if other is None or other == index:
        return index
    # A letter and another option's text contradict; options on both lines are a list.
    is_pair = len(reply.lines) == 2 and match_bare_letter(before[-1], reply.options) is not None
    return REFUSED if is_pair else None


def _confirmed(reply: _Reply) -> int | None:
    """The only option that is called right: "C is correct"."""
    return only_option(
        [mention for mention in reply.mentions if not mention.negated and is_confirmed(reply.text, mention.end)]
    )


def _first_line(reply: _Reply) -> int | None:
    """A first line that begins with a separated letter or an option, unless it begins a list of options."""
    if not reply.lines:
        return None
    first, *after = reply.lines
    index = match_line_start(first, reply.options)
    if index is None or index == REFUSED:
        return index
    if reply.list_end:
        return None
    other = match_line_start(after[0], reply.options) if after else None
    return index if other in (None, index) else None


def _is_list(line: str, option: int, options: Options) -> bool:
    """Whether a line continues from one lettered option to the next, as "A. shirt B. trousers" does."""
    texts = options.folding.options
    lettered = [
        rf"{letter}[\s.):\]*_-]+{re.escape(text)}" for letter, text in zip(options.letters, texts, strict=False)
    ]
    if not lettered:
        return False
    others = "|".join(pattern for place, pattern in enumerate(lettered) if place != option)
    return re.match(rf"\W*{lettered[option]}[\s,;.|/*_(\[-]*(?:{others})", line, re.IGNORECASE) is not None


def _refused(reply: _Reply) -> int | None:
    """REFUSED if the reply says that it has no answer, or that no option is right."""
    return REFUSED if says_no_answer(reply.text, [(mention.start, mention.end) for mention in reply.mentions]) else None


def _concluded(reply: _Reply) -> int | None:
    """The only option that the conclusions name: "so x is (B)"."""
    return only_option(
        [
            mention
            for mention in reply.mentions
            if mention.start >= reply.list_end
            and not mention.negated
            and is_concluded(reply.text, mention.start, mention.end)
        ]
    )


def _named(reply: _Reply) -> int | None:
    """The only option that is named and not negated."""
    if any(mention.option == BEYOND for mention in reply.mentions):
        return REFUSED
    return only_option([mention for mention in reply.mentions if not is_in_calculation(reply.text, mention)])


RULES: tuple[Callable[[_Reply], int | None], ...] = (
    _stated,
    _last_line,
    _confirmed,
    _first_line,
    _refused,
    _concluded,
    _named,
)
"""In order; each gives an option's index, REFUSED, or None for no result."""
