"""`data list`: a group for every dataset, roles only with --all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.core.dataset_groups import DatasetGroup, manifest_groups
from forgetbench.core.paths import shipped
from forgetbench.data.catalogue import Catalogue

SET = "source: {}\nsplits: {test: {files: [z]}}\nimage_domains: [a]\ntext_tasks: [b]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_manifests").mkdir()
    return tmp_path / "data_manifests"


def groups(*arguments: str) -> dict[str, str]:
    rows = json.loads(CliRunner().invoke(app, ["data", "list", "--json", *arguments]).stdout)
    return {row["name"]: row["group"] for row in rows}


def test_sets_are_yours_embedded_or_public_and_those_with_a_role_are_left_to_all(folder: Path) -> None:
    (folder / "mine.yaml").write_text(SET)
    (folder / "digits_naming.yaml").write_text(SET)  # in place of a shipped one
    (folder / "my_control.yaml").write_text("role: control\n" + SET)
    shown, every = groups(), groups("--all")
    assert {name for name, group in shown.items() if group == "yours"} == {"mine", "digits_naming"}
    assert (shown["fashion_naming"], shown["general"], shown["textvqa"]) == ("embedded", "embedded", "public")
    assert set(shown.values()) == {"yours", "embedded", "public"}
    assert every["my_control"] == every["leaky"] == "control"
    assert (every["world"], every["fashion_naming_validation"]) == ("curriculum", "validation")
    assert set(every) == set(Catalogue(["data_manifests"]).names())
    assert shown == {name: group for name, group in every.items() if group in ("yours", "embedded", "public")}


def test_a_table_says_how_many_sets_it_leaves_out_and_names_the_sequences() -> None:
    left_out = sum(group.by_role for group in manifest_groups().values())
    shown = CliRunner().invoke(app, ["data", "list"]).stdout
    every = CliRunner().invoke(app, ["data", "list", "--all"]).stdout
    assert f"{left_out} more: curricula, controls and validation sets; add --all." in shown
    assert "more:" not in every
    assert "words_letters" not in shown
    assert "words_letters" in every
    assert "five_tasks_a" in shown
    assert ("base_words" in shown, "base_words" in every) == (False, True)


def test_json_stays_readable_where_sets_are_left_out() -> None:
    done = CliRunner().invoke(app, ["data", "list", "--json"])
    assert json.loads(done.stdout)
    assert "add --all" in done.stderr


def test_groups_told_from_text_agree_with_the_manifests_as_they_are_read() -> None:
    catalogue = Catalogue()
    for name, group in manifest_groups(()).items():
        manifest = catalogue.load(name)
        place = DatasetGroup.public if manifest.is_public else DatasetGroup.embedded
        assert group == (manifest.role or place), name


def test_the_shipped_folder_is_not_yours_where_the_command_runs_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shipped("data_manifests").parent)
    assert DatasetGroup.yours not in manifest_groups(("data_manifests",)).values()
