"""The report's page: one HTML file that opens from disk and loads nothing.

Jinja2 writes the text and tables; Vega, from vl-convert, draws the figures in the browser; page.js connects them.
The same contents and figures give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from forgetbench.core.confidence import ALPHA_TEXT, CONFIDENCE_TEXT
from forgetbench.core.records import QUADRANTS
from forgetbench.reporting.contents import ReportContents
from forgetbench.reporting.page.continual import MEASURES, strategy_tables
from forgetbench.reporting.page.flips import explorer_data
from forgetbench.reporting.page.matrix import TARGET, RunView, run_views
from forgetbench.reporting.page.score_history import (
    DASH,
    MINUS,
    count_text,
    p_text,
    seconds_text,
    short_count,
    signed_text,
    value_text,
)
from forgetbench.reporting.page.sparkline import sparkline
from forgetbench.reporting.page.tables import (
    comparison_sentence,
    costs,
    leak_summary,
    non_fraction_metrics,
    seed_groups,
)
from forgetbench.reporting.published import LABEL, PAPER, SOURCE, published_beside
from forgetbench.terminal.wording import QUADRANT_NAMES, units

_TEMPLATES = Path(__file__).parent / "templates"
_RUNS_BEFORE_A_FILTER = 12
_EVIDENCE_SHOWN = 4
"""Sentences; more can be unfolded."""


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as the page needs it."""

    name: str
    """Of the files beside the page: figures/<name>.svg."""
    title: str
    caption: str
    alt_text: str
    """Description for readers who do not see it."""
    spec: Mapping[str, Any]
    """Vega-Lite, with `$schema` and its data in it, in colours for a light and a dark page (`currentColor`)."""


def render(contents: ReportContents, figures: Sequence[DrawnFigure]) -> str:
    """The whole page.

    Raises:
        ValueError: a figure's data hold a NaN or an infinity, which JSON has no word for, or figures are written in
            several versions of Vega-Lite.
    """
    runs = run_views(contents)
    scored = [run for run in runs if run.is_scored]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            contents=contents,
            compared=comparison_sentence(contents),
            runs=runs,
            by_recipe=_by_recipe(runs),
            has_scores=bool(scored),
            has_trained=any(run.is_trained for run in scored),
            metrics={metric for run in runs for metric in run.metrics},
            non_fraction_metrics=non_fraction_metrics(contents.tables.scores),
            n_targets=len({run.target for run in scored if run.is_trained}),
            has_targets=bool(len(contents.tables.scores) and contents.tables.scores["target"].nunique() > 1),
            has_filter=len(runs) > _RUNS_BEFORE_A_FILTER,
            figures=figures,
            flips=explorer_data(contents),
            seeds=seed_groups(contents.tables.seeds),
            strategy_tables=strategy_tables(contents.tables.strategies),
            published=published_beside(contents.tables.continual),
            costs=costs(contents.runs),
            parts=sorted({part for run in contents.runs for part in run.audit.get("parts", {})}),
            leak_summary=leak_summary(contents.leaks),
            vega=_vega(_vega_lite(figures)) if figures else "",
            style=_asset("style.css"),
            continual_style=_asset("continual.css"),
            script=_asset("page.js"),
        )
    )


def _by_recipe(runs: Sequence[RunView]) -> dict[str, list[RunView]]:
    groups: dict[str, list[RunView]] = {}
    for run in runs:
        groups.setdefault(run.recipe, []).append(run)
    return groups


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        json_block=_json_block,
        value=value_text,
        signed=signed_text,
        count=count_text,
        p=p_text,
        seconds=seconds_text,
        short=short_count,
        unbroken=_unbroken,
    )
    environment.globals.update(
        sparkline=sparkline,
        units=units,
        evidence_shown=_EVIDENCE_SHOWN,
        quadrants=QUADRANTS,
        quadrant_names=QUADRANT_NAMES,
        target_quadrant=TARGET,
        measures=MEASURES,
        published_label=LABEL,
        published_source=SOURCE,
        published_paper=PAPER,
        dash=DASH,
        confidence=CONFIDENCE_TEXT,
        alpha=ALPHA_TEXT,
        minus=MINUS,
    )
    return environment


def _json_block(data: object) -> Markup:
    """JSON that cannot end the script element it stands in."""
    written = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _unbroken(text: str) -> Markup:
    """Text that stays on one line."""
    return Markup("&nbsp;").join(text.split(" "))


def _asset(name: str) -> Markup:
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


@cache
def _vega(vega_lite: str) -> Markup:
    """Vega, one version of Vega-Lite, and Vega-Embed as one script, which takes seconds to make."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=vega_lite)
    # In a JavaScript string "<\\/script" is "</script", and does not end the element.
    return Markup(bundle.replace("</script", "<\\/script").replace("<!--", "\\x3c!--"))


def _vega_lite(figures: Sequence[DrawnFigure]) -> str:
    """The version that the figures are written in, such as 6.1."""
    versions = {".".join(str(figure.spec["$schema"]).rpartition("/v")[2].split(".")[:2]) for figure in figures}
    if len(versions) > 1:
        raise ValueError(f"one page draws one version of Vega-Lite, and the figures have {sorted(versions)}")
    return versions.pop()
