"""A figure and its Vega-Lite specification, for a page that is light or dark and for a file.

The page's charts take their ink from the page (`currentColor`, so they need Vega's SVG renderer)
and their width from their container, which must define it (CSS `width: 100%`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import altair as alt
import vl_convert

Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.ConcatChart
Theme = Literal["page", "light"]

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
"""The version that altair writes, as vl-convert names it."""
GUIDE = "guide"
"""Mark style of reference lines."""
INK = "ink"
"""Mark style of what has the colour of the text: labels, and the base model."""
HOLLOW = "hollow"
"""Mark style of the base model's points."""
CLICK_HINT = " (click to highlight)"
"""Ends the title of a legend that highlights; only the page shows it."""

_LAYOUT = "forgetbench"
_PAGE_WIDTH = 720
_FILE_WIDTHS = {1: 600, 2: 760, 3: 900, 4: 980}


@dataclass(frozen=True)
class Figure:
    """A chart with its title, caption and description."""

    name: str
    """Name of the files, and of the anchor on the page."""
    title: str
    caption: str
    alt_text: str
    chart: Chart


def layered(*layers: alt.Chart, height: float, title: str = "") -> alt.LayerChart:
    """Marks on top of each other; the last one is drawn last."""
    return alt.LayerChart(layer=list(layers), height=height, title=title or alt.Undefined)


def panels(
    charts: Sequence[Chart],
    columns: int,
    beside: int = 64,
    legend: int = 150,
    shares_legend: bool = True,
    below: int = 76,
) -> Chart:
    """Charts beside each other, as many as the width allows; one chart stays as it is.

    Args:
        charts: At least one, all of the same size.
        columns: Most in one line.
        beside: Pixels that a panel's axis and spacing take of its width.
        legend: Pixels of the widest entry of the legend.
        shares_legend: Whether a colour means the same in all panels.
        below: Pixels between two lines of panels, for an axis and a title.
    """
    columns = 2 if columns > 2 and len(charts) == 4 else min(columns, len(charts))
    layout = {_LAYOUT: {"columns": columns, "beside": beside, "legend": legend}}
    if len(charts) == 1:
        return charts[0].properties(usermeta=layout)
    # Flush bounds align panels by their axes; room for labels is then the spacing's to give.
    spacing = {"row": below, "column": beside}
    independent = alt.ScaleResolveMap(color="independent", strokeDash="independent")
    resolve = alt.Undefined if shares_legend else alt.Resolve(scale=independent)
    return alt.concat(*charts, columns=columns, bounds="flush", spacing=spacing, resolve=resolve, usermeta=layout)


def vega_spec(figure: Figure, theme: Theme) -> dict[str, Any]:
    """The Vega-Lite specification of a figure.

    Args:
        figure: Not changed.
        theme: `page` for Vega-Embed, `light` for files: dark on white, with a fixed width.
    """
    if theme not in get_args(Theme):
        raise ValueError(f"theme {theme!r} is none of {get_args(Theme)}")
    spec: dict[str, Any] = copy.deepcopy(figure.chart.to_dict(validate=False))
    layout = spec.pop("usermeta", {}).get(_LAYOUT, {"columns": 1, "beside": 64, "legend": 150})
    columns = layout["columns"]
    width = _FILE_WIDTHS[columns] // columns - (layout["beside"] if columns > 1 else 0)
    spec["description"] = figure.alt_text
    spec["padding"] = 4 if theme == "page" else 12
    if theme == "light":
        spec["background"] = "white"
        spec["config"] = _config("#1f2328", max(1, _FILE_WIDTHS[columns] // layout["legend"]), "Arial, sans-serif")
        _drop_hints(spec)
    else:
        # Not a number before the page has drawn the container, and in vl-convert.
        across = f"(isFinite(containerSize()[0]) ? containerSize()[0] : {_PAGE_WIDTH})"
        entries = {"expr": f"max(1, floor({across} / {layout['legend']}))"}
        spec["background"] = "transparent"
        spec["config"] = _config("currentColor", entries, "system-ui, sans-serif")
        spec["usermeta"] = {"embedOptions": {"renderer": "svg"}}
    if "concat" not in spec:
        spec["width"] = width if theme == "light" else "container"
        if theme == "page":
            spec["autosize"] = {"type": "fit-x", "contains": "padding"}
        return spec
    for panel in spec["concat"]:
        panel["width"] = width
    if theme == "page":
        spec["autosize"] = {"type": "pad", "resize": True}
        spec["usermeta"]["embedOptions"]["patch"] = _resize_patch(spec, layout, across)
    return spec


def _resize_patch(spec: Mapping[str, Any], layout: Mapping[str, int], across: str) -> list[dict[str, Any]]:
    """A patch of the compiled chart for Vega-Embed: panels side by side where there is room, else one below the other.

    Vega-Lite itself gives only single charts the width of their container.
    """
    signals = [signal["name"] for signal in _compiled(spec)["signals"]]
    columns = f"clamp(floor({across} / {layout['beside'] + 150}), 1, {layout['columns']})"
    width = f"max(120, floor(({across} - 8) / panel_columns) - {layout['beside']})"
    if layout["columns"] > 1:
        path = f"/signals/{signals.index('childWidth')}"
        sizes = [{"op": "replace", "path": path, "value": _on_resize("childWidth", width)}]
    else:  # a single column has a fixed width
        sizes = [
            {"op": "remove", "path": "/width"},
            {"op": "add", "path": "/signals/0", "value": _on_resize("width", width)},
        ]
    return [
        *sizes,
        {"op": "add", "path": "/signals/0", "value": _on_resize("panel_columns", columns)},
        {"op": "replace", "path": "/layout/columns", "value": {"signal": "panel_columns"}},
    ]


def _drop_hints(spec: Any) -> None:
    """A file cannot be clicked."""
    if isinstance(spec, dict):
        for name, part in spec.items():
            if name == "title" and isinstance(part, str):
                spec[name] = part.removesuffix(CLICK_HINT)
            elif name != "datasets":
                _drop_hints(part)
    elif isinstance(spec, list):
        for part in spec:
            _drop_hints(part)


def _on_resize(name: str, expression: str) -> dict[str, Any]:
    return {"name": name, "init": expression, "on": [{"update": expression, "events": "window:resize"}]}


def _compiled(spec: Mapping[str, Any]) -> dict[str, Any]:
    without_rows: dict[str, Any] = {**spec, "datasets": {name: [] for name in spec.get("datasets", {})}}
    compiled: dict[str, Any] = vl_convert.vegalite_to_vega(without_rows, vl_version=VEGA_LITE)
    return compiled


def _config(ink: str, legend_columns: int | dict[str, str], font: str) -> dict[str, Any]:
    words = {
        "labelColor": ink,
        "titleColor": ink,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    }
    axis = {
        "domainColor": ink,
        "domainOpacity": 0.4,
        "gridColor": ink,
        "gridOpacity": 0.1,
        "tickColor": ink,
        "tickOpacity": 0.4,
        "labelLimit": 260,
        "titlePadding": 8,
    }
    legend = {
        "orient": "bottom",
        "columns": legend_columns,
        "labelLimit": 260,
        "symbolOpacity": 1,
        "symbolStrokeWidth": 2,
        "symbolSize": 70,
        "titleLimit": 400,
        "columnPadding": 16,
    }
    return {
        "font": font,
        "view": {"stroke": None},
        "axis": words | axis,
        "legend": words | legend,
        "title": {"color": ink, "fontSize": 12, "anchor": "start", "fontWeight": "bold", "offset": 8},
        "style": {
            GUIDE: {"color": ink, "opacity": 0.45, "strokeWidth": 1, "strokeDash": [4, 3]},
            INK: {"color": ink, "fontSize": 11},
            HOLLOW: {"color": ink, "filled": False, "strokeWidth": 1.5, "opacity": 1},
        },
    }
