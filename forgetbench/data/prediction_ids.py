"""Match the lines of a predictions file to items: by an id that both have, else by place.

Ids take precedence if the file has any, because lines merged from several processes are in no order. Lines that match
no item are counted and reported, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.data.prediction_layouts import ID_FIELDS, Answer


@dataclass(frozen=True)
class Match:
    """A file's lines, matched to items."""

    answers: Mapping[str, Answer]
    """The dataset's item id -> line."""
    unknown: Sequence[Answer]
    """Lines of no item."""
    matched_by: str
    """The field that they were matched by, or "place in the file"."""

    def key(self, answer: Answer) -> str:
        """The id or place by which a line names its item."""
        return answer.ids.get(self.matched_by, str(answer.place))


def match_items(
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
        other_ids: further ids of the items, by field; called if item ids only count items, or no id is known.

    Raises:
        UserError: the lines cannot be matched, or two lines belong to the same item.
    """
    fields = [name for name in ID_FIELDS if any(name in answer.ids for answer in answers)]
    has_places = answers[0].place is not None
    are_counted = list(items) == [str(place) for place in range(len(items))]
    names: Mapping[str, str] = dict(zip(items, items, strict=True))
    field, hits = _best_field(answers, fields, names)
    if fields and (are_counted or not hits):
        by_other_ids = _by_other_ids(answers, fields, other_ids())
        if by_other_ids[1]:
            field, hits, names = by_other_ids
            are_counted = False
    # If ids only count items, the file may count otherwise, for example from 1; places are counted from 0.
    if hits and (not has_places or hits == len(items) or not are_counted):
        return _by_id(path, answers, field, names, are_counted)
    if has_places or not fields:
        return _by_place(path, answers, items)
    first_id = next(answer.ids[field] for answer in answers if field in answer.ids)
    raise UserError(
        f"{path}: no `{field}` of its lines is an item's of the dataset: the first is '{first_id}', the dataset's "
        f"first is '{items[0]}'. Give each line its item's id, or leave ids out where the lines are in the dataset's "
        "order."
    )


def _best_field(answers: Sequence[Answer], fields: Sequence[str], names: Mapping[str, str]) -> tuple[str, int]:
    """The field with the most known ids (the first of equals), and the number of items they name."""
    hits = {field: len({answer.ids.get(field) for answer in answers} & names.keys()) for field in fields}
    best = max(fields, key=lambda field: hits[field], default="")
    return best, hits.get(best, 0)


def _by_other_ids(
    answers: Sequence[Answer], fields: Sequence[str], rows: Mapping[str, Mapping[str, str]]
) -> tuple[str, int, Mapping[str, str]]:
    """As `_best_field`, over further ids of the dataset's rows; also returns id -> item id of the best field."""
    best_match: tuple[str, int, Mapping[str, str]] = (fields[0], 0, {})
    for id_field in ID_FIELDS:
        values = [(ids[id_field], item) for item, ids in rows.items() if id_field in ids]
        names = dict(values)
        if len(names) == len(values):  # ids must be unique
            best = _best_field(answers, fields, names)
            best_match = max(best_match, (*best, names), key=lambda candidate: candidate[1])
    return best_match


def _by_id(path: Path, answers: Sequence[Answer], field: str, names: Mapping[str, str], are_counted: bool) -> Match:
    answer_of: dict[str, Answer] = {}
    unknown = []
    for answer in answers:
        if field not in answer.ids:
            raise UserError(f"{path}:{answer.line}: there is no `{field}`, by which the other lines name their items.")
        if answer.ids[field] not in names:
            unknown.append(answer)
        else:
            _add_answer(path, answer_of, names[answer.ids[field]], answer)
    if are_counted and unknown:
        raise UserError(
            f"{path}:{unknown[0].line}: item '{unknown[0].ids[field]}' of a dataset with {len(names)} items, which "
            "have no ids of their own and are counted from 0. The file counts otherwise, or is of another dataset or "
            "split; give the dataset's items an `id`, or count the lines from 0."
        )
    return Match(answer_of, unknown, field)


def _by_place(path: Path, answers: Sequence[Answer], items: Sequence[str]) -> Match:
    total = len(items)
    if answers[0].place is None and len(answers) != total:
        raise UserError(
            f"{path}: {len(answers)} lines, but the dataset has {total} items. Without ids, lines are matched by their "
            "order, so each item needs one. Add `id` to each line, or generate for the whole split."
        )
    answer_of: dict[str, Answer] = {}
    for line_index, answer in enumerate(answers):
        place = line_index if answer.place is None else answer.place
        if not 0 <= place < total:
            raise UserError(
                f"{path}:{answer.line}: item {place} of a dataset with {total} items (counted from 0). "
                "The file is of another dataset or split; check which one was run."
            )
        _add_answer(path, answer_of, items[place], answer)
    return Match(answer_of, (), "place in the file")


def _add_answer(path: Path, answer_of: dict[str, Answer], item: str, answer: Answer) -> None:
    first = answer_of.setdefault(item, answer)
    if first is not answer:
        raise UserError(
            f"{path}:{answer.line}: item '{item}' has a prediction on line {first.line} already; keep one of them."
        )
