"""Imports point down the list of layers only; modules stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forgetbench.paths import PACKAGE

LAYERS = (
    {"__main__"},
    {"cli"},
    {"launch", "help"},
    {"experiment", "sweep_tables", "rescore", "readout", "report", "inspection", "validation", "building", "exchange"},
    {"subject", "trained", "stored"},
    {"runfile"},
    {"training", "evaluation", "analysis", "reporting"},
    {"data", "models", "methods", "scoring", "schemas"},
    {"config", "options", "embedded", "processes"},
    {"records", "files", "paths", "network"},
    {"errors", "__init__"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
EXCEPTIONS = {
    ("methods", "models"),  # a method changes a model
    ("config", "methods"),  # a config holds a method
    ("schemas", "methods"),  # a method's dataclass is its schema
}
ONLY_IN = {"hydra": "launch", "typer": "cli"}
WITHOUT_TORCH = (
    "scoring",
    "analysis",
    "reporting",
    "records",
    "config",
    "validation",
    "options",
    "help",
    "inspection",
    "stored",
    "readout",
    "report",
)
MAX_LINES = 250
MODULES = sorted(PACKAGE.rglob("*.py"))


def component(module: Path) -> str:
    return module.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(module: Path) -> Iterator[str]:
    """Dotted names that a module imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_imports_point_down(module: Path) -> None:
    own = component(module)
    for dotted in imported(module):
        root, _, rest = dotted.partition(".")
        other = rest.partition(".")[0]
        if root == "forgetbench" and other in RANK and other != own and (own, other) not in EXCEPTIONS:
            assert RANK[own] < RANK[other], f"{name(module)} imports {dotted}"


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_hydra_and_typer_are_known_in_one_place(module: Path) -> None:
    for dotted in imported(module):
        owner = ONLY_IN.get(dotted.partition(".")[0])
        assert owner in (None, component(module)), f"{name(module)} imports {dotted}"


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_module_is_small(module: Path) -> None:
    assert len(module.read_text("utf-8").splitlines()) <= MAX_LINES


def test_every_component_has_a_layer() -> None:
    assert {component(module) for module in MODULES} <= set(RANK)


def test_tables_scores_and_reports_never_load_torch() -> None:
    modules = [
        ".".join(("forgetbench", *module.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for module in MODULES
        if component(module) in WITHOUT_TORCH
    ]
    code = f"import {', '.join(modules)}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
