"""Read the lines of a predictions file that another program wrote.

The layouts follow the programs' source code: lm-eval 0.4.13 and lmms-eval 0.7.3 (loggers/evaluation_tracker.py),
LLaMA-Factory 0.9.5 (train/sft/trainer.py, scripts/vllm_infer.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError, reason
from forgetbench.core.reading import json_lines

Row = dict[str, Any]

ID_FIELDS = ("id", "question_id", "sample_id", "doc_id")
"""Fields of item ids in programs and datasets, in order of preference."""
_PAIR = re.compile(r"\(\s*([^,()]+?)\s*,\s*(True|False)\s*\)")


@dataclass(frozen=True)
class Answer:
    """A model's answer to an item, from a line of the file."""

    line: int
    """Number of the line, from 1."""
    ids: Mapping[str, str]
    """Field -> the item's id; empty if the file has none."""
    place: int | None
    """Index of the item in the full file of items; None if the line does not give it."""
    response: str | tuple[float, ...]
    """The generated text, or a score per candidate."""
    stated_target: object
    """The target that the file states; None if it states none."""
    filter: str = ""
    """lm-eval repeats an item for each of a task's filters."""


def read_answers(path: Path) -> tuple[str, list[Answer]]:
    """The layout's name, and every item's answer under a single filter.

    Raises:
        UserError: a line fits no layout, or another layout than the lines before it; names the line.
    """
    kind, answers = "", []
    for line, row in json_lines(path):
        try:
            line_kind, read = _layout(row)
            kind = kind or line_kind
            if line_kind != kind:
                raise ValueError(f"this line's layout is {line_kind}, that of the lines before it {kind}")
            answers.append(read(row, line))
        except KeyError as error:
            raise UserError(f"{path}:{line}: field {error} is missing from a line of the layout {kind}.") from error
        except (ValueError, OverflowError) as error:
            raise UserError(f"{path}:{line}: {reason(error)}.") from error
    if not answers:
        raise UserError(f"{path} holds no predictions; expected one JSON object per line.")
    filters = [answer.filter for answer in answers]
    filter_name = "none" if "none" in filters else filters[0]  # the model's text is the same under each filter
    return kind, [answer for answer in answers if answer.filter == filter_name]


def _layout(row: Row) -> tuple[str, Callable[[Row, int], Answer]]:
    is_plain = "text" in row or "logprobs" in row
    if "doc_id" in row and not (is_plain and row.keys().isdisjoint(("filtered_resps", "resps"))):
        # lmms-eval replaces `arguments` by `input`.
        return ("lmms-eval", _lmms_eval) if "input" in row else ("lm-eval", _lm_eval)
    if "predict" in row:
        return "LLaMA-Factory", _llama_factory
    if is_plain:
        return "plain", _plain
    raise ValueError(
        f"the fields {', '.join(row) or '(none)'} are of no known layout; expected `id` (or `question_id`, "
        "`sample_id`, `doc_id`) with `text` or `logprobs`, or a line of lm-eval or lmms-eval (`doc_id`, "
        "`filtered_resps`) or of LLaMA-Factory (`predict`, `label`)"
    )


def stated_ids(row: Row) -> dict[str, str]:
    """The ids that a row has, by field."""
    return {name: str(row[name]) for name in ID_FIELDS if type(row.get(name)) in (str, int)}


def _plain(row: Row, line: int) -> Answer:
    text, logprobs = row.get("text"), row.get("logprobs")
    stated = row.get("target", row.get("label"))
    if isinstance(text, str) and logprobs is None:
        return Answer(line, stated_ids(row), None, text, stated)
    if text is None and isinstance(logprobs, list) and all(type(logprob) in (int, float) for logprob in logprobs):
        return Answer(line, stated_ids(row), None, tuple(map(float, logprobs)), stated)
    raise ValueError("give either `text`, a string, or `logprobs`, a list with a number for each candidate")


def _llama_factory(row: Row, line: int) -> Answer:
    if not isinstance(row["predict"], str):
        raise ValueError(f"`predict` must be a string, not {row['predict']!r}")
    return Answer(line, stated_ids(row), None, row["predict"], row.get("label"))


def _lm_eval(row: Row, line: int) -> Answer:
    """Read a line of lm-eval; with several processes, lines are not in the order of the items."""
    doc, place, filter_name = row.get("doc"), row["doc_id"], row.get("filter", "")
    if type(place) is not int:
        raise ValueError(f"`doc_id` must be the item's index in its dataset, not {place!r}")
    # A task's filter has extracted an answer from the text by other rules than ours; `resps` holds the whole text.
    order = ("filtered_resps", "resps") if filter_name in ("", "none") else ("resps", "filtered_resps")
    field = next((candidate for candidate in order if candidate in row), order[0])
    stated = {**stated_ids(row), **(stated_ids(doc) if isinstance(doc, dict) else {})}
    ids = {
        filter_name: value for filter_name, value in stated.items() if filter_name != "doc_id"
    }  # here it is the place
    return Answer(line, ids, place, _parse_responses(row[field], field), row.get("target"), filter_name)


def _lmms_eval(row: Row, line: int) -> Answer:
    """As lm-eval, but most models give a candidate's mean loss per token instead of a log-likelihood."""
    answer = _lm_eval(row, line)
    if isinstance(answer.response, tuple) and min(answer.response) >= 0:
        return replace(answer, response=tuple(-loss for loss in answer.response))
    return answer


def _parse_responses(value: object, field: str) -> str | tuple[float, ...]:
    """The text, or the candidates' scores, without the lists around them.

    lm-eval writes one entry per request (a candidate, or the prompt); in `resps` each entry is a list of repeats.
    lmms-eval drops the outer list if there is a single request.
    """
    entries = [_unwrap(entry) for entry in value] if isinstance(value, list) else []
    scores = [score for score in map(_score, entries) if score is not None]
    if len(scores) == len(entries) > 1:
        return tuple(scores)
    text = _unwrap(value)
    if isinstance(text, str):
        return text
    raise ValueError(
        f"`{field}` must hold one text, or a pair [log-likelihood, is_greedy] per candidate, not {str(value)[:80]!r}"
    )


def _unwrap(value: object) -> object:
    """Remove nested lists of one entry."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def _score(entry: object) -> float | None:
    """The first of a pair [log-likelihood, is_greedy]; lm-eval writes two strings, old versions one string."""
    if isinstance(entry, str) and (pair := _PAIR.fullmatch(entry)):
        entry = list(pair.groups())
    if not isinstance(entry, list) or len(entry) != 2 or str(entry[1]) not in ("True", "False"):
        return None
    return float(entry[0]) if isinstance(entry[0], str | int | float) else None
