"""The wheel works from an empty folder: configs, manifests and the embedded world travel in it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from forgetbench.core.options import config_files
from forgetbench.core.paths import PACKAGE, shipped

CHECKOUT = PACKAGE.parent
Call = Callable[..., str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, str(folder), str(CHECKOUT)], check=True)
    [built] = folder.glob("forgetbench-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*command, str(folder), str(wheel)], check=True)
    return folder


@pytest.fixture
def call(installed: Path, tmp_path: Path) -> Call:
    def run(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        command = [sys.executable, "-m", "forgetbench", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_wheel_holds_every_config_manifest_and_notice(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("conf", "data_manifests"):
        files = {path.relative_to(shipped(folder)).as_posix() for path in shipped(folder).rglob("*.yaml")}
        assert files
        assert {f"forgetbench/_shipped/{folder}/{file}" for file in files} <= held
    assert {Path(file).name for file in held if ".dist-info/licenses/" in file} == {"LICENSE", "NOTICE"}


def test_wheel_holds_the_embedded_world(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (PACKAGE / "embedded").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert any(path.suffix == ".gz" for path in files)
    assert {path.relative_to(CHECKOUT).as_posix() for path in files} <= held


def test_wheel_is_what_runs(installed: Path, tmp_path: Path) -> None:
    code = "import forgetbench; print(forgetbench.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_help_lists_the_shipped_options(call: Call) -> None:
    assert "finetune" in call("--help")
    shown, recipes = call("finetune", "--help"), config_files("recipe")
    assert recipes
    assert [option for option in recipes if option not in shown] == []


def test_config_composes_in_an_empty_folder(call: Call, tmp_path: Path) -> None:
    composed = yaml.safe_load(call("finetune", "--cfg"))
    assert composed["data"]["stages"][0]["set"] == "fashion_naming"
    assert list(tmp_path.iterdir()) == []


def test_datasets_are_listed_in_an_empty_folder(call: Call) -> None:
    assert "fashion_naming" in call("data", "list")
