"""What is wrong with a matrix: its datasets, its decodings, its limits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from forgetbench.compose.checks.problem import Problem, at_least_1, duplicates, raised_problem
from forgetbench.config import MatrixConfig
from forgetbench.core.errors import UserError
from forgetbench.core.override_text import as_text
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.probe import check_probe


def matrix_problems(matrix: MatrixConfig, catalogue: Catalogue) -> Iterator[Problem]:
    """What is wrong with a matrix on its own."""
    if not matrix.datasets:
        yield Problem("matrix.datasets", "empty, so nothing to score; list names of manifests.")
    yield from duplicates("matrix.datasets", matrix.datasets)
    for name in matrix.datasets:
        yield from raised_problem("matrix.datasets", partial(check_evaluation_split, catalogue, name))
    if not matrix.decodings:
        yield Problem("matrix.decodings", "empty, so nothing to score; give [choice], [greedy] or both.")
    yield from duplicates("matrix.decodings", matrix.decodings)
    yield from at_least_1("matrix.limit", matrix.limit)
    yield from _skip(matrix)
    yield from at_least_1("matrix.batch_size", matrix.batch_size)
    for name in matrix.class_probe:
        yield from raised_problem("matrix.class_probe", partial(_check_probed_set, catalogue, name))
        if name not in matrix.datasets:
            yield Problem(
                "matrix.class_probe",
                f"'{name}' is compared with itself without the class name; list it under matrix.datasets too.",
            )
    yield from duplicates("matrix.class_probe", matrix.class_probe)
    yield from _sampling(matrix)
    yield from _representation(matrix)
    yield from _answer_lengths(matrix)
    yield from at_least_1("matrix.reasoning.max_tokens", matrix.reasoning.max_tokens)
    for pair in matrix.reasoning.marks:
        if len(pair) != 2 or not all(mark.strip() for mark in pair) or pair[0] == pair[1]:
            yield Problem(
                "matrix.reasoning.marks", f"{pair} is no pair of two texts; expected such as [<think>,</think>]."
            )
    if any(step < 0 for step in matrix.steps):
        yield Problem("matrix.steps", f"{matrix.steps} holds a negative step.")


def _skip(matrix: MatrixConfig) -> Iterator[Problem]:
    for name, items in matrix.skip.items():
        yield from at_least_1(f"matrix.skip.{name}", items)
        if name not in matrix.datasets:
            yield Problem("matrix.skip", f"'{name}' is not scored; list it under matrix.datasets too.")


def _sampling(matrix: MatrixConfig) -> Iterator[Problem]:
    if not 0 < matrix.temperature < float("inf"):
        yield Problem("matrix.temperature", f"{matrix.temperature} is no temperature above 0; for 0, decode `greedy`.")
    if not 0 < matrix.top_p <= 1:
        yield Problem("matrix.top_p", f"{matrix.top_p} is not a probability above 0; give 1 to draw from all tokens.")
    for key in ("cache_gb", "feature_gb"):
        if getattr(matrix, key) < 0:
            yield Problem(f"matrix.{key}", f"{getattr(matrix, key)} is negative; give 0 or more.")


def _answer_lengths(matrix: MatrixConfig) -> Iterator[Problem]:
    key, caps = "matrix.max_new_tokens", matrix.max_new_tokens
    if caps is None:
        return
    by_set = caps if isinstance(caps, dict) else {"": caps}
    for name in by_set.keys() - {"", *matrix.datasets}:
        yield Problem(key, f"'{name}' is not scored; list it under matrix.datasets too.")
    for cap in {repr(cap): cap for cap in by_set.values()}.values():
        if isinstance(cap, bool) or not isinstance(cap, int) or cap < 1:
            yield Problem(
                key,
                f"{as_text(cap)} is not a number of tokens; give 1 or more, such as 64, or {{{_example(matrix)}: 64}}.",
            )


def _example(matrix: MatrixConfig) -> str:
    return matrix.datasets[0] if matrix.datasets else "my_set"


def _representation(matrix: MatrixConfig) -> Iterator[Problem]:
    key, settings = "matrix.representation", matrix.representation
    yield from at_least_1(f"{key}.images", settings.images)
    if settings.layers is not None:
        if not settings.layers:
            yield Problem(f"{key}.layers", f"empty; give null for five layers, or {key}.enabled=false for none.")
        yield from duplicates(f"{key}.layers", settings.layers)
    yield from duplicates(f"{key}.datasets", settings.datasets or ())
    for name in settings.datasets or ():
        if name not in matrix.datasets:
            yield Problem(f"{key}.datasets", f"'{name}' is not scored; list it under matrix.datasets too.")


def check_evaluation_split(catalogue: Catalogue, name: str) -> None:
    """Refuse a name without an evaluation split.

    Raises:
        UserError: says why not.
    """
    if ":" in name:
        raise UserError(
            f"'{name}' names a split; a matrix scores each dataset's eval_split, so name the dataset alone."
        )
    manifest = catalogue.load(name)
    if manifest.mixture or not manifest.eval_split:
        raise UserError(f"'{name}' has no evaluation split; it is for training only.")
    catalogue.leaves(name, manifest.eval_split)


def _check_probed_set(catalogue: Catalogue, name: str) -> None:
    check_evaluation_split(catalogue, name)
    check_probe(catalogue.load(name))
