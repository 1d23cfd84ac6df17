"""Predictions that were made elsewhere: find their files and match them to our samples.

What does not match is refused: a number from misaligned files looks like any other.
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
from forgetbench.data.prediction_ids import matched
from forgetbench.data.prediction_layouts import Answer, read_answers, stated_ids
from forgetbench.scoring.folding import plain

MISMATCHES = 0.05
"""Share of a file's targets that may differ from ours: a few labels may be written otherwise, misaligned ones are not
few."""

MAX_LETTERS = 2**18
"""Of a reply; a model that thinks aloud for 64,000 tokens writes so many."""
_MOST_DIGITS = 18
"""Of a step; tables hold whole numbers of 64 bits."""
_ROUNDING = 0.01
"""So far above 0 may a log-probability be that was summed in half precision; probabilities are further."""

# Time stamps of lm-eval (isoformat, ":" as "-", no fraction at a whole second) and of lmms-eval.
_STAMP = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?|\d{8}_\d{6}"
# lm-eval puts its stamp at the end, lmms-eval in front.
_SAMPLES_FILE = re.compile(rf"(?:({_STAMP})_)?samples_(.+?)(?:_({_STAMP}))?")


@dataclass(frozen=True)
class ExternalCheckpoint:
    """A folder with the predictions of one checkpoint."""

    step: int
    name: str
    """The folder's."""
    path: Path


@dataclass(frozen=True)
class ExternalPredictions:
    """One file, read and matched."""

    decoding: Decoding
    predictions: Mapping[str, Prediction]
    """By the ids of the samples, in their order; of all of them unless what is there was asked for."""
    kind: str
    """The layout."""
    notes: tuple[str, ...] = ()
    """What is to be said of it: lines of no item, items without a line."""


def find_checkpoints(folder: Path) -> list[ExternalCheckpoint]:
    """The checkpoints in a folder of predictions, in step order; the base (step 0) need not be there.

    Raises:
        UserError: there is none, a name has no step, or two have the same.
    """
    expected = "Expected one subfolder per checkpoint: 'base', or a name that ends in the step, such as 'step_000100'."
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. {expected}")
    found: dict[int, ExternalCheckpoint] = {}
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({reason(error)}). {expected}") from error
    for path in (one for one in entries if one.is_dir() and not one.name.startswith(".")):
        digits = re.search(rf"(?<![0-9])[0-9]{{1,{_MOST_DIGITS}}}$", path.name)
        if digits is None and path.name != "base":
            raise UserError(f"{folder}: '{path.name}' names no step. {expected} Rename it or move it away.")
        step = int(digits.group()) if digits else 0
        if step in found:
            raise UserError(f"{folder}: '{found[step].name}' and '{path.name}' are both step {step}; keep one of them.")
        found[step] = ExternalCheckpoint(step, path.name, path)
    if not found:
        raise UserError(f"{folder} has no subfolder. {expected}")
    return [found[step] for step in sorted(found)]


def find_file(checkpoint: Path, dataset: str) -> Path | None:
    """The file with a dataset's predictions, the newest by the time stamps in the names; None if there is none.

    It is `<dataset>.jsonl`; or `samples_<dataset>.jsonl`, time stamp or not, here or in a folder named by the model; or
    `predictions.jsonl`, `generated_predictions.jsonl` or any `samples_*.jsonl` in a folder `<dataset>`.

    Raises:
        UserError: several match, and no time stamp decides.
    """
    own = {(dataset,), (dataset, "predictions"), (dataset, "generated_predictions")}
    found: list[tuple[str, str, Path]] = []
    for path in sorted(one for depth in ("", "*/", "*/*/") for one in checkpoint.glob(f"{depth}*.jsonl")):
        folders = path.relative_to(checkpoint).parts[:-1]
        inside = folders[:1] == (dataset,)
        samples = _SAMPLES_FILE.fullmatch(path.stem)
        if samples and (inside or (samples[2] == dataset and len(folders) < 2)):
            found.append((re.sub(r"\D", "", samples[1] or samples[3] or ""), samples[2], path))
        elif (*folders, path.stem) in own:
            found.append(("", dataset, path))
    stamps = sorted(stamp for stamp, _, _ in found)
    tasks = {task for _, task, _ in found}
    if len(found) > 1 and (len(tasks) > 1 or not stamps[0] or stamps[-1] == stamps[-2]):
        names = ", ".join(str(path.relative_to(checkpoint)) for _, _, path in found)
        raise UserError(f"{checkpoint}: each of these could be the predictions for '{dataset}': {names}. Keep one.")
    return max(found)[2] if found else None


def read_predictions(
    path: Path,
    samples: Sequence[Sample],
    whole: Sequence[Sample] | None = None,
    other_ids: Callable[[], Mapping[str, Mapping[str, str]]] = dict,
    partial: bool = False,
) -> ExternalPredictions:
    """Read a file of predictions for a dataset; items that are not among the samples are left out.

    Items are matched by any id that both have, else by their place in the full file of items.

    Args:
        path: JSON lines, in a layout of `prediction_layouts`.
        samples: the dataset's, or some of them.
        whole: all of the dataset's, in file order; the samples by default.
        other_ids: further ids that the dataset's rows have, by field, for each sample's id.
        partial: take what is there, if it is not everything.

    Raises:
        UserError: a line is not readable, an item has no prediction or two, or targets show that items are misaligned.
    """
    every = samples if whole is None else whole
    kind, answers = read_answers(path)
    match = matched(path, answers, [sample.id for sample in every], other_ids)
    found = match.answers
    notes = []
    if match.unknown:
        first = match.unknown[0]
        notes.append(
            f"{path}: {len(match.unknown)} of {len(answers)} lines are of no item of the dataset, the first is line "
            f"{first.line} ({match.how} '{match.key(first)}'); they are left out."
        )
    missing = [sample.id for sample in samples if sample.id not in found]
    if missing:
        without = f"{path}: {len(missing)} of {len(samples)} items have no prediction, the first is '{missing[0]}' "
        if not partial or len(missing) == len(samples):
            raise UserError(
                f"{without}(matched by {match.how}). Generate for the whole split, or correct the ids; partial=true "
                "scores what is there."
            )
        notes.append(f"{without}(matched by {match.how}); scored are the {len(samples) - len(missing)} that have one.")
    pairs = [(sample, found[sample.id]) for sample in samples if sample.id in found]
    _check_targets(path, pairs)
    decoding = Decoding.greedy if isinstance(pairs[0][1].given, str) else Decoding.choice
    predictions = {sample.id: _prediction(path, decoding, sample, answer) for sample, answer in pairs}
    return ExternalPredictions(decoding, predictions, kind, tuple(notes))


def ids_of_rows(manifest: Manifest, split: str) -> dict[str, dict[str, str]]:
    """Every id that the rows of a split have, by field, for each id that an item goes by."""
    found = {}
    for index, row in chosen_rows(manifest, split, None):
        ids = stated_ids(row)
        found[ids.get("id", str(index))] = ids
    return found


def _check_targets(path: Path, pairs: Sequence[tuple[Sample, Answer]]) -> None:
    """Refuse a file whose targets are not those of the items."""
    stated = [(sample, answer, _stated(answer.stated)) for sample, answer in pairs]
    wrong = [(sample, answer) for sample, answer, texts in stated if texts and not texts & _accepted(sample)]
    comparable = sum(bool(texts) for _, _, texts in stated)
    if len(wrong) > MISMATCHES * comparable:
        sample, answer = wrong[0]
        raise UserError(
            f"{path}: {len(wrong)} of {comparable} targets are not the dataset's: the lines seem to be of other "
            f"items. The first: line {answer.line} says {answer.stated!r} for item '{sample.id}', whose answer is "
            f"'{sample.answer}'. Generate from the same file in the same order, or give ids. If the targets are only "
            "written in another way, leave the field out."
        )


def _stated(target: object) -> set[str]:
    """A target's texts, bare; none where it states nothing."""
    if isinstance(target, str) and target.startswith("[") and target.endswith("]"):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            target = ast.literal_eval(target)  # lm-eval writes str() of a list of targets
    texts = target if isinstance(target, list) else [target]
    return {_bare(text) for text in texts if text is not None} - {"", "none"}  # str(None), for want of a target


def _accepted(sample: Sample) -> set[str]:
    """Every way to state an item's answer, bare: text, letter, both, or index."""
    texts = [sample.answer, *sample.references]
    if (target := sample.target) is not None:
        letter, option = LETTERS[target : target + 1], sample.options[target]
        texts += [letter, option, f"{letter}. {option}", str(target)]
    return {_bare(text) for text in texts}


def _bare(text: object) -> str:
    return " ".join(plain(str(text)).split()).strip(" .()").casefold()


def _prediction(path: Path, decoding: Decoding, sample: Sample, answer: Answer) -> Prediction:
    given, n = answer.given, len(sample.candidates)
    where = f"{path}:{answer.line}: item '{sample.id}'"
    if isinstance(given, str) != (decoding is Decoding.greedy):
        raise UserError(f"{where}: text on some lines and log-probabilities on others; put them into two files.")
    if isinstance(given, str):
        if len(given) > MAX_LETTERS:
            raise UserError(f"{where}: a text of {len(given):,} characters, and a reply may have {MAX_LETTERS:,}.")
        # JSON can hold half a character, which no file of ours can.
        return Prediction(text=given.encode("utf-8", "replace").decode("utf-8"))
    if len(given) != n:
        expected = f"{n} candidates" if n else "an open question, which has no candidates"
        raise UserError(
            f"{where}: {len(given)} log-probabilities for {expected}; give one for each candidate, in order."
        )
    if any(math.isnan(one) or one > _ROUNDING for one in given):
        raise UserError(f"{where}: {list(given)} are no log-probabilities; expected numbers of at most 0.")
    if max(given) == -math.inf:
        raise UserError(
            f"{where}: all its log-probabilities are -Infinity, so none of the candidates is the likeliest."
        )
    return Prediction(option_logprobs=given)
