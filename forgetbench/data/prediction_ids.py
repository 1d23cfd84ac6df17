"""Which item each line of a file of predictions is of: by an id that both have, else by its place.

Ids decide wherever a file has some: lines that were merged from several processes are in no order. What matches nothing
is counted and said, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.data.prediction_layouts import ID_FIELDS, Answer


@dataclass(frozen=True)
class Match:
    """A file's lines by item."""

    answers: Mapping[str, Answer]
    """By the dataset's ids."""
    unknown: Sequence[Answer]
    """Lines of no item."""
    how: str
    """The field that they were matched by, or "place in the file"."""

    def key(self, answer: Answer) -> str:
        """What a line says its item is."""
        return answer.ids.get(self.how, str(answer.place))


def matched(
    path: Path,
    answers: Sequence[Answer],
    items: Sequence[str],
    other_ids: Callable[[], Mapping[str, Mapping[str, str]]],
) -> Match:
    """Find the item of every line.

    Args:
        path: the file, for messages.
        answers: its lines.
        items: ids of all items of the dataset, in file order.
        other_ids: further ids of the items, by field; asked for where items are only counted, or none is known.

    Raises:
        UserError: the lines cannot be matched, or two are of one item.
    """
    fields = [name for name in ID_FIELDS if any(name in answer.ids for answer in answers)]
    has_places = answers[0].place is not None
    counted = list(items) == [str(place) for place in range(len(items))]
    names: Mapping[str, str] = dict(zip(items, items, strict=True))
    field, hits = _best(answers, fields, names)
    if fields and (counted or not hits):
        other = _by_other_ids(answers, fields, other_ids())
        if other[1]:
            field, hits, names = other
            counted = False
    # Ids that only count items may be counted otherwise there, from 1 for example; a place is counted from 0.
    if hits and (not has_places or hits == len(items) or not counted):
        return _by_id(path, answers, field, names, counted)
    if has_places or not fields:
        return _by_place(path, answers, items)
    theirs = next(answer.ids[field] for answer in answers if field in answer.ids)
    raise UserError(
        f"{path}: no `{field}` of its lines is an item's of the dataset: the first is '{theirs}', the dataset's first "
        f"is '{items[0]}'. Give each line its item's id, or leave ids out where the lines are in the dataset's order."
    )


def _best(answers: Sequence[Answer], fields: Sequence[str], names: Mapping[str, str]) -> tuple[str, int]:
    """The field with the most ids that are known, the first of equals, and how many items they name."""
    hits = {field: len({answer.ids.get(field) for answer in answers} & names.keys()) for field in fields}
    best = max(fields, key=lambda field: hits[field], default="")
    return best, hits.get(best, 0)


def _by_other_ids(
    answers: Sequence[Answer], fields: Sequence[str], rows: Mapping[str, Mapping[str, str]]
) -> tuple[str, int, Mapping[str, str]]:
    """As `_best`, over ids that the dataset's rows have beside those that items go by; and these by what they name."""
    found: tuple[str, int, Mapping[str, str]] = (fields[0], 0, {})
    for own in ID_FIELDS:
        values = [(ids[own], item) for item, ids in rows.items() if own in ids]
        names = dict(values)
        if len(names) == len(values):  # an id that several rows share is none
            best = _best(answers, fields, names)
            found = max(found, (*best, names), key=lambda one: one[1])
    return found


def _by_id(path: Path, answers: Sequence[Answer], field: str, names: Mapping[str, str], counted: bool) -> Match:
    found: dict[str, Answer] = {}
    unknown = []
    for answer in answers:
        if field not in answer.ids:
            raise UserError(f"{path}:{answer.line}: there is no `{field}`, by which the other lines name their items.")
        if answer.ids[field] not in names:
            unknown.append(answer)
        else:
            _add(path, found, names[answer.ids[field]], answer)
    if counted and unknown:
        raise UserError(
            f"{path}:{unknown[0].line}: item '{unknown[0].ids[field]}' of a dataset with {len(names)} items, which "
            "have no ids of their own and are counted from 0. The file counts otherwise, or is of another dataset or "
            "split; give the dataset's items an `id`, or count the lines from 0."
        )
    return Match(found, unknown, field)


def _by_place(path: Path, answers: Sequence[Answer], items: Sequence[str]) -> Match:
    total = len(items)
    if answers[0].place is None and len(answers) != total:
        raise UserError(
            f"{path}: {len(answers)} lines, but the dataset has {total} items. Without ids, lines are matched by their "
            "order, so each item needs one. Add `id` to each line, or generate for the whole split."
        )
    found: dict[str, Answer] = {}
    for nth, answer in enumerate(answers):
        place = nth if answer.place is None else answer.place
        if not 0 <= place < total:
            raise UserError(
                f"{path}:{answer.line}: item {place} of a dataset with {total} items (counted from 0). "
                "The file is of another dataset or split; check which one was run."
            )
        _add(path, found, items[place], answer)
    return Match(found, (), "place in the file")


def _add(path: Path, found: dict[str, Answer], item: str, answer: Answer) -> None:
    first = found.setdefault(item, answer)
    if first is not answer:
        raise UserError(
            f"{path}:{answer.line}: item '{item}' has a prediction on line {first.line} already; keep one of them."
        )
