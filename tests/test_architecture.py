"""Imports point down the list of layers only; modules stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forgetbench.core.paths import PACKAGE

LAYERS = (
    {"__main__"},
    {"cli"},
    {"api"},
    {"compose", "commands"},
    {"serving"},
    {"exchange", "reporting"},
    {"runs"},
    {"training", "evaluation"},
    {"data"},
    {"terminal"},
    {"tables"},
    {"methods", "scoring", "statistics"},
    {"models"},
    {"config", "embedded"},
    {"core"},
    {"__init__"},
)
"""Rooms from top to bottom: each imports from lower ones only."""
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
EXCEPTIONS = {
    ("config", "methods"),  # a config holds a method
    ("__init__", "api"),  # the package's names are those of its public interface, loaded when asked for
    ("__init__", "exchange"),  # the package's name for the callback, loaded when asked for
}
ONLY_IN = {"hydra": "compose", "typer": "cli"}
WITHOUT_TORCH = (
    "core",
    "config",
    "scoring",
    "statistics",
    "tables",
    "terminal",
    "reporting",
    "runs",
    "compose",
    "api",
    "commands.compare",
    "commands.power",
    "commands.report",
    "commands.show",
    "commands.data_list",
    "commands.data_show",
    "commands.data_check",
    "commands.data_audit",
    "commands.models_show",
    "commands.models_plan",
)
MAX_ROOMS, MAX_IMPORTS = 20, 120
MAX_LINES = 400
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


def test_rooms_and_the_imports_between_them_stay_few(capsys: pytest.CaptureFixture[str]) -> None:
    rooms = {component(module) for module in MODULES} - {"__init__", "__main__"}
    pairs = {
        (component(module), dotted.split(".")[1])
        for module in MODULES
        for dotted in imported(module)
        if dotted.startswith("forgetbench.")
    }
    between = {(one, other) for one, other in pairs if one != other and {one, other} <= rooms}
    with capsys.disabled():
        print(f"{len(rooms)} rooms, {len(between)} imports between them")
    assert len(rooms) <= MAX_ROOMS
    assert len(between) <= MAX_IMPORTS


def test_no_room_is_named_like_a_command() -> None:
    commands = {path.stem.rstrip("_") for path in (PACKAGE / "commands").glob("*.py")}
    assert "finetune" in commands
    assert not commands & {component(module) for module in MODULES} - {"__init__"}


def test_tables_scores_and_reports_never_load_torch() -> None:
    names = [name(module).removesuffix(".py").replace("/", ".") for module in MODULES]
    assert [start for start in WITHOUT_TORCH if not any(one.startswith(start) for one in names)] == []
    modules = [
        ".".join(("forgetbench", *module.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for module in MODULES
        if name(module).removesuffix(".py").replace("/", ".").startswith(WITHOUT_TORCH)
    ]
    code = f"import {', '.join(modules)}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
