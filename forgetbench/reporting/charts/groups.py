"""Which lines and points share a colour: recipes, or methods where there are many recipes; the same in every figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from forgetbench.reporting.charts.figure import CLICK_HINT
from forgetbench.reporting.charts.rows import with_text
from forgetbench.reporting.contents import ReportTables

PALETTE = ("#2d5ed4", "#e57431", "#25a37e", "#965a9c", "#cb3904", "#9079fe", "#776e5b", "#6e96c2")
"""At least 3:1 against white and #14161a, and far apart for red-green blind people too."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
_DASHES = ([1, 0], [5, 2], [1.5, 1.5], [8, 2, 1.5, 2])
MOST_RECIPES = 16
"""Recipes with a colour each; more are coloured by method."""
PICK = "pick"
"""Name of the selection that a click in the legend makes."""
_LEGEND_ENTRIES = 24
_PLAIN_KEYS = ("recipe", "method", "model", "data", "matrix")


@dataclass(frozen=True)
class Groups:
    """Colours and short names."""

    title: str
    """Of the legend."""
    names: Sequence[str]
    """Every group, in the order of its colours."""
    recipes: Mapping[str, str]
    """Recipe -> short name."""
    methods: Mapping[str, str] | None
    """Recipe -> method where methods are coloured; None where recipes are."""

    def group(self, recipe: str, variant: str = "") -> str:
        """The group of a recipe; where methods are coloured, a variant's is the method applied after training."""
        if self.methods is None:
            return self.recipes[recipe]
        return variant.partition(":")[0] or self.methods[recipe]

    def label(self, recipe: str, variant: str = "") -> str:
        """A recipe, or a variant of it, in short."""
        return f"{self.recipes[recipe]} + {variant}" if variant else self.recipes[recipe]

    def with_columns(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A table with the columns `group` and `label`."""
        variants = frame["variant"] if "variant" in frame else [""] * len(frame)
        pairs = list(zip(frame["recipe"], variants, strict=True))
        return frame.assign(group=[self.group(*pair) for pair in pairs], label=[self.label(*pair) for pair in pairs])

    def scale(self, present: Iterable[str], values: Sequence[str] = PALETTE) -> alt.Scale:
        """Colours (or shapes) of the groups that a figure shows."""
        shown = [name for name in self.names if name in set(present)]
        places = [self.names.index(name) for name in shown]
        # Shapes move on after each round of colours, so that 48 groups differ in one or the other.
        turns = [place + (place // len(PALETTE) if values is SHAPES else 0) for place in places]
        return alt.Scale(domain=shown, range=[values[turn % len(values)] for turn in turns])

    def colour(self, present: Iterable[str], with_legend: bool = True) -> alt.Color:
        """The colour channel; a single group has no legend."""
        present = set(present)
        return alt.Color("group:N", scale=self.scale(present), legend=self._legend(present) if with_legend else None)

    def shape(self, present: Iterable[str]) -> alt.Shape:
        """The shape channel, which says the same as the colour."""
        present = set(present)
        return alt.Shape("group:N", scale=self.scale(present, SHAPES), legend=self._legend(present))

    def dash(self, present: Iterable[str]) -> alt.StrokeDash:
        """The dash channel of lines without points, which distinguishes groups of the same colour."""
        present = set(present)
        shown = [name for name in self.names if name in present]
        dashes = [_DASHES[self.names.index(name) // len(PALETTE) % len(_DASHES)] for name in shown]
        scale = alt.Scale(domain=shown, range=dashes)
        return alt.StrokeDash("group:N", scale=scale, legend=self._legend(present))

    def legend_width(self, present: Iterable[str]) -> int:
        """Pixels of the widest entry of the legend."""
        return 44 + 6 * max((len(name) for name in present), default=0)

    def _legend(self, present: set[str]) -> alt.Legend | None:
        if len(present) < 2:
            return None
        return alt.Legend(title=self.title + CLICK_HINT, symbolLimit=_LEGEND_ENTRIES)


def legend_selection() -> alt.Parameter:
    """The selection of a group by a click in the legend."""
    return alt.selection_point(name=PICK, fields=["group"], bind="legend")


def highlight_opacity(opacity: float, dimmed: float = 0.06) -> alt.OpacityValue:
    """Full opacity of the selected group, or of all groups if none is selected."""
    return alt.OpacityValue(dimmed, condition={"param": PICK, "value": opacity})


def groups_of(tables: ReportTables) -> Groups:
    """Recipes as groups, or methods if there are many recipes of several methods."""
    frames = [with_text(frame) for frame in (tables.matrix, tables.scores, tables.summary) if "recipe" in frame]
    others = [frame for frame in (tables.train, tables.representation, tables.seeds, tables.guard) if "recipe" in frame]
    recipes = sorted({str(recipe) for frame in (*frames, *others) for recipe in frame["recipe"].dropna()})
    short = short_names(recipes)
    methods = {
        str(recipe): str(method)
        for frame in frames
        if "method" in frame
        for recipe, method in zip(frame["recipe"], frame["method"], strict=True)
    }
    variants = {text.partition(":")[0] for frame in frames if "variant" in frame for text in frame["variant"]} - {""}
    trained = sorted(set(methods.values()))
    names = [*trained, *sorted(variants - set(trained))]
    # A single recipe differs by its variants, if at all.
    says_more = len(names) > 1 and (len(recipes) > MOST_RECIPES or len(recipes) == 1)
    if says_more and set(methods) == set(recipes):
        return Groups("Method", names, short, methods)
    return Groups("Recipe", [short[recipe] for recipe in recipes], short, None)


def short_names(recipes: Sequence[str]) -> dict[str, str]:
    """Names of a sweep's points (`method-ewc--recipe.lr-0.001`) without what all share (`ewc, lr 0.001`).

    Full names where short ones would not tell recipes apart.
    """
    parted = {recipe: recipe.split("--") for recipe in recipes}
    if len({len(parts) for parts in parted.values()}) == 1 and len(recipes) > 1:
        same = [len(set(column)) == 1 for column in zip(*parted.values(), strict=True)]
        parted = {
            recipe: [part for part, shared in zip(parts, same, strict=True) if not shared]
            for recipe, parts in parted.items()
        }
    short = {recipe: ", ".join(_short_part(part) for part in parts) for recipe, parts in parted.items()}
    return short if len(set(short.values())) == len(recipes) else {recipe: recipe for recipe in recipes}


def _short_part(part: str) -> str:
    key, dash, value = part.partition("-")
    if not dash or not value:
        return part
    if key in _PLAIN_KEYS:
        return value
    return f"{key.rpartition('.')[2]} {value}" if "." in key else part
