"""The figures of a report as files, for papers and slides: SVG and PNG, drawn without a browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import vl_convert

from forgetbench.core.files import remove_all, replacing, write_text
from forgetbench.reporting.charts import NAMES, Figure, vega_spec
from forgetbench.reporting.charts.figure import VEGA_LITE

_SCALE = 2
"""Pixels of a PNG per pixel of the SVG."""


def save_figures(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write `<name>.svg` and `<name>.png` of every figure, dark on white; the same figures give the same bytes.

    Those of an earlier report that are not drawn any more are removed; what else is in the folder stays.

    Returns:
        The files, each figure's SVG before its PNG.
    """
    written = []
    for figure in figures:
        written += save_figure(figure, folder)
    known_files = {folder / f"{name}{suffix}" for name in NAMES for suffix in (".svg", ".png")}
    remove_all(known_files - set(written), folder.parent)
    return written


def save_figure(figure: Figure, folder: Path) -> list[Path]:
    """Write `<name>.svg` and `<name>.png` of one figure, as `save_figures` does."""
    spec = vega_spec(figure, "light")
    svg, png = folder / f"{figure.name}.svg", folder / f"{figure.name}.png"
    write_text(svg, vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, allowed_base_urls=[]))
    with replacing(png) as temporary:
        temporary.write_bytes(
            vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=_SCALE, allowed_base_urls=[])
        )
    return [svg, png]
