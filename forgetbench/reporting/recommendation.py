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
    """What the figures say about which recipe to take, or whether a single one has forgotten."""
    evidence = _how(choice, decoding)
    if len(choice.candidates) == 1:
        only = choice.candidates[0]
        return Recommendation(_verdict(only), [*_interaction(only, recipes, decoding), *evidence])
    if choice.best is None:
        return Recommendation("No recipe has learnt the target beyond its error, so none can be recommended.", evidence)
    tied = [rival for rival in choice.rivals if not rival.can_be_told_apart]
    best = choice.best
    kept = max((best, *(rival.candidate for rival in tied)), key=lambda one: one.sources.value or 0.0)
    if not choice.rivals:
        headline = f"Only {_name(best)} has learnt the target beyond its error: {_short(best)}."
    elif not tied:
        headline = f"Take {_name(best)}: {_short(best)}, more in all than any other recipe that learnt."
    else:
        others = _few([_name(rival.candidate) for rival in tied])
        headline = (
            f"The data cannot tell {_name(best)} from {others}. {_name(best)} has the largest total ({_short(best)})"
        )
        headline += "." if kept is best else f"; {_name(kept)} keeps most ({_short(kept)})."
    sentences = [f"{_name(best)}: {_both(best)}.", *(_against(rival) for rival in choice.rivals[:_FEW])]
    if (best.total.value or 0.0) < 0:
        sentences.insert(
            0, "Even the best loses more elsewhere than it learns: the base as it was has the larger total."
        )
    if len(choice.rivals) > _FEW:
        worse = sum(rival.can_be_told_apart for rival in choice.rivals)
        sentences.append(f"{worse} of the {len(choice.rivals)} other recipes that learnt are worse beyond the error.")
    unlearnt = [_name(one) for one in choice.candidates if not one.has_learnt]
    if unlearnt:
        sentences.append(f"Not learnt beyond the error: {_listed(unlearnt)}.")
    return Recommendation(headline, [*sentences, *evidence])


def _verdict(only: Candidate) -> str:
    """Whether one run learnt and forgot."""
    learnt = "learnt its target" if only.has_learnt else "did not learn its target beyond the error"
    sources = only.sources
    p_same = equivalence_p(sources, MARGIN)
    if sources.ci_high is not None and sources.ci_high < 0:
        forgot = "and forgot elsewhere" if only.has_learnt else "but forgot elsewhere"
    elif p_same is not None and p_same < ALPHA:
        forgot = f"and did not forget elsewhere (within {100 * MARGIN:g} points)"
    elif sources.ci_low is not None and sources.ci_low > 0:
        forgot = "and gained elsewhere"
    else:
        forgot = "and the data cannot tell whether it forgot elsewhere"
    return f"{_name(only)} {learnt} {forgot}: {_both(only)}."


def _interaction(only: Candidate, recipes: Mapping[Name, Mapping[int | None, Pairs]], decoding: str) -> list[str]:
    """The drop on OOD text minus the drop on ID text, for each kind of pictures."""
    seeds = recipes[only.name]
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


def _how(choice: Choice, decoding: str) -> list[str]:
    counts = {one.total.n_seeds for one in choice.candidates}
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


def _against(rival: Rival) -> str:
    """How the best one's total compares."""
    difference = rival.difference
    p = "" if rival.p_holm is None else f", p {'< .001' if rival.p_holm < 0.001 else f'= {rival.p_holm:.3f}'}"
    word = "worse by" if rival.can_be_told_apart else "cannot be told from the first, which has"
    total = "-" if difference.value is None else f"{100 * difference.value:.1f}"
    shown = f"{total} {_range(difference.ci_low, difference.ci_high)} points"
    more = "" if rival.can_be_told_apart else " more"
    return f"{_name(rival.candidate)}: {_both(rival.candidate)}; {word} {shown}{more} in all{p}."


def _short(one: Candidate) -> str:
    return f"{_points(one.target.value)} on the target, {_points(one.sources.value)} elsewhere"


def _both(one: Candidate) -> str:
    return f"{_with_error(one.target)} on the target, {_with_error(one.sources)} elsewhere"


def _with_error(estimate: SeedEstimate) -> str:
    return f"{_points(estimate.value)} {_range(estimate.ci_low, estimate.ci_high)}"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"


def _name(one: Candidate) -> str:
    return " + ".join(filter(None, one.name))


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def _few(names: list[str]) -> str:
    """The first names, and how many more."""
    return _listed(names if len(names) <= _FEW else [*names[: _FEW - 1], f"{len(names) - _FEW + 1} others"])
