"""The confidence level is set in one place, and everything follows it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from forgetbench.core.confidence import ALPHA, ALPHA_TEXT, CONFIDENCE_TEXT
from forgetbench.core.paths import PACKAGE

SETTING = PACKAGE / "core/confidence.py"
IN_WORDS = re.compile(r"0\.975|1\.96|\b0\.95\b|95( |&nbsp;|)%|(<|&lt;) ?\.05")
FIVE_PER_CENT_OF_SOMETHING_ELSE = {
    PACKAGE / "data/audit/contradictions.py",  # of pictures
    PACKAGE / "data/predictions.py",  # of prompts
    PACKAGE / "runs/cut_off.py",  # of replies
    PACKAGE / "scoring/relaxed.py",  # of a number
}
OTHER_LEVEL = """
import inspect, json, sys, types
module = types.ModuleType("forgetbench.core.confidence")
source = open({path!r}, encoding="utf-8").read()
assert source.count("CONFIDENCE = 0.95") == 1
exec(source.replace("CONFIDENCE = 0.95", "CONFIDENCE = 0.9"), module.__dict__)
sys.modules[module.__name__] = module

import numpy as np
from forgetbench.cli import power
from forgetbench.reporting.page import _environment
from forgetbench.statistics.intervals import clustered_mean, detectable_stderrs, linear_estimate
from forgetbench.statistics.seeds import over_seeds
from forgetbench.tables.comparison import verdict_with_margin
from forgetbench.terminal.cells import STAR
from forgetbench.tables.verdict import is_starred

values, names = [0.1, 0.4, 0.3, 0.9], [["a", "b", "c", "d"]]
mean = clustered_mean(values, names)
seeds = over_seeds([np.array(values), np.array(values[::-1])], names, np.full(4, 0.25), ["x"] * 4)
linear = linear_estimate(0.0, np.array([0.1, -0.1, 0.2, -0.2]), names)
right = clustered_mean([0.0, 1.0, 1.0, 1.0], names)
same = clustered_mean([1.0, 1.0, 1.0, 1.0], [["a", "a", "b", "b"]])
print(json.dumps({{
    "t": [(one.ci_high - one.value) / one.stderr for one in (mean, linear)],
    "df": [mean.df, linear.df],
    "seeds": [(seeds.ci_high - seeds.value) / seeds.stderr, seeds.df],
    "wilson": [right.ci_low, right.ci_high],
    "room": same.ci_low,
    "detectable": detectable_stderrs(),
    "starred": is_starred(0.07),
    "star": STAR,
    "equivalent": verdict_with_margin(0.0, -0.1, 0.1, None, 0.07),
    "alpha": inspect.signature(power).parameters["alpha"].default,
    "page": _environment().from_string("{{{{ confidence|unbroken }}}}, {{{{ alpha }}}}").render(),
}}))
"""


def test_another_level_changes_intervals_stars_texts_and_the_default_of_power() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OTHER_LEVEL.format(path=str(SETTING))], capture_output=True, text=True, check=True
    )
    values = json.loads(done.stdout)
    assert values["t"] == pytest.approx([stats.t.ppf(0.95, df) for df in values["df"]])
    assert values["seeds"][0] == pytest.approx(stats.t.ppf(0.95, values["seeds"][1]))
    assert values["wilson"] == pytest.approx(proportion_confint(3, 4, 0.1, "wilson"))
    assert values["room"] == pytest.approx(0.1**0.5)  # two clusters: (1 - q)^2 is 0.1
    assert values["detectable"] == pytest.approx(1.6449 + 0.8416, abs=1e-4)
    assert values["starred"]
    assert values["star"].startswith("* Holm-adjusted p < .1 ")
    assert values["equivalent"] == "equivalent"
    assert values["alpha"] == 0.1
    assert values["page"] == "90&nbsp;%, .1"


def test_the_texts_are_of_the_level() -> None:
    assert (ALPHA, ALPHA_TEXT, CONFIDENCE_TEXT) == (0.05, ".05", "95 %")


@pytest.mark.parametrize("suffix", ["py", "j2", "js"])
def test_no_other_file_writes_the_level_down(suffix: str) -> None:
    files = [path for path in PACKAGE.rglob(f"*.{suffix}") if path != SETTING]
    assert files
    written = {str(path.relative_to(PACKAGE)): IN_WORDS.findall(path.read_text("utf-8")) for path in files}
    assert {name: levels for name, levels in written.items() if levels} == {}


def test_no_other_module_computes_with_the_level() -> None:
    modules = set(PACKAGE.rglob("*.py")) - {SETTING} - FIVE_PER_CENT_OF_SOMETHING_ELSE
    assert [str(path) for path in sorted(modules) if _numbers(path) & {0.05, 0.025, 0.95, 0.975, 1.96}] == []


def _numbers(path: Path) -> set[object]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, float)}
