"""A recommendation in words, with its evidence."""

from __future__ import annotations

from collections.abc import Mapping

from forgetbench.core.confidence import ALPHA, CONFIDENCE_TEXT
from forgetbench.reporting.contents import Recommendation
from forgetbench.statistics.seeds import SeedEstimate
from forgetbench.statistics.significance import equivalence_p
from forgetbench.tables.comparison import Side, compare
from forgetbench.tables.recommendation import Candidate, Choice, Name, Rival
from forgetbench.tables.seeds import Pairs

MARGIN = 0.02
"""A change within two points counts as none (TOST)."""
_FEW = 4


def recommend(choice: Choice, recipes: Mapping[Name, Mapping[int | None, Pairs]], decoding: str) -> Recommendation:
    """Which recipe to take, or of a single recipe whether it has forgotten."""
    evidence = _method_sentences(choice, decoding)
    if len(choice.candidates) == 1:
        only_candidate = choice.candidates[0]
        return Recommendation(_verdict(only_candidate), [*_interaction(only_candidate, recipes, decoding), *evidence])
    if choice.best is None:
        return Recommendation("No recipe has learnt the target beyond its error, so none can be recommended.", evidence)
    tied = [rival for rival in choice.rivals if not rival.is_distinguishable]
    best = choice.best
    best_kept = max((best, *(rival.candidate for rival in tied)), key=lambda candidate: candidate.sources.value or 0.0)
    if not choice.rivals:
        headline = f"Only {_name(best)} has learnt the target beyond its error: {_changes_text(best)}."
    elif not tied:
        headline = f"Take {_name(best)}: {_changes_text(best)}, more in all than any other recipe that learnt."
    else:
        others = _shortened([_name(rival.candidate) for rival in tied])
        headline = (
            f"The data cannot tell {_name(best)} from {others}. "
            f"{_name(best)} has the largest total ({_changes_text(best)})"
        )
        headline += "." if best_kept is best else f"; {_name(best_kept)} keeps most ({_changes_text(best_kept)})."
    sentences = [
        f"{_name(best)}: {_changes_with_error(best)}.",
        *(_comparison_with_best(rival) for rival in choice.rivals[:_FEW]),
    ]
    if (best.total.value or 0.0) < 0:
        sentences.insert(
            0, "Even the best loses more elsewhere than it learns: the base as it was has the larger total."
        )
    if len(choice.rivals) > _FEW:
        worse = sum(rival.is_distinguishable for rival in choice.rivals)
        sentences.append(f"{worse} of the {len(choice.rivals)} other recipes that learnt are worse beyond the error.")
    unlearnt = [_name(candidate) for candidate in choice.candidates if not candidate.has_learnt]
    if unlearnt:
        sentences.append(f"Not learnt beyond the error: {_listed(unlearnt)}.")
    return Recommendation(headline, [*sentences, *evidence])


def _verdict(candidate: Candidate) -> str:
    """Whether a single recipe learnt and forgot."""
    learnt = "learnt its target" if candidate.has_learnt else "did not learn its target beyond the error"
    sources = candidate.sources
    p_same = equivalence_p(sources, MARGIN)
    if sources.ci_high is not None and sources.ci_high < 0:
        forgot = "and forgot elsewhere" if candidate.has_learnt else "but forgot elsewhere"
    elif p_same is not None and p_same < ALPHA:
        forgot = f"and did not forget elsewhere (within {100 * MARGIN:g} points)"
    elif sources.ci_low is not None and sources.ci_low > 0:
        forgot = "and gained elsewhere"
    else:
        forgot = "and the data cannot tell whether it forgot elsewhere"
    return f"{_name(candidate)} {learnt} {forgot}: {_changes_with_error(candidate)}."


def _interaction(candidate: Candidate, recipes: Mapping[Name, Mapping[int | None, Pairs]], decoding: str) -> list[str]:
    """The drop on OOD text minus the drop on ID text, for each kind of pictures."""
    seeds = recipes[candidate.name]
    sides = [
        Side(label, {seed: [pair[place] for pair in pairs] for seed, pairs in seeds.items()})
        for label, place in (("base", 1), ("last", 0))
    ]
    rows = compare(sides[0], sides[1], MARGIN)
    rows = rows[(rows["level"] == "interaction") & (rows["decoding"] == decoding)]
    rows = rows[rows["ci_high"] - rows["ci_low"] < 1]  # wider ones, of a few items, say nothing
    return [
        f"On {row['name']}: the drop on OOD text minus that on ID text is {_points(row['difference'])} "
        f"{_range(row['ci_low'], row['ci_high'])}."
        for row in rows.to_dict("records")
    ]


def _method_sentences(choice: Choice, decoding: str) -> list[str]:
    counts = {candidate.total.n_seeds for candidate in choice.candidates}
    lines = [
        f"Read by {decoding}; elsewhere is the mean of {_listed(list(choice.sources))}. A point learnt counts as much "
        f"as a point kept, recipes are compared on the same items, intervals are {CONFIDENCE_TEXT} and p-values "
        "Holm-adjusted."
    ]
    if counts == {1}:
        lines.append("One seed each: the error is that between items, and another training may differ by more.")
    else:
        seeds = (
            f"{_listed([str(n) for n in sorted(counts)])} seeds a recipe; errors are between items and between seeds"
        )
        lines.append(f"{seeds}{', pooled over recipes for those with one seed.' if 1 in counts else '.'}")
    if choice.left_out:
        lines.append(f"Asked other items, and left out: {_listed(list(choice.left_out))}.")
    return lines


def _comparison_with_best(rival: Rival) -> str:
    """How the best recipe's total compares."""
    difference = rival.difference
    p = "" if rival.p_holm is None else f", p {'< .001' if rival.p_holm < 0.001 else f'= {rival.p_holm:.3f}'}"
    word = "worse by" if rival.is_distinguishable else "cannot be told from the first, which has"
    total = "-" if difference.value is None else f"{100 * difference.value:.1f}"
    shown = f"{total} {_range(difference.ci_low, difference.ci_high)} points"
    more = "" if rival.is_distinguishable else " more"
    return f"{_name(rival.candidate)}: {_changes_with_error(rival.candidate)}; {word} {shown}{more} in all{p}."


def _changes_text(candidate: Candidate) -> str:
    return f"{_points(candidate.target.value)} on the target, {_points(candidate.sources.value)} elsewhere"


def _changes_with_error(candidate: Candidate) -> str:
    return f"{_with_error(candidate.target)} on the target, {_with_error(candidate.sources)} elsewhere"


def _with_error(estimate: SeedEstimate) -> str:
    return f"{_points(estimate.value)} {_range(estimate.ci_low, estimate.ci_high)}"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"


def _name(candidate: Candidate) -> str:
    return " + ".join(filter(None, candidate.name))


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def _shortened(names: list[str]) -> str:
    """The first names, and how many more."""
    return _listed(names if len(names) <= _FEW else [*names[: _FEW - 1], f"{len(names) - _FEW + 1} others"])
