"""The words and signs by which a reply says which answer it gives, in several languages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from forgetbench.scoring.mentions import is_taken

_LOOSE = r"[\s*_`\"'“”‘’«»]*"
"""Blanks and markup between the words of a statement."""

_NOUN = {
    "en": r"\b(?:answer|ans|option|choice|selection|pick)\b",
    "de": r"\b(?:antwort|lösung|option|wahl|auswahl)\b",
    "fr": r"\b(?:réponse|reponse|choix)\b",
    "es": r"\b(?:respuesta|opción|opcion|alternativa)\b",
    "pt": r"\b(?:resposta|opção|opcao|alternativa)\b",
    "it": r"\b(?:risposta|opzione|scelta)\b",
    "nl": r"\b(?:antwoord|optie|keuze)\b",
    "ru": r"\b(?:ответ|вариант|выбор)\b",
}
_IS = {
    "en": r"\b(?:is|are|was|would\s+be|should\s+be|must\s+be|will\s+be|could\s+be|may\s+be|might\s+be|be|being"
    r"|seems\s+to\s+be|appears\s+to\s+be|remains|becomes)\b",
    "de": r"\b(?:ist|lautet|wäre|heißt|sollte|bleibt)\b",
    "fr": r"\b(?:est|serait|sera|doit\s+être)\b",
    "es": r"\b(?:es|sería|seria|será|debe\s+ser)\b",
    "pt": r"\b(?:é|seria|será|deve\s+ser)(?!\w)",
    "it": r"\b(?:è|sarebbe|deve\s+essere)(?!\w)",
    "nl": r"\b(?:is|luidt|zou)\b",
    "ru": r"(?:-|—|\bэто\b|\bбудет\b)",
}
_SIGN = r"[:：=]|(?:-|–|—|->|→|⇒)(?=\s|\*)"

# What may stand between the noun and the verb: "the answer to this question is", "the option that fits best is".
_BETWEEN = r"[^.!?\n:：。]{0,120}?"

_TIGHT = "|".join(f"{_NOUN[language]}{_LOOSE}(?:{_SIGN}|{_IS[language]}(?:{_LOOSE}:)?)" for language in _NOUN)
_WIDE = "|".join(f"{_NOUN[language]}{_BETWEEN}(?:{_IS[language]}(?:{_LOOSE}:)?|:)" for language in _NOUN)
_AS_VERB = (
    r"\b(?:i|we)(?:['’](?:d|ll|m|ve))?(?:\s+(?:would|will|have|must|should|can|therefore|thus|am|going|to)){0,3}\s+"
    r"(?:choose|chose|chosen|select|selected|pick|picked|go\s+with|went\s+with|going\s+with|opt\s+for|opted\s+for"
    r"|answer|vote\s+for)\b"
    r"|\bich\s+(?:wähle|nehme|entscheide\s+mich\s+für)\b|\bje\s+(?:choisis|sélectionne)\b"
    r"|\b(?:yo\s+)?(?:elijo|escojo|selecciono)\b|\b(?:eu\s+)?escolho\b|\bscelgo\b|\bя\s+выбираю\b"
)
# Of many empty lines only the first is tried: those after it would say the same, and take long.
_AS_HEADING = (
    r"(?m:^)(?!(?<=\n\n)\n)[\s#*_]*+(?:(?:final|correct|best|my|the)\s+)*(?:answer|antwort|réponse|respuesta)[\s*_]*\n+"
)
_AS_PREFIX = r"(?<!\w)(?:final\s+)?(?:answer|ans|choice)\b\.?(?=\s+[(\[*]{0,3}[A-Z][)\]*]{0,3}(?:[.,;:]|\s*(?:\n|$)))"
# "it is option C", "which corresponds to option C".
_AS_MATCH = (
    r"\b(?:is|be|with|select|choose|pick|match(?:es|ed|ing)?|correspond(?:s|ing)?\s+to|closest\s+to|therefore,?|thus,?|so|hence,?)"
    r"\s+(?:the\s+)?(?:option|choice)\b(?=[\s*_(\[]*[A-Za-z](?![A-Za-z]))"
)
_RICHTIG = r"\b(?:richtig|korrekt|correcto|correcta|correct|corretto)\s+(?:ist|es|est|è|is)\b"
_IN_CHINESE = (
    r"(?:答案|正解|[选選][项項](?![:：]\s*\n)|结论|結論)(?:应该|應該|应当|應當|应|應|就|选择|選擇)*(?:是|为|為|选|選|】|[:：])+[:：]?"
    r"|(?<![不未没沒别別勿])(?:故|应|應|应该|應該|所以|因此|就|我)?[选選](?:择|擇|取)?[:：]?(?=[^\S\n]*[\"“(（\[【*]*[A-ZＡ-Ｚa-zａ-ｚ])"
)
_IN_JAPANESE = r"(?:答え|答|正解|解答|回答|選択肢)(?:は|が|として|[:：]|】)+[、,]?"
_IN_KOREAN = r"(?:정답|답|답변|선택지)(?:은|는|이|[:：])+"

_WORDS = re.compile(
    f"(?i:{_TIGHT}|(?P<wide>{_WIDE})|{_AS_VERB}|{_AS_HEADING}|{_RICHTIG}|{_AS_MATCH})|{_AS_PREFIX}"
    f"|{_IN_CHINESE}|{_IN_JAPANESE}|{_IN_KOREAN}"
)
_HYPOTHETICAL = re.compile(
    r"\b(?:if|whether|unless|suppose|supposing|assume|assuming|why|wenn|falls|ob|si|se)\b[^.!?\n,]{0,30}$|如果$|若$",
    re.I,
)
_ENCLOSED = re.compile(
    r"<(answer|final_answer|ans|choice)>(.*?)(?:</\1>|\Z)|<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|\Z)", re.I | re.S
)
_BOXED = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_NONE = re.compile(
    r"\b(?:can(?:not|['’]t|\s+not)|could\s+not|couldn['’]t|unable\s+to|(?:im|not\s+)possible\s+to|difficult\s+to)\s+(?:\w+\s+){0,2}?"
    r"(?:determine[d]?|answer(?:ed)?|provide[d]?|say|tell|decide[d]?|conclude[d]?|choose|select|identify|identified)\b"
    r"|\b(?:none|neither|no\s+one)\s+of\s+(?:(?:the|these|those|them|available)\b(?!\s+(?:other|remaining|rest)))"
    r"|\b(?:not|isn['’]t|aren['’]t)\s+(?:\w+\s+)?(?:in|among|one\s+of|listed|available|provided|given|present|match\w*)\b"
    r"[^.\n]{0,20}\b(?:options?|choices?|answers?|list(?:ed)?)\b|\boptions?\s+(?:is|are)\s+not\s+(?:listed|available|given)\b"
    r"|\bno\s+(?:correct|right|matching|valid|exact|suitable|such)\s+(?:answer|option|choice)|\bmistake\s+in\s+the\b"
    r"|\bnot\s+enough\s+(?:information|data)|\binsufficient\s+(?:information|data)"
    r"|[无無没沒]有?(?:正确|正確)|(?:题目|題目)(?:本身)?(?:可能)?(?:存在|有)(?:错|錯|误|誤)|都不(?:在|正确|正確|对|對)|无法(?:确定|回答|判断|从)",
    re.IGNORECASE,
)
# "the value of x is (B)", "因此为 B。", "(option C)": said in passing, so it counts only if all such places agree.
_POINTS_AT = re.compile(r"(?i:\b(?:is|are|be|was)\b)\s*[*_]*[(\[]$|[是为為]\s*[*_]*[(（]$")
_POINTS = re.compile(
    r"(?i:\b(?:therefore|thus|hence)\b|所以|因此|故)[^.\n。]{0,200}?(?i:\b(?:is|be)\b|[:=：是为為])[\s*_$\\(（]*$"
    r"|[(（]\s*(?i:option|choice|选项|選項)\s*$|(?:\n|^)[\s*_$\\(\[]*$"
)
_CLOSED = re.compile(r"[\s*_$\\)）\]]*(?:[.。]|\n|$)")
_CONFIRMED = re.compile(
    r"[)\]}\"'“”’*_`）】]*\s*(?:"
    r"(?i:(?:is|was|must\s+be|would\s+be|seems|seems\s+to\s+be|appears\s+to\s+be)\s+(?:\w+\s+){0,2}?(?:the\s+|also\s+)?"
    r"(?:most\s+|only\s+|best\s+)?(?:correct|right|accurate|appropriate|suitable|best|answer)\b"
    r"|ist\s+(?:richtig|korrekt|die\s+richtige)\b|est\s+(?:correct|correcte|la\s+bonne)\b|es\s+(?:la\s+)?correct[ao]\b)"
    r"|(?:选项|選項|项|項)?\s*(?:是)?\s*(?:最)?(?:正确|正確|对的|對的|正解|合适|符合)"
    r"|\s*[がは]\s*(?:正解|正しい|答え)|\s*[가이]\s*(?:정답|맞)"
    r")"
)


_MAX_LENGTH = 500
"""Characters to read after a marker."""
_MAX_STATEMENTS = 50
"""Number of last statements to read, so that an endless repetition is read in time, too."""


@dataclass(frozen=True)
class Statement:
    """A place where a reply states its answer."""

    marker: int
    """Start of the marker."""
    start: int
    """Start of the content after the marker."""
    end: int
    """Latest end of the content."""
    is_enclosed: bool = False
    """Between marks, such as those of `\\boxed{}`: all that is there is the answer."""
    is_wide: bool = False
    """Other words stand between the noun and the verb: only what follows at once is stated."""


def find_statements(text: str) -> list[Statement]:
    """The last places with an explicit marker, in order."""
    marked = [
        Statement(match.start(), match.end(), _line_end(text, match.end()), is_wide=match["wide"] is not None)
        for match in _explicit_markers(text)
    ]
    for match in _ENCLOSED.finditer(text):
        group = 2 if match[2] is not None else 3
        marked.append(Statement(match.start(), match.start(group), match.end(group), True))
    marked += [
        Statement(match.start(), match.end(), _closing_brace(text, match.end()), True)
        for match in _BOXED.finditer(text)
    ]
    return sorted(marked, key=lambda statement: statement.start)[-_MAX_STATEMENTS:]


def is_confirmed(text: str, end: int) -> bool:
    """Whether the text that ends at `end` is called right: "B is correct", "选项C正确"."""
    return _CONFIRMED.match(text, end) is not None


def is_concluded(text: str, start: int, end: int) -> bool:
    """Whether a place is the conclusion of a sentence: "so x is B.", "x is (B)", or a separate line."""
    before = text[max(0, start - 250) : start]
    if _POINTS_AT.search(before):
        return True
    return _POINTS.search(before) is not None and _CLOSED.match(text, end) is not None


def says_no_answer(text: str, taken: Sequence[tuple[int, int]]) -> bool:
    """Whether a reply says, outside the places `taken` by options, that it has no answer or no option is right."""
    return any(not is_taken(*match.span(), taken) for match in _NONE.finditer(text))


def _explicit_markers(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while match := _WORDS.search(text, at):
        if not _HYPOTHETICAL.search(text[max(0, match.start() - 50) : match.start()]):
            yield match
        at = match.end()


def _line_end(text: str, at: int) -> int:
    """The end of the line at `at`, or of the next line with text."""
    blanks = re.compile(r"[\s*_`#>]*").match(text, at)
    start = blanks.end() if blanks else at
    stop = text.find("\n", start)
    return min(len(text) if stop < 0 else stop, start + _MAX_LENGTH)


def _closing_brace(text: str, at: int) -> int:
    """Position of the closing brace of the brace that opened before `at`."""
    depth = 1
    stop = min(len(text), at + _MAX_LENGTH)
    for place in range(at, stop):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return stop
