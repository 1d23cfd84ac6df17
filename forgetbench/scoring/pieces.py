"""Which option a piece of a reply names: the text after a marker, a whole line, or the beginning of a line."""

from __future__ import annotations

import re

from forgetbench.scoring.mentions import BEYOND, LETTER, UNSPACED, Options, find_mentions

REFUSED = -2
"""In place of an option's index: a letter beyond the options, a letter with another option's text, or two options."""

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


def match_after_marker(content: str, options: Options) -> int | None:
    """The option at the beginning of a statement's content; None if it begins with another word."""
    for lead in _LEADS:
        index = _match_first(content[lead_end(content, lead) :], options)
        if index is not None:
            return index
    return None


def first_sentence(content: str) -> str:
    """The content of a statement up to the end of its sentence."""
    end = _SENTENCE_END.search(content, lead_end(content, _LEADS[1]))
    return content[: end.end()] if end else content


def lead_end(content: str, lead: re.Pattern[str]) -> int:
    """End of leading markup and filler words."""
    match = lead.match(content)
    return match.end() if match else 0


def match_line(text: str, options: Options) -> int | None:
    """The option that a whole line names by letter, text or both; REFUSED if these contradict."""
    whole = options.option_of_text(text)
    if whole is not None:
        return whole
    for candidate in (text, text[lead_end(text, _BEFORE_AN_OPTION) :]):
        match = _LETTER_LINE.fullmatch(candidate) if options.lettered else None
        if match:
            index = options.option_of_letter(match[1])
            if not match[3]:
                return REFUSED if index == BEYOND else index
            named = options.option_of_text(match[3])
            if named is not None:
                return named if named == index else REFUSED
        whole = options.option_of_text(candidate)
        if whole is not None:
            return whole
    return None


def match_bare_letter(text: str, options: Options) -> int | None:
    """The option of a line that is only its letter; else None."""
    match = _LETTER_LINE.fullmatch(text) if options.lettered else None
    return options.option_of_letter(match[1]) if match and not match[3] else None


def match_line_start(text: str, options: Options) -> int | None:
    """The option at the beginning of a line, by a separated letter or a phrase; REFUSED if it is ambiguous."""
    match = _LETTER_LINE.fullmatch(text) if options.lettered else None
    if match and (not match[2] or match[2][0] not in "-–—"):
        index = options.option_of_letter(match[1])
        return REFUSED if index == BEYOND else _unless_contradicted(index, text[match.end(1) :], options)
    phrase = _PHRASE.match(text)
    return options.option_of_text(phrase.group()) if phrase else None


def _match_first(rest: str, options: Options) -> int | None:
    letter = rest[:1] if options.lettered and re.match(LETTER, rest) else ""
    by_text = _match_text(rest, options)
    if by_text is not None:  # "C major" is no C
        return by_text
    if letter and _is_bare_letter(letter, rest[1:]):
        index = options.option_of_letter(letter)
        return REFUSED if index == BEYOND else _unless_contradicted(index, rest[1:], options)
    several = _SEVERAL.match(rest) if options.lettered else None
    if several and set(several.group()) <= set(options.letters) and _CLOSES.match(rest, several.end()):
        return REFUSED
    return None


def _is_bare_letter(letter: str, after: str) -> bool:
    """Whether a letter stands alone: not the first of a word, the article "A", "I" or part of a formula."""
    if re.match(rf"[^\W{UNSPACED}]|['’]\w|-\w|\s*=", after):
        return False
    if _CLOSES.match(after):
        return True
    return not letter.islower() and (letter not in "AI" or _AFTER_A_OR_I.match(after) is not None)


def _unless_contradicted(index: int, after: str, options: Options) -> int:
    """An option named by letter; REFUSED if a second letter or another option's text belongs to it."""
    more = _NEXT_LETTER.match(after)
    if more:
        second, rest = after[more.end()], after[more.end() + 1 :]
        # After a comma a letter may begin an explanation: "C, A is short".
        belongs = not more[1] or not re.match(r"\s+\w", rest) or _AND_NEXT.match(rest)
        if belongs and _is_bare_letter(second, rest) and options.option_of_letter(second) not in (index, BEYOND):
            return REFUSED
    separator = _SEPARATOR.match(after)
    if not separator:
        return index
    beside = after[separator.end() :]
    sentence = beside[: end.start()] if (end := _SENTENCE_END.search(beside)) else beside
    option_text = options.folding.options[index].casefold()
    for text in (beside.split("\n", 1)[0], sentence, _BESIDE_ENDS.split(sentence)[0]):
        named = options.option_of_text(text)
        if named not in (None, index) and not option_text.startswith(text.strip().casefold()):
            return REFUSED
    return index


def _match_text(rest: str, options: Options) -> int | None:
    """The option whose text begins `rest`; REFUSED if another option's text or letter belongs to it."""
    by_text = [mention for mention in find_mentions(rest, options) if not mention.is_letter]
    if not by_text or by_text[0].start != 0:
        return None
    first = by_text[0]
    other = next((mention for mention in by_text[1:2] if mention.option != first.option), None)
    if other and _NEXT_TEXT.fullmatch(rest, first.end, other.start):
        return REFUSED
    beside = _IN_BRACKETS.match(rest, first.end) if options.lettered else None
    return REFUSED if beside and options.option_of_letter(beside[1]) != first.option else first.option
