"""Score predictions: the parsed answer, whether it is right, and its score in the dataset's metric."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from forgetbench.core.records import THOUGHT_MARKS, AnswerKind, Metric, Prediction, Sample
from forgetbench.scoring.anls import anls
from forgetbench.scoring.boxes import box_match
from forgetbench.scoring.choice import likeliest, parse_choice, parse_option
from forgetbench.scoring.cider import cider_d
from forgetbench.scoring.containment import contains_match, lenient_match, mutual_match
from forgetbench.scoring.exact import open_match
from forgetbench.scoring.relaxed import relaxed_match
from forgetbench.scoring.reply import Marks, answer_part
from forgetbench.scoring.science import letter_match, science_match
from forgetbench.scoring.verbatim import caseless_match, compact_match
from forgetbench.scoring.vqa import vqa_accuracy

_Scorer = Callable[[Sequence[str], Sequence[Sample]], Sequence[float]]
"""(Texts of the model, items) -> a score per item."""


@dataclass(frozen=True)
class Answer:
    """One prediction, scored."""

    parsed: str | None
    """A candidate, or open text; None if no rule could read an answer."""
    correct: bool | None
    """None if the metric has more values than right and wrong."""
    score: float
    """Score of the metric; 0 if no answer could be read."""
    cut_off: bool | None = None
    """Whether the reply was cut off, or is a thought that never ends; None if there is no text."""


def score_answers(
    samples: Sequence[Sample], predictions: Sequence[Prediction], metric: Metric, marks: Marks = THOUGHT_MARKS
) -> list[Answer]:
    """Score one dataset's predictions.

    Args:
        samples: the items.
        predictions: one per item.
        metric: of open answers; items with candidates are right or wrong.
        marks: begin and end marks of thoughts.
    """
    replies = [_reply(sample, prediction, marks) for sample, prediction in zip(samples, predictions, strict=True)]
    parsed = [read_answer(*inputs) for inputs in zip(samples, predictions, replies, strict=True)]
    cut_off = [
        None if prediction.text is None else reply is None or bool(prediction.cut_off)
        for prediction, reply in zip(predictions, replies, strict=True)
    ]
    if not samples or samples[0].kind is not AnswerKind.text:
        right = [answer == sample.answer for answer, sample in zip(parsed, samples, strict=True)]
        return [Answer(answer, hit, float(hit), cut) for answer, hit, cut in zip(parsed, right, cut_off, strict=True)]
    given = _OPEN[metric]([answer or "" for answer in parsed], samples)
    return [
        Answer(answer, score if isinstance(score, bool) else None, float(score), cut)
        for answer, score, cut in zip(parsed, given, cut_off, strict=True)
    ]


def read_answer(sample: Sample, prediction: Prediction, reply: str | None) -> str | None:
    """The answer in a prediction: a candidate, or open text; None if no rule could read it.

    Args:
        sample: the item.
        prediction: of the item.
        reply: text without the thought; None if there is only a thought.
    """
    if prediction.option_logprobs is not None:
        return sample.candidates[likeliest(prediction.option_logprobs)]
    if sample.kind is AnswerKind.text or not reply:
        return reply or None
    parse = parse_choice if sample.kind is AnswerKind.letter else parse_option
    index = parse(reply, sample.options)
    return None if index is None else sample.candidates[index]


def _reply(sample: Sample, prediction: Prediction, marks: Marks) -> str | None:
    return answer_part(prediction.text or "", marks, {*sample.options, *sample.references})


@cache
def rules_digest() -> str:
    """Digest of this package's source: answers that were stored with other rules are scored again."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _each(score: Callable[[str, Sequence[str]], float]) -> _Scorer:
    """Apply a metric of one item to each item; a metric that returns bools has only right and wrong."""
    return lambda texts, samples: [score(text, sample.references) for text, sample in zip(texts, samples, strict=True)]


def _corpus(texts: Sequence[str], samples: Sequence[Sample]) -> Sequence[float]:
    return cider_d(texts, [sample.references for sample in samples])


def _science(texts: Sequence[str], samples: Sequence[Sample]) -> Sequence[float]:
    pairs = zip(texts, samples, strict=True)
    return [science_match(text, sample.references, sample.prompt) for text, sample in pairs]


_OPEN: Mapping[Metric, _Scorer] = {
    Metric.accuracy: _each(open_match),
    Metric.vqa_accuracy: _each(vqa_accuracy),
    Metric.anls: _each(anls),
    Metric.relaxed_accuracy: _each(relaxed_match),
    Metric.caseless_match: _each(caseless_match),
    Metric.compact_match: _each(compact_match),
    Metric.contains_match: _each(contains_match),
    Metric.lenient_match: _each(lenient_match),
    Metric.mutual_match: _each(mutual_match),
    Metric.letter_match: _each(letter_match),
    Metric.science_match: _science,
    Metric.box_match: _each(box_match),
    Metric.cider_d: _corpus,
}
