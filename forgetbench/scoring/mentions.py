"""Where a text names options, by letter or by text, and which of these are negated."""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from forgetbench.core.records import LETTERS
from forgetbench.scoring.folding import Folding, folding

BEYOND = -1
"""In place of an option's index: a letter after the last option's letter."""

# Scripts that are written without blanks: a letter or a word beside them counts as separate.
UNSPACED = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f"
# A character that would make a letter part of a word.
_WORD = rf"[^\W{UNSPACED}]"
LETTER = "[A-Za-zＡ-Ｚａ-ｚ]"
_CAPITAL = "[A-ZＡ-Ｚ]"
_ALONE_LEFT, _ALONE_RIGHT = rf"(?<!{_WORD})(?<!['’\\°º-])", rf"(?!{_WORD})(?!['’-])"

# Letters that their position marks as options, in either case: "(b)", "[b]", "option b.", a line's "b." or "b)".
_SET_OFF = re.compile(
    rf"(?<!{_WORD})[(\[（［【]\s*([A-ZＡ-Ｚ])\s*[)\]）］】]"
    rf"|(?<!{_WORD})[(\[（［【]([a-zａ-ｚ])[)\]）］】](?=\W*(?:\n|\Z))"
    rf"|(?i:\b(?:option|choice|answer|letter))\s+[(\[]?({LETTER})(?=[.:,;)\]]|\s*(?:\n|$))"
    rf"|(?m:^)[\s*_>#(\[-]*({LETTER})\s?[.:)\]）．：、](?!\w)"
    rf"|\A\s*({LETTER})\s*\Z"
)
# Capitals that stand alone, but not in "T-shirt", nor as the words "A" (dog) and "I" (think).
_FOLLOWS_A_LETTER = "and|or|because|since|is|as|was|would|could|can|which|with|for|but|based|due|who|not|isn"
_BARE = re.compile(
    rf"{_ALONE_LEFT}(?:([B-HJ-ZＡ-Ｚ])|([AI])(?![ \t]+(?!(?:{_CAPITAL}|{_FOLLOWS_A_LETTER})\b)\w)){_ALONE_RIGHT}"
    rf"(?!\s*[=+^<>≈∠])(?![(\[_{{])(?!\s[*/×÷]\s)(?!\s-\s(?:\d|\w\b))"
)
# Within a calculation neither letters nor numbers are answers: "A = P(1 + r)", "3 + 4".
_CALCULATION_BEFORE = re.compile(r"(?:[+*/×÷^<>]|\s-)\s*$")
_CALCULATION_AFTER = re.compile(r"\s*(?:[+*/×÷^<>=]|-\s?[\d(])")
# "not a shirt or a dress" negates both.
_OR = re.compile(r"[)\]\"'*_\s,]*\b(?:or|nor|oder|noch|ou|ni|o)\s+(?:(?:an?|the|option)\s+)*[\"'(\[*_]*", re.IGNORECASE)

_FILLER = r"(?:(?:an?|the|be|being|option|choice|answer|letter|either|la|le|el|die|der|das)\s+|[\"'(\[*_])*"
_BEFORE = re.compile(
    r"(?i:\b(?:not|never|neither|nor|without|cannot|except|eliminate[sd]?|eliminating|exclud(?:e|es|ed|ing)|reject"
    r"|rul(?:e|es|ed|ing)\s+out|rather\s+than|instead\s+of|other\s+than|unlike|nicht|kein|keine|weder|noch|pas|ni|non"
    r"|none\s+of\s+(?:the\s+)?(?:\w+\s+)?(?:options|choices|answers)(?:\s+(?:[A-Z]\s*(?:,|and|or|&)\s*)*)?)"
    rf"|n['’]t)\s+{_FILLER}$|(?:不是|不选|不選|并非|並非|排除|不为|非|아닌)\s*$"
)
_AFTER = re.compile(
    r"^[)\]\"'*_）]*\s*(?i:(?:is|are|was|were|would\s+be|seems?|can|could|must|should|looks?)\s+(?:\w+\s+){0,2}?"
    r"(?:not|wrong|incorrect|false|ruled\s+out|eliminated|excluded|rejected|invalid)\b"
    r"|(?:isn|aren|wasn|can|doesn|cannot|won|wouldn)['’]t\b|cannot\b|does\s+not\b|ist\s+(?:falsch|nicht)\b"
    r"|est\s+(?:faux|fausse)\b|n['’]est\s+pas\b|es\s+(?:incorrect[ao]|fals[ao])\b|no\s+es\b)"
    r"|^[)\]）]*\s*(?:选项|選項|项|項)?\s*(?:是|为|為)?\s*"
    r"(?:错|錯|不正确|不正確|不对|不對|不符|不是|[都均皆]不|ではな|じゃな|は誤|は間違|는 아니|가 아니)"
)


_ARTICLE = re.compile(r"\A(?:the|an?)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Mention:
    """One place where an option is named."""

    option: int
    """Index of the option, or BEYOND."""
    start: int
    end: int
    is_letter: bool
    negated: bool


@dataclass(frozen=True)
class Options:
    """An item's options, prepared for the search in replies."""

    folding: Folding
    lettered: bool
    """Whether letters name the options, too."""
    texts: tuple[int, ...]
    """Indices of options with a usable text: not empty, unique, and not one of the letters."""

    @property
    def letters(self) -> str:
        """The letters that name an option."""
        return LETTERS[: len(self.folding.options)] if self.lettered else ""

    def option_of_letter(self, text: str) -> int:
        """The option of a letter, full-width or not, in either case; BEYOND if there is none."""
        return self.letters.find(ascii_capital(text)) if ascii_capital(text) in self.letters else BEYOND

    def option_of_text(self, text: str) -> int | None:
        """The option that equals a folded text without blanks, brackets and article; None for none or a letter."""
        bare = text.strip(" \"'()[]{}_*.,;:!。")
        for form in (text, text.strip(" \"'()[]{}_*"), bare, _ARTICLE.sub("", bare)):
            index = self.folding.matching_option(form)
            if index in self.texts:
                return index
        return None


@lru_cache(maxsize=4096)
def build_options(options: tuple[str, ...], lettered: bool) -> Options:
    """Prepare the options of an item for the search in replies."""
    folded = folding(options)
    letters = set(LETTERS[: len(options)]) if lettered else set()
    texts = tuple(
        index
        for index, text in enumerate(folded.options)
        if text and folded.options.count(text) == 1 and text.upper() not in letters
    )
    return Options(folded, lettered, texts)


def ascii_capital(letter: str) -> str:
    """A letter as an ASCII capital: full-width letters are 65,248 places away."""
    return (chr(ord(letter) - 0xFEE0) if ord(letter) > 0x7F else letter).upper()


def find_mentions(text: str, options: Options) -> list[Mention]:
    """Places where a folded text names options, in order; a text inside a longer option's is not counted."""
    spans = [(index, start, end, False) for index, start, end in _by_text(text, options)]
    if options.lettered:
        taken = [(start, end) for _, start, end, _ in spans]  # in order, and none within another
        for pattern, is_capital in ((_SET_OFF, False), (_BARE, True)):
            for match in pattern.finditer(text):
                group = next(number for number, letter in enumerate(match.groups(), 1) if letter)
                start, end = match.span(group)
                index = options.option_of_letter(match[group])
                if is_taken(start, end, taken) or (is_capital and index == BEYOND):
                    continue
                insort(taken, (start, end))
                spans.append((index, start, end, True))
    placed: list[Mention] = []
    for span in sorted(spans, key=lambda place: place[1]):
        goes_on = bool(placed and placed[-1].negated and _OR.fullmatch(text, placed[-1].end, span[1]))
        placed.append(Mention(*span, goes_on or _is_negated(text, span[1], span[2])))
    return placed


def is_taken(start: int, end: int, taken: Sequence[tuple[int, int]]) -> bool:
    """Whether a place overlaps one of `taken`, which are sorted and disjoint; a binary search."""
    before = bisect_left(taken, (end,))
    return before > 0 and taken[before - 1][1] > start


def _by_text(text: str, options: Options) -> list[tuple[int, int, int]]:
    """(Option, start, end) of options' texts in a text; of several that begin at one place, the longest."""
    # Most replies contain one text or none: a pattern of only these is soon in the cache.
    folded = " ".join(text.split()).casefold()
    keys = options.folding.options
    present = [index for index in options.texts if keys[index].casefold() in folded]
    if not present:
        return []
    present.sort(key=lambda index: len(keys[index]), reverse=True)
    pattern = _any_of(tuple((keys[index], options.folding.caseless[index]) for index in present))
    return [
        (present[match.lastindex - 1], *match.span()) for match in pattern.finditer(text) if match.lastindex is not None
    ]


@lru_cache(maxsize=4096)
def _any_of(keys: tuple[tuple[str, bool], ...]) -> re.Pattern[str]:
    """Pattern of whole words or phrases with one group per key; the first key that fits wins."""
    return re.compile("|".join(f"({_whole_word(key, caseless)})" for key, caseless in keys))


def _whole_word(key: str, caseless: bool) -> str:
    body = re.escape(key).replace(r"\ ", r"\s+")
    # Word borders that also work for "t-shirt", "3.5", texts that end in a symbol and scripts without blanks.
    left = rf"(?<!{_WORD})(?<!-)(?<!\d[.,])" if not re.match(f"[{UNSPACED}]", key) else ""
    right = rf"(?!{_WORD})(?!-)(?![.,]\d)" if not re.search(f"[{UNSPACED}]$", key) else ""
    return f"{left}(?i:{body}){right}" if caseless else f"{left}{body}{right}"


def _is_negated(text: str, start: int, end: int) -> bool:
    return bool(_BEFORE.search(text[max(0, start - 60) : start]) or _AFTER.search(text[end : end + 60]))


def is_in_calculation(text: str, mention: Mention) -> bool:
    """Whether a letter or a number stands within a calculation."""
    named = text[mention.start : mention.end]
    if not (mention.is_letter or re.fullmatch(r"[-$€£]?\d[\d.,]*", named)):
        return False
    return bool(
        _CALCULATION_BEFORE.search(text[max(0, mention.start - 8) : mention.start])
        or _CALCULATION_AFTER.match(text, mention.end)
    )


def only_option(named: Sequence[Mention]) -> int | None:
    """The only option among mentions that are not negated; None for several, none, or a letter beyond the options."""
    left = {mention.option for mention in named if not mention.negated}
    return next(iter(left)) if len(left) == 1 and BEYOND not in left else None
