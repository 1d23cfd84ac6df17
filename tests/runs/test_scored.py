"""What a run remembers of its scoring: paths that move with it, and texts that stand for themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from forgetbench.config import MatrixConfig
from forgetbench.core.files import read_json, write_json
from forgetbench.runs.run import read_run
from forgetbench.runs.scored import Scored, manifest_folders, matrix_settings, recall, remember, training_manifests
from tests.support.answered import KEEPS, answered_run

MATRIX = matrix_settings(MatrixConfig(datasets=["fashion_naming"], limit=4))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("project/own", "project/outputs/grid/point", "shared/sets"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_paths_of_one_tree_move_with_it_and_others_stay(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = Path("outputs/grid/point")
    remember(point, Scored(MATRIX, ["own", "../shared/sets", "nowhere"], Path("outputs")))
    written = read_json(point / "scored.json")
    assert written["outputs"] == "../.."
    assert written["manifests"] == ["../../../own", str(project.parent / "shared/sets")]
    assert manifest_folders(point, None) == ["own", str(project.parent / "shared/sets")]
    project.rename(project.parent / "moved")
    monkeypatch.chdir(project.parent)
    recalled = recall(Path("moved") / point)
    assert recalled == Scored(MATRIX, ["moved/own", "shared/sets"], Path("moved/outputs"))


def test_what_is_remembered_has_the_same_bytes_in_another_place(project: Path, tmp_path: Path) -> None:
    for home in ("a", "b"):
        (tmp_path / home / "outputs/run").mkdir(parents=True)
        (tmp_path / home / "sets").mkdir()
        known = Scored(MATRIX, [str(tmp_path / home / "sets")], tmp_path / home / "outputs")
        remember(tmp_path / home / "outputs/run", known)
    first, second = ((tmp_path / home / "outputs/run/scored.json").read_bytes() for home in ("a", "b"))
    assert first == second


def test_a_folder_that_remembers_nothing_has_the_default_manifests(project: Path) -> None:
    assert recall(Path("outputs")) is None
    assert manifest_folders(Path("outputs"), None) == ["data_manifests"]


def test_manifests_of_training_are_seen_from_where_it_was_started(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = answered_run(project / "outputs", "run", KEEPS, "manifests=[own]", steps=(5,))
    monkeypatch.chdir(project.parent)
    assert manifest_folders(folder, read_run(folder)) == ["project/own"]
    described = read_json(folder / "run.json")
    write_json(folder / "run.json", described | {"config": described["config"] | {"outputs": "/elsewhere"}})
    assert training_manifests(read_run(folder)) == ["own"]
    point = replace(read_run(folder), folder=project / "outputs/run/point")
    assert point.outputs == project / "outputs"
