"""Which option an answer is: the likeliest one, or the one that its text names.

A reply is read by rules in order; the first that says something decides. None where a careful reader could not tell
either: a reply that names two options and states none, or whose letter and text contradict, is unparsed, so that format
failure and wrong answer stay two different things. docs/scoring.md has the rules in words, with an example each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from forgetbench.scoring.mentions import BEYOND, LETTER, UNSPACED, Mention, Options, is_reckoned, known, mentions, only
from forgetbench.scoring.statements import Statement, is_concluded, is_confirmed, says_none, statements

_DECORATION = r"[\s*_`\"'(\[{<$\\（［【「『“‘:：>#-]*"
# Between "the answer is" and what it is: "the answer is clearly option B", "la bonne réponse est la B".
_WORDS = (
    r"(?:\b(?:the|(?-i:an?|l|o)|option|choice|answer|letter|number|item|most|likely|probably|definitely|clearly|therefore|thus"
    r"|simply|actually|indeed|hence|then|correct|right|one|either|still|just|in|fact|best|closest|namely|now"
    r"|la|le|el|lo|los|der|die|das|de|het|as|opción|opcion|opção|opzione|lettre|letra|lettera|réponse|antwort"
    r"|alternativa|respuesta|resposta|risposta|buchstabe|вариант|буква)\b['’]?|选项|選項|选择|選擇|选|選|第|应该|是|为"
    r"|text|mathrm|mathbf|textbf|boxed|quad|rm|bf|は|の)"
)
_LEAD = re.compile(rf"{_DECORATION}(?:{_WORDS}{_DECORATION})*", re.IGNORECASE)
_LEAD_PLAIN = re.compile(_DECORATION)
_CLOSES = re.compile(rf"\s*(?:[.,:;)\]}}!?'\"*_`$\\。，、；）］】」』]|$|\n|[{UNSPACED}])")
_SEPARATES = re.compile(r"[\s*_`]*[.:)\]},;）．：、，\-–—=(]+[\s*_`\"'$\\(]*(?:text\{)?")
_MORE = re.compile(
    rf"[)\]\"'*_.\s]*(?:\([^()\n]{{0,60}}\)\s*)?(?:,|/|&|\+|;|、|和|与|及|或|\b(?:and|or|und|oder|et|ou|y|o|e|both)\b)[\s*_\"'(\[]*(?:option\s+)?(?={LETTER})",
    re.I,
)
_SENTENCE_END = re.compile(r"[.!?。！？；;](?:\s|$)|\n|\Z")
_CONJUNCTION = re.compile(
    r"(?:(?:so|thus|therefore|hence|then|finally)\b\s*,?\s*)?(?:it\s+is\s+)?(?:option\s+|choice\s+|选项|選項|[选選])?",
    re.I,
)
_LETTER_LINE = re.compile(
    rf"[\s*_`#>$\\\"'(\[{{（［【]*({LETTER})[\s*_`$\\\"')\]}}）］】]*(?:([.:)）．：、\-–—]+)[\s*_`\"')]*(.*)|)$", re.S
)
_PHRASE = re.compile(r".+?(?=[,;:!?。，](?!\d)|\.(?:\s|$)|$)")
_NUMBER = re.compile(r"[\s*_`$\\(\[{]*[-+]?\d[\d.,/]*\s*(?:[.!)\]}*$]|$|\n)")

REFUSED = -2
"""Something is said, but no option that it could be: the reply is unparsed, whatever else stands in it."""


OTHER = -3
"""A statement says something that is no option; one before it may still name one."""


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
        """The lines that are not blank."""
        return [line.strip() for line in self.text.splitlines() if line.strip(" *_#`-\t>$\\[]")]


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
    if not text.strip() or not options.folding.options:
        return None
    reply = _Reply(options.folding(text).strip(), options)
    for rule in RULES:
        found = rule(reply)
        if found is not None:
            return None if found == REFUSED else found
    return None


def _stated(reply: _Reply) -> int | None:
    """The last statement with a marker."""
    has_other = False
    for statement in reversed(statements(reply.text)):
        found = _enclosed(reply, statement) if statement.is_enclosed else _said(reply, statement)
        if found == OTHER:
            has_other = True
        elif found is not None:
            return found
    return REFUSED if has_other else None


def _confirmed(reply: _Reply) -> int | None:
    """What is called right, where that is one option."""
    return only([one for one in reply.mentions if not one.negated and is_confirmed(reply.text, one.end)])


def _without(reply: _Reply) -> int | None:
    """Refused where the reply says that it has no answer, or that no option is right."""
    return REFUSED if says_none(reply.text, [(one.start, one.end) for one in reply.mentions]) else None


def _concluded(reply: _Reply) -> int | None:
    """What a conclusion comes to, where that is one option."""
    return only([one for one in reply.mentions if not one.negated and is_concluded(reply.text, one.start, one.end)])


def _last_line(reply: _Reply) -> int | None:
    """A last line that is only a letter or an option, unless it ends a list of them."""
    if not reply.lines:
        return None
    *before, last = reply.lines
    found = _line(last, reply.options)
    if found is None or not before:
        return found
    other = _line(before[-1], reply.options)
    if other is None or other == found:
        return found
    # A letter and another option's text contradict; options on both lines are a list.
    return REFUSED if len(reply.lines) == 2 and _letter_of(before[-1], reply.options) is not None else None


def _first_line(reply: _Reply) -> int | None:
    """A first line that begins with a letter set off, or a first sentence that is an option."""
    if not reply.lines:
        return None
    first, *after = reply.lines
    found = _opening(first, reply.options)
    if found is None or found == REFUSED or not after:
        return found
    other = _opening(after[0], reply.options)
    return found if other in (None, found) else None


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


def _enclosed(reply: _Reply, statement: Statement) -> int | None:
    """What stands between marks: a letter, an option, or a sentence that names one."""
    content = reply.text[statement.at : statement.end].strip()
    if not content:
        return None
    found = _line(content, reply.options)
    if found is None:
        found = only(mentions(content, reply.options))
    return OTHER if found is None else found


def _said(reply: _Reply, statement: Statement) -> int | None:
    """What follows the words of a statement; None where they state nothing."""
    text, options = reply.text, reply.options
    marker = text[statement.marker : statement.at]
    if re.search(r"\b(?:not|never|cannot)\b|n['’]t\b|不是|不为", marker, re.IGNORECASE):
        return None
    if any(one.is_letter and statement.marker <= one.start < statement.at for one in reply.mentions):
        return None
    said = text[statement.at : statement.end]
    for lead in (_LEAD_PLAIN, _LEAD):
        found = _object(said, lead.match(said).end(), options)  # type: ignore[union-attr]
        if found is not None:
            return found
    if says_none(said, [(one.start, one.end) for one in mentions(said, options)]):
        return OTHER
    if statement.is_wide:
        return None
    clause = said[: _SENTENCE_END.search(said, _LEAD.match(said).end()).end()]  # type: ignore[union-attr]
    found = only(mentions(clause, options))
    return OTHER if found is None and _NUMBER.match(said) else found


def _object(said: str, at: int, options: Options) -> int | None:
    """The option that is named right there."""
    rest = said[at:]
    if not rest:
        return None
    letter = re.match(LETTER, rest) if options.lettered else None
    if letter and _stands_alone(rest, letter.group()):
        index = options.letter(letter.group())
        if index == BEYOND:
            return None if _text_there(rest, options) is not None else REFUSED
        return _with_text(index, rest[1:], options)
    there = _text_there(rest, options)
    several = re.match(r"[A-Z]{2,}(?![\w'’-])", rest) if there is None and options.lettered else None
    if several and set(several.group()) <= set(options.letters) and _CLOSES.match(rest[several.end() :]):
        return REFUSED
    return there


def _stands_alone(rest: str, letter: str) -> bool:
    after = rest[1:]
    if re.match(rf"[^\W{UNSPACED}]|['’]\w|-\w", after) or re.match(r"\s*=", after):
        return False
    if _CLOSES.match(after):
        return True
    if letter.islower():
        return False
    if letter in "AI":
        return (
            re.match(
                r"\s+(?:and|or|because|since|as|is|which|with|for|but|based|due|not|that)\b|\s+[^\w\s]|\s+[A-Z]\b",
                after,
            )
            is not None
        )
    return True


def _with_text(index: int, after: str, options: Options) -> int:
    """A letter, unless the text beside it is another option's or a second letter is named with it."""
    more = _MORE.match(after)
    if more:
        second = after[more.end() :]
        if _stands_alone(second, second[:1]) and options.letter(second[:1]) not in (index, BEYOND):
            return REFUSED
    separator = _SEPARATES.match(after)
    if separator:
        end = _SENTENCE_END.search(after, separator.end())
        beside = after[separator.end() : end.start() if end else len(after)]
        line = after[separator.end() :].split("\n", 1)[0]
        own = options.folding.options[index]
        for text in (line, beside, re.split(r"[)\]}*,;(]|\s+(?:because|since|as)\s", beside)[0]):
            named = options.whole(text)
            if named is not None and named != index and not own.casefold().startswith(text.strip().casefold()):
                return REFUSED
    return index


def _text_there(rest: str, options: Options) -> int | None:
    """The option whose text begins there; REFUSED where another one is named with it by `or` or `and`."""
    found = [one for one in mentions(rest, options) if not one.is_letter]
    if not found or found[0].start != 0:
        return None
    first = found[0]
    if len(found) > 1 and found[1].option != first.option:
        between = rest[first.end : found[1].start]
        if re.fullmatch(r"[\s*_\"']*(?:,|/|and|or|or the|and the|or an?|and an?)[\s*_\"']*", between):
            return REFUSED
    beside = (
        re.match(rf"[\s*_]*[(\[]\s*(?:option\s+)?({LETTER})\s*[)\]]", rest[first.end :]) if options.lettered else None
    )
    if beside and options.letter(beside[1]) != first.option:
        return REFUSED
    return first.option


def _letter_of(line: str, options: Options) -> int | None:
    """The letter that a line is, and no more."""
    match = _LETTER_LINE.fullmatch(line) if options.lettered else None
    return options.letter(match[1]) if match and not match[3] else None


def _line(line: str, options: Options) -> int | None:
    """The option that a line is as a whole, by letter, text or both; REFUSED if these contradict."""
    whole = options.whole(line)
    if whole is not None:
        return whole
    bare = line[_CONJUNCTION.match(line.lstrip(" *_#>`")).end() + len(line) - len(line.lstrip(" *_#>`")) :]  # type: ignore[union-attr]
    for text in (line, bare):
        match = _LETTER_LINE.fullmatch(text) if options.lettered else None
        if match and not match[3]:
            index = options.letter(match[1])
            return REFUSED if index == BEYOND else index
        if match:
            index, named = options.letter(match[1]), options.whole(match[3])
            if named is not None:
                return named if named == index else REFUSED
        whole = options.whole(text)
        if whole is not None:
            return whole
    return None


def _opening(line: str, options: Options) -> int | None:
    """The option that a line begins with, set off by a full stop or brackets; REFUSED for a letter beyond them."""
    match = _LETTER_LINE.fullmatch(line) if options.lettered else None
    if match and (not match[2] or match[2][0] not in "-–—"):
        index = options.letter(match[1])
        if index == BEYOND:
            return REFUSED
        return _with_text(index, line[match.end(1) :], options)
    sentence = _PHRASE.match(line)
    return options.whole(sentence.group()) if sentence else None
