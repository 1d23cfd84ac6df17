"""Find the predictions files of other programs and match them to our samples.

Files that do not match are refused, because a score from misaligned lines would look like any other score.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from forgetbench.core.errors import UserError, reason
from forgetbench.core.records import LETTERS, Decoding, Prediction, Sample
from forgetbench.data.layouts import chosen_rows
from forgetbench.data.manifest import Manifest
from forgetbench.data.prediction_ids import match_items
from forgetbench.data.prediction_layouts import Answer, read_answers, stated_ids
from forgetbench.scoring.folding import plain

MISMATCHES = 0.05
"""Share of a file's targets that may differ from ours: a few labels may be written otherwise, but misaligned lines
differ in most."""

MAX_LETTERS = 2**18
"""Longest reply, in characters; a model that thinks aloud for 64,000 tokens writes so many."""
_MOST_DIGITS = 18
"""Longest step number, in digits; tables hold 64-bit integers."""
_ROUNDING = 0.01
"""Largest accepted log-probability: sums in half precision may exceed 0 a little, probabilities exceed it by more."""

# Time stamps of lm-eval (isoformat, ":" as "-", no fraction at a whole second) and of lmms-eval.
_STAMP = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?|\d{8}_\d{6}"
# lm-eval puts its stamp at the end, lmms-eval in front.
_SAMPLES_FILE = re.compile(rf"(?:({_STAMP})_)?samples_(.+?)(?:_({_STAMP}))?")


@dataclass(frozen=True)
class ExternalCheckpoint:
    """A folder with the predictions of one checkpoint."""

    step: int
    name: str
    """The folder's name."""
    path: Path


@dataclass(frozen=True)
class ExternalPredictions:
    """A predictions file, read and matched."""

    decoding: Decoding
    predictions: Mapping[str, Prediction]
    """Sample id -> prediction, in the samples' order; of all samples unless `partial` was set."""
    kind: str
    """The layout."""
    notes: tuple[str, ...] = ()
    """Messages for the user: lines without an item, items without a line."""


def find_checkpoints(folder: Path) -> list[ExternalCheckpoint]:
    """The checkpoints in a folder of predictions, in step order; the base (step 0) may be absent.

    Raises:
        UserError: there is no checkpoint, a name has no step, or two have the same step.
    """
    expected = "Expected one subfolder per checkpoint: 'base', or a name that ends in the step, such as 'step_000100'."
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. {expected}")
    by_step: dict[int, ExternalCheckpoint] = {}
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({reason(error)}). {expected}") from error
    for path in (entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")):
        digits = re.search(rf"(?<![0-9])[0-9]{{1,{_MOST_DIGITS}}}$", path.name)
        if digits is None and path.name != "base":
            raise UserError(f"{folder}: '{path.name}' names no step. {expected} Rename it or move it away.")
        step = int(digits.group()) if digits else 0
        if step in by_step:
            raise UserError(
                f"{folder}: '{by_step[step].name}' and '{path.name}' are both step {step}; keep one of them."
            )
        by_step[step] = ExternalCheckpoint(step, path.name, path)
    if not by_step:
        raise UserError(f"{folder} has no subfolder. {expected}")
    return [by_step[step] for step in sorted(by_step)]


def find_file(checkpoint: Path, dataset: str) -> Path | None:
    """Find the newest file, by the time stamps in names, with a dataset's predictions; None if there is none.

    The file may be `<dataset>.jsonl`; `samples_<dataset>.jsonl`, with or without a time stamp, here or in a folder
    named by the model; or, in a folder `<dataset>`, `predictions.jsonl`, `generated_predictions.jsonl` or
    `samples_*.jsonl`.

    Raises:
        UserError: several match, and no time stamp decides.
    """
    plain_names = {(dataset,), (dataset, "predictions"), (dataset, "generated_predictions")}
    candidates: list[tuple[str, str, Path]] = []
    for path in sorted(file for depth in ("", "*/", "*/*/") for file in checkpoint.glob(f"{depth}*.jsonl")):
        folders = path.relative_to(checkpoint).parts[:-1]
        is_in_folder = folders[:1] == (dataset,)
        samples = _SAMPLES_FILE.fullmatch(path.stem)
        if samples and (is_in_folder or (samples[2] == dataset and len(folders) < 2)):
            candidates.append((re.sub(r"\D", "", samples[1] or samples[3] or ""), samples[2], path))
        elif (*folders, path.stem) in plain_names:
            candidates.append(("", dataset, path))
    stamps = sorted(stamp for stamp, _, _ in candidates)
    tasks = {task for _, task, _ in candidates}
    if len(candidates) > 1 and (len(tasks) > 1 or not stamps[0] or stamps[-1] == stamps[-2]):
        names = ", ".join(str(path.relative_to(checkpoint)) for _, _, path in candidates)
        raise UserError(f"{checkpoint}: each of these could be the predictions for '{dataset}': {names}. Keep one.")
    return max(candidates)[2] if candidates else None


def read_predictions(
    path: Path,
    samples: Sequence[Sample],
    whole: Sequence[Sample] | None = None,
    other_ids: Callable[[], Mapping[str, Mapping[str, str]]] = dict,
    partial: bool = False,
) -> ExternalPredictions:
    """Read a dataset's predictions file; predictions of items that are not among the samples are left out.

    Items are matched by any id that both sides have, else by their place in the full file of items.

    Args:
        path: JSON lines, in a layout of `prediction_layouts`.
        samples: the dataset's samples, or some of them.
        whole: all samples of the dataset, in file order; `samples` by default.
        other_ids: returns sample id -> field -> further id of the dataset's row.
        partial: accept that some samples have no prediction.

    Raises:
        UserError: a line is not readable, an item has no prediction or two, or targets show that items are misaligned.
    """
    all_samples = samples if whole is None else whole
    kind, answers = read_answers(path)
    match = match_items(path, answers, [sample.id for sample in all_samples], other_ids)
    answer_of = match.answers
    notes = []
    if match.unknown:
        first = match.unknown[0]
        notes.append(
            f"{path}: {len(match.unknown)} of {len(answers)} lines are of no item of the dataset, the first is line "
            f"{first.line} ({match.matched_by} '{match.key(first)}'); they are left out."
        )
    missing = [sample.id for sample in samples if sample.id not in answer_of]
    if missing:
        without = f"{path}: {len(missing)} of {len(samples)} items have no prediction, the first is '{missing[0]}' "
        if not partial or len(missing) == len(samples):
            raise UserError(
                f"{without}(matched by {match.matched_by}). Generate for the whole split, or correct the ids; "
                "partial=true scores what is there."
            )
        notes.append(
            f"{without}(matched by {match.matched_by}); scored are the {len(samples) - len(missing)} that have one."
        )
    pairs = [(sample, answer_of[sample.id]) for sample in samples if sample.id in answer_of]
    _check_targets(path, pairs)
    decoding = Decoding.greedy if isinstance(pairs[0][1].response, str) else Decoding.choice
    predictions = {sample.id: _prediction(path, decoding, sample, answer) for sample, answer in pairs}
    return ExternalPredictions(decoding, predictions, kind, tuple(notes))


def ids_of_rows(manifest: Manifest, split: str) -> dict[str, dict[str, str]]:
    """Item id -> field -> id, for all id fields in the rows of a split."""
    ids_of_item = {}
    for index, row in chosen_rows(manifest, split, None):
        ids = stated_ids(row)
        ids_of_item[ids.get("id", str(index))] = ids
    return ids_of_item


def _check_targets(path: Path, pairs: Sequence[tuple[Sample, Answer]]) -> None:
    """Refuse a file whose targets are not those of the items."""
    stated = [(sample, answer, _target_texts(answer.stated_target)) for sample, answer in pairs]
    mismatches = [(sample, answer) for sample, answer, texts in stated if texts and not texts & _accepted_texts(sample)]
    comparable = sum(bool(texts) for _, _, texts in stated)
    if len(mismatches) > MISMATCHES * comparable:
        sample, answer = mismatches[0]
        raise UserError(
            f"{path}: {len(mismatches)} of {comparable} targets are not the dataset's: the lines seem to be of other "
            f"items. The first: line {answer.line} says {answer.stated_target!r} for item '{sample.id}', whose answer "
            f"is '{sample.answer}'. Generate from the same file in the same order, or give ids. If the targets are "
            "only written in another way, leave the field out."
        )


def _target_texts(target: object) -> set[str]:
    """A target's normalised texts; empty if it states nothing."""
    if isinstance(target, str) and target.startswith("[") and target.endswith("]"):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            target = ast.literal_eval(target)  # lm-eval writes str() of a list of targets
    texts = target if isinstance(target, list) else [target]
    return {_normalise(text) for text in texts if text is not None} - {"", "none"}  # str(None) is a missing target


def _accepted_texts(sample: Sample) -> set[str]:
    """All normalised forms of an item's answer: text, letter, both, or index."""
    texts = [sample.answer, *sample.references]
    if (target := sample.target) is not None:
        letter, option = LETTERS[target : target + 1], sample.options[target]
        texts += [letter, option, f"{letter}. {option}", str(target)]
    return {_normalise(text) for text in texts}


def _normalise(text: object) -> str:
    return " ".join(plain(str(text)).split()).strip(" .()").casefold()


def _prediction(path: Path, decoding: Decoding, sample: Sample, answer: Answer) -> Prediction:
    response, n_candidates = answer.response, len(sample.candidates)
    location = f"{path}:{answer.line}: item '{sample.id}'"
    if isinstance(response, str) != (decoding is Decoding.greedy):
        raise UserError(f"{location}: text on some lines and log-probabilities on others; put them into two files.")
    if isinstance(response, str):
        if len(response) > MAX_LETTERS:
            raise UserError(
                f"{location}: a text of {len(response):,} characters, and a reply may have {MAX_LETTERS:,}."
            )
        # JSON can hold a lone surrogate, which our files cannot.
        return Prediction(text=response.encode("utf-8", "replace").decode("utf-8"))
    if len(response) != n_candidates:
        expected = f"{n_candidates} candidates" if n_candidates else "an open question, which has no candidates"
        raise UserError(
            f"{location}: {len(response)} log-probabilities for {expected}; give one for each candidate, in order."
        )
    if any(math.isnan(logprob) or logprob > _ROUNDING for logprob in response):
        raise UserError(f"{location}: {list(response)} are no log-probabilities; expected numbers of at most 0.")
    if max(response) == -math.inf:
        raise UserError(
            f"{location}: all its log-probabilities are -Infinity, so none of the candidates is the likeliest."
        )
    return Prediction(option_logprobs=response)
