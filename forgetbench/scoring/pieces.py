"""Which option a piece of a reply is: what stands right after a marker, a whole line, or the beginning of one."""

from __future__ import annotations

import re

from forgetbench.scoring.mentions import BEYOND, LETTER, UNSPACED, Options, mentions

REFUSED = -2
"""In place of an option's index: a letter beyond the options, one whose text is another option's, or two options."""

_OPENING = r"[\s*_`\"'(\[{<$\\（［【「『“‘:：>#-]*"
# Between "the answer is" and what it is: "the answer is clearly option B", "la bonne réponse est la B". Articles of a
# letter or two are small: "A" and "O" are options.
_FILLER = (
    r"(?:\b(?:the|(?-i:an?|l|o)|option|choice|answer|letter|number|item|most|likely|probably|definitely|clearly"
    r"|therefore|thus|simply|actually|indeed|hence|then|correct|right|one|either|still|just|in|fact|best|closest|namely"
    r"|now|la|le|el|lo|los|der|die|das|de|het|as|opción|opcion|opção|opzione|lettre|letra|lettera|réponse|antwort"
    r"|alternativa|respuesta|resposta|risposta|buchstabe|вариант|буква)\b['’]?"
    r"|选项|選項|选择|選擇|选|選|第|应该|是|为|text|mathrm|mathbf|textbf|boxed|quad|rm|bf|は|の)"
)
_LEADS = (re.compile(_OPENING), re.compile(rf"{_OPENING}(?:{_FILLER}{_OPENING})*", re.IGNORECASE))
_CLOSES = re.compile(rf"\s*(?:[.,:;)\]}}!?'\"*_`$\\。，、；）］】」』]|$|\n|[{UNSPACED}])")
_AFTER_A_OR_I = re.compile(
    r"\s+(?:and|or|because|since|as|is|which|with|for|but|based|due|not|that)\b|\s+[^\w\s]|\s+[A-Z]\b"
)
_SEPARATOR = re.compile(r"[\s*_`]*[.:)\]},;）．：、，\-–—=(]+[\s*_`\"'$\\(]*(?:text\{)?")
_BESIDE_ENDS = re.compile(r"[)\]}*,;(]|\s+(?:because|since|as)\s")
_AND = r"(?:/|&|\+|和|与|及|或|\b(?:and|or|und|oder|et|ou|y|o|e)\b)"
_NEXT_LETTER = re.compile(
    rf"[)\]\"'*_.\s]*(?:\([^()\n]{{0,60}}\)\s*)?(?:{_AND}|([,;、，]))[\s*_\"'(\[]*(?:option\s+)?(?={LETTER})",
    re.IGNORECASE,
)
_AND_NEXT = re.compile(rf"\s*{_AND}", re.IGNORECASE)
_NEXT_TEXT = re.compile(r"[\s*_\"']*(?:,|/|\b(?:and|or)\b)(?:\s+(?:the|an?))?[\s*_\"']*")
_SEVERAL = re.compile(r"[A-Z]{2,}(?![\w'’-])")
_IN_BRACKETS = re.compile(rf"[\s*_]*[(\[]\s*(?:option\s+)?({LETTER})\s*[)\]]")
_SENTENCE_END = re.compile(r"[.!?。！？；;](?:\s|$)|\n|\Z")
_BEFORE_AN_OPTION = re.compile(
    r"[\s*_#>`]*(?:(?:so|thus|therefore|hence|then|finally)\b\s*,?\s*)?(?:it\s+is\s+)?"
    r"(?:option\s+|choice\s+|选项|選項|[选選])?",
    re.IGNORECASE,
)
_LETTER_LINE = re.compile(
    rf"[\s*_`#>$\\\"'(\[{{（［【]*({LETTER})[\s*_`$\\\"')\]}}）］】]*(?:([.:)）．：。、\-–—]+)[\s*_`\"')]*(.*)|)$",
    re.DOTALL,
)
_PHRASE = re.compile(r".+?(?=[,;:!?。，](?!\d)|\.(?:\s|$)|\s-\s|$)")


def after_marker(said: str, options: Options) -> int | None:
    """The option that comes first in what a statement says; None if another word does."""
    for lead in _LEADS:
        found = _named_first(said[lead_end(said, lead) :], options)
        if found is not None:
            return found
    return None


def first_sentence(said: str) -> str:
    """What a statement says, up to the end of its sentence."""
    end = _SENTENCE_END.search(said, lead_end(said, _LEADS[1]))
    return said[: end.end()] if end else said


def lead_end(said: str, lead: re.Pattern[str]) -> int:
    """Where markup and words that name nothing end."""
    match = lead.match(said)
    return match.end() if match else 0


def line(text: str, options: Options) -> int | None:
    """The option that a line is as a whole, by letter, text or both; REFUSED if these contradict."""
    whole = options.whole(text)
    if whole is not None:
        return whole
    for one in (text, text[lead_end(text, _BEFORE_AN_OPTION) :]):
        match = _LETTER_LINE.fullmatch(one) if options.lettered else None
        if match:
            index = options.letter(match[1])
            if not match[3]:
                return REFUSED if index == BEYOND else index
            named = options.whole(match[3])
            if named is not None:
                return named if named == index else REFUSED
        whole = options.whole(one)
        if whole is not None:
            return whole
    return None


def bare_letter(text: str, options: Options) -> int | None:
    """The option whose letter a line is, and no more; None if it is none."""
    match = _LETTER_LINE.fullmatch(text) if options.lettered else None
    return options.letter(match[1]) if match and not match[3] else None


def opening(text: str, options: Options) -> int | None:
    """The option that a line begins with, by a letter set off or a phrase of its own; REFUSED if it cannot be."""
    match = _LETTER_LINE.fullmatch(text) if options.lettered else None
    if match and (not match[2] or match[2][0] not in "-–—"):
        index = options.letter(match[1])
        return REFUSED if index == BEYOND else _with_what_follows(index, text[match.end(1) :], options)
    phrase = _PHRASE.match(text)
    return options.whole(phrase.group()) if phrase else None


def _named_first(rest: str, options: Options) -> int | None:
    letter = rest[:1] if options.lettered and re.match(LETTER, rest) else ""
    by_text = _text_first(rest, options)
    if by_text is not None:  # "C major" is no C
        return by_text
    if letter and _stands_alone(letter, rest[1:]):
        index = options.letter(letter)
        return REFUSED if index == BEYOND else _with_what_follows(index, rest[1:], options)
    several = _SEVERAL.match(rest) if options.lettered else None
    if several and set(several.group()) <= set(options.letters) and _CLOSES.match(rest, several.end()):
        return REFUSED
    return None


def _stands_alone(letter: str, after: str) -> bool:
    """Whether a letter is one by itself and not a word's first, the article "A", "I" or a formula's."""
    if re.match(rf"[^\W{UNSPACED}]|['’]\w|-\w|\s*=", after):
        return False
    if _CLOSES.match(after):
        return True
    return not letter.islower() and (letter not in "AI" or _AFTER_A_OR_I.match(after) is not None)


def _with_what_follows(index: int, after: str, options: Options) -> int:
    """An option named by letter; REFUSED if a second letter or another option's text belongs to it."""
    more = _NEXT_LETTER.match(after)
    if more:
        second, rest = after[more.end()], after[more.end() + 1 :]
        # After a comma a letter may begin what is said of it: "C, A is short".
        belongs = not more[1] or not re.match(r"\s+\w", rest) or _AND_NEXT.match(rest)
        if belongs and _stands_alone(second, rest) and options.letter(second) not in (index, BEYOND):
            return REFUSED
    separator = _SEPARATOR.match(after)
    if not separator:
        return index
    beside = after[separator.end() :]
    sentence = beside[: end.start()] if (end := _SENTENCE_END.search(beside)) else beside
    own = options.folding.options[index].casefold()
    for text in (beside.split("\n", 1)[0], sentence, _BESIDE_ENDS.split(sentence)[0]):
        named = options.whole(text)
        if named not in (None, index) and not own.startswith(text.strip().casefold()):
            return REFUSED
    return index


def _text_first(rest: str, options: Options) -> int | None:
    """The option whose text begins there; REFUSED if another text or another's letter belongs to it."""
    found = [one for one in mentions(rest, options) if not one.is_letter]
    if not found or found[0].start != 0:
        return None
    first = found[0]
    other = next((one for one in found[1:2] if one.option != first.option), None)
    if other and _NEXT_TEXT.fullmatch(rest, first.end, other.start):
        return REFUSED
    beside = _IN_BRACKETS.match(rest, first.end) if options.lettered else None
    return REFUSED if beside and options.letter(beside[1]) != first.option else first.option
