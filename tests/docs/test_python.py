"""docs/python.md: its tables are complete and true, and its example runs."""

from __future__ import annotations

import inspect
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import forgetbench
from forgetbench.api.overrides import as_overrides
from forgetbench.compose.overrides import parse
from forgetbench.config import SweepConfig

TEXT = (Path(__file__).parents[2] / "docs/python.md").read_text("utf-8")


def table(section: str) -> list[list[str]]:
    part = TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \|$", part, re.MULTILINE)
    return [row.split(" | ") for row in rows[1:] if not row.startswith("---")]


def meaning(lines: list[str]) -> list[tuple[str, Any]]:
    return [(one.key_or_group, str(one.input_line) if one.is_sweep_override() else one.value()) for one in parse(lines)]


@pytest.mark.parametrize("row", table("Keys"), ids=lambda row: row[0])
def test_keys_mean_what_the_command_line_beside_them_means(row: list[str]) -> None:
    def given(overrides: list[str] | None = None, /, **keys: Any) -> list[str]:
        return as_overrides(SweepConfig, overrides or [], keys)

    python, typed = (re.findall("`(.*?)`", cell)[0] for cell in row)
    assert meaning(eval(f"given({python})", {"given": given})) == meaning(shlex.split(typed))


def test_every_function_has_its_signature_in_the_table() -> None:
    found = {}
    for cell, _, result in table("Functions"):
        name, signature = re.fullmatch(r"`(\w+)(\(.*\))`", cell).groups()  # type: ignore[union-attr]
        found[name] = signature
        assert set(re.findall(r"`(\w+)`", result)) <= set(forgetbench.__all__)
    functions = {name for name in forgetbench.__all__ if inspect.isfunction(getattr(forgetbench, name))}
    assert set(found) == functions
    for name, written in found.items():
        own = inspect.signature(getattr(forgetbench, name))
        parameters = [one.replace(annotation=inspect.Parameter.empty) for one in own.parameters.values()]
        bare = str(own.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
        assert written == bare.replace(", /", "")


def test_every_attribute_of_a_result_is_in_the_table() -> None:
    rows = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1])) for row in table("Results")}
    assert set(rows) == {name for name in forgetbench.__all__ if name.endswith("Result")}
    of_runs = rows["RunResult"]
    rows["SweepResult"] |= of_runs - {"train", "checkpoints"}
    for name, documented in rows.items():
        kind = getattr(forgetbench, name)
        own = {one.name for one in fields(kind)} | {one for one in dir(kind) if not callable(getattr(kind, one))}
        assert {one for one in own if not one.startswith("_")} - {"stored"} == documented - {"show", "RunResult"}, name


@pytest.mark.slow
def test_the_first_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [example] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert set(names["scored"].matrix["step"]) >= {0, 2}
