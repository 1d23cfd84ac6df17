"""Contents of a report, gathered before a page or figure is drawn: plain records and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class ReportTables:
    """The CSVs of every run that is shown, end to end; empty frames with their columns where a run has none.

    Each also has the column `recipe`: the name shared by runs that differ in nothing but the seed, and all but
    `train` have `replay`: how many items of every earlier task were repeated. `strategies` has neither: its rows
    cover many recipes.
    """

    scores: pd.DataFrame
    matrix: pd.DataFrame
    summary: pd.DataFrame
    representation: pd.DataFrame
    train: pd.DataFrame
    """train.csv with `run`, `recipe` and `seed` before the other columns."""
    seeds: pd.DataFrame
    """seeds.csv: a row per recipe, quadrant and decoding, with the error between items and between seeds."""
    continual: pd.DataFrame = field(default_factory=pd.DataFrame)
    """continual.csv of the runs of several tasks."""
    strategies: pd.DataFrame = field(default_factory=pd.DataFrame)
    """strategies.csv: a row per strategy, decoding and measure of continual learning."""
    search: pd.DataFrame = field(default_factory=pd.DataFrame)
    """search.csv: a row per point of a search; and, of its front, front.csv."""
    front: pd.DataFrame = field(default_factory=pd.DataFrame)
    guard: pd.DataFrame = field(default_factory=pd.DataFrame)
    """guard.csv of the runs that were held to a budget of forgetting."""
    drift: pd.DataFrame = field(default_factory=pd.DataFrame)
    """drift.csv: a row per checkpoint with the drift on the target's items and the loss elsewhere."""


@dataclass(frozen=True)
class RunFacts:
    """Facts about a run besides its scores."""

    name: str
    recipe: str
    command: str
    """A shell line that trains it again."""
    config: str
    """The whole configuration as YAML."""
    environment: Mapping[str, Any]
    """Versions, revision, threads, device."""
    audit: Mapping[str, Any]
    """`label`, `trainable`, `total` and `parts` -> {`total`, `trainable`}, as run.json has them; empty for a base."""
    train_seconds: float | None
    samples_per_s: float | None
    peak_memory_mb: float | None
    eval_seconds: float | None
    """Seconds of inference, summed over the cells in this run's tables."""
    guard: str = ""
    """How it ended, if it was held to a budget of forgetting."""


@dataclass(frozen=True)
class Answer:
    """A checkpoint's answer."""

    text: str
    """The written reply, or the likeliest option."""
    is_right: bool
    is_parsed: bool
    probabilities: tuple[float, ...] | None
    """Of the options, in their order, summing to 1; None where text was written."""


@dataclass(frozen=True)
class Flip:
    """An item whose answer changed or could not be parsed, or that was answered with the class name."""

    run: str
    recipe: str
    checkpoint: str
    dataset: str
    quadrant: str
    """One of records.QUADRANTS, or empty: the class-label probe and sets in no quadrant."""
    decoding: str
    sample_id: str
    image: str
    """Key into `ReportContents.pictures`; empty for none."""
    question: str
    options: tuple[str, ...]
    target: str
    class_option: int | None
    """Index of the option that is the pictured object's class name (the probe)."""
    before: Answer
    after: Answer
    kinds: tuple[str, ...]
    """Any of FLIP_KINDS, at least one."""


FLIP_KINDS = ("forgotten", "gained", "mischoice", "unparsed")


@dataclass(frozen=True)
class LeakRow:
    """Evaluation pictures that a training set of some run shows again."""

    dataset: str
    trained_on: str
    """Names of the training sets, joined by commas."""
    n_pictures: int
    identical: int
    near: int
    note: str
    """Such as the reason why it could not be checked; may be empty."""


@dataclass(frozen=True)
class Recommendation:
    """Which recipe to take, in words, with the evidence."""

    headline: str
    evidence: Sequence[str]
    """Sentences."""


@dataclass(frozen=True)
class ReportContents:
    """Everything on the page."""

    title: str
    """Name of the run or sweep."""
    is_sweep: bool
    tables: ReportTables
    runs: Sequence[RunFacts]
    recommendation: Recommendation | None
    flips: Sequence[Flip]
    n_flips: int | None
    """How many there are; `flips` may hold fewer, drawn evenly over datasets, checkpoints and kinds. None where nothing
    trained could be compared with a base."""
    pictures: Mapping[str, str]
    """Key -> data URI."""
    leaks: Sequence[LeakRow]
    command: str
    """The shell line that makes this report again."""
    notes: Sequence[str] = ()
    """What is left out of the page, and why."""
    refresh_s: int | None = None
    """Seconds after which the page loads itself again, while a run goes on."""
