"""Two encodings of one conversation, token by token: where their tokens differ, and where only their losses do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

IGNORED = -100
CONTEXT = 3
"""Equal tokens shown on either side of a difference."""


@dataclass(frozen=True)
class Encoding:
    """One conversation as a program trains on it."""

    tokens: tuple[str, ...]
    trained: tuple[bool, ...]
    """Whether there is a loss on each token."""

    @classmethod
    def of(cls, ids: Sequence[int], labels: Sequence[int], name: Callable[[int], str]) -> Encoding:
        """From token ids and labels.

        Args:
            ids: of the tokens.
            labels: the same ids, or `IGNORED` where there is no loss.
            name: what a token id stands for.
        """
        wrong = [place for place, pair in enumerate(zip(ids, labels, strict=True)) if pair[1] not in (pair[0], IGNORED)]
        if wrong:
            raise ValueError(f"the labels at {wrong} are of other tokens")
        return cls(tuple(map(name, ids)), tuple(label != IGNORED for label in labels))


@dataclass(frozen=True)
class Difference:
    """A stretch in which two encodings of one conversation differ."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    before: tuple[str, ...]
    """The equal tokens before it; none at the beginning."""
    after: tuple[str, ...]
    trained: str = ""
    """If the tokens are the same: the only side with a loss on them, `ours` or `theirs`."""

    @property
    def shown(self) -> tuple[str, str]:
        """Both sides with context, the stretch in brackets, and the loss if only that differs."""
        sides = [" ".join([*self.before, f"[{' '.join(side)}]", *self.after]) for side in (self.ours, self.theirs)]
        sides = [side.replace("\n", "\\n").replace("\t", "\\t") for side in sides]
        if self.trained:
            words = ("with a loss", "without") if self.trained == "ours" else ("without", "with a loss")
            sides = [f"{side} {word}" for side, word in zip(sides, words, strict=True)]
        return sides[0], sides[1]

    @property
    def pair(self) -> tuple[str, str]:
        """Either side as one text, tokens in a row."""
        return "".join(self.ours), "".join(self.theirs)


def differences(ours: Encoding, theirs: Encoding, first: str = "") -> list[Difference]:
    """Every stretch in which tokens or, where those agree, losses differ; in order.

    Args:
        ours: one encoding.
        theirs: the other.
        first: a token that is a separate stretch if only ours begins with it.
    """
    if first and ours.tokens[0] == first and theirs.tokens[0] != first:
        rest = Encoding(ours.tokens[1:], ours.trained[1:])
        return [_at(ours, 0, 1, ()), *differences(rest, theirs)]
    stretches = []
    matcher = SequenceMatcher(None, ours.tokens, theirs.tokens, autojunk=False)
    for kind, start, end, their_start, their_end in matcher.get_opcodes():
        if kind != "equal":
            stretches.append(_at(ours, start, end, theirs.tokens[their_start:their_end]))
            continue
        losses = zip(ours.trained[start:end], theirs.trained[their_start:their_end], strict=True)
        for begun, ended, (our_loss, their_loss) in _runs(list(losses)):
            if our_loss != their_loss:
                span = start + begun, start + ended
                stretches.append(_at(ours, *span, ours.tokens[slice(*span)], "ours" if our_loss else "theirs"))
    return stretches


def _at(ours: Encoding, start: int, end: int, theirs: tuple[str, ...], trained: str = "") -> Difference:
    tokens = ours.tokens
    return Difference(
        tokens[start:end], theirs, tokens[max(0, start - CONTEXT) : start], tokens[end : end + CONTEXT], trained
    )


def _runs(values: Sequence[tuple[bool, bool]]) -> Iterator[tuple[int, int, tuple[bool, bool]]]:
    """Stretches of equal values: where they begin and end."""
    for value, places in groupby(range(len(values)), key=values.__getitem__):
        first, *rest = places
        yield first, (rest or [first])[-1] + 1, value
