"""`data list`: a group for every dataset, roles only with --all."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.commands import data_list
from forgetbench.core.dataset_groups import DatasetGroup, manifest_groups
from forgetbench.core.paths import shipped
from forgetbench.data.catalogue import Catalogue
from forgetbench.terminal import console as terminal_console

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


def shown(monkeypatch: pytest.MonkeyPatch, width: int, *arguments: str) -> str:
    """What a terminal of that width shows."""
    stream = io.StringIO()
    terminal = Console(file=stream, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(data_list, "console", terminal)
    monkeypatch.setattr(terminal_console, "console", terminal)
    assert CliRunner().invoke(app, ["data", "list", *arguments]).exit_code == 0
    return stream.getvalue()


def test_a_list_says_how_many_sets_it_leaves_out_and_names_the_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = sum(group.by_role for group in manifest_groups().values())
    done = CliRunner().invoke(app, ["data", "list"])
    assert f"{left_out} more: curricula, controls and validation sets; add --all." in done.stderr
    assert "words_letters" not in done.stdout
    assert "more:" not in CliRunner().invoke(app, ["data", "list", "--all"]).stderr
    some, every = (shown(monkeypatch, 140, *words) for words in ([], ["--all"]))
    assert ("words_letters" in some, "words_letters" in every) == (False, True)
    assert "five_tasks_a" in some
    assert ("base_words" in some, "base_words" in every) == (False, True)


def test_json_stays_readable_where_sets_are_left_out() -> None:
    done = CliRunner().invoke(app, ["data", "list", "--json"])
    assert json.loads(done.stdout)
    assert "add --all" in done.stderr


def test_a_word_finds_sets_by_name_and_content_in_every_group_and_a_group_narrows_it(folder: Path) -> None:
    (folder / "mine.yaml").write_text(SET)
    everything = groups("--all")
    assert groups("mine") == {"mine": "yours"}
    assert groups("public") == {name: group for name, group in everything.items() if group == "public"}
    assert set(groups("fashion_*")) == {name for name in everything if name.startswith("fashion_")}
    assert {"fashion_naming", "fashion_naming_validation"} <= set(groups("garment"))  # in titles, too
    assert set(groups("public", "ocr")) == set(groups("ocr")) & set(groups("public"))
    assert "textvqa_ocr" in groups("OCR")


@pytest.mark.parametrize(
    ("word", "message"),
    [("zebra", "no dataset has that. Known:"), ("publc", "Did you mean public?"), ("mine", "is one of yours")],
)
def test_a_search_that_finds_nothing_is_told(word: str, message: str) -> None:
    done = CliRunner().invoke(app, ["data", "list", word])
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_pipe_gets_rows_below_a_header() -> None:
    done = CliRunner().invoke(app, ["data", "list", "embedded"])
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert header[:5] == ["name", "group", "image_domains", "text_tasks", "items"]
    assert {len(row) for row in rows} == {len(header)}
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert by_name["fashion_naming"]["items"] == "train=3000,test=500,few=60"
    assert by_name["general"]["quadrant"] == ""
    assert len(by_name["general"]["mixture"].split(",")) > 1


@pytest.mark.parametrize("width", [12, 40, 80, 100, 140])
def test_no_width_splits_a_name(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shown(monkeypatch, width, "embedded").split()
    names = [name for name, group in manifest_groups().items() if group is DatasetGroup.embedded]
    assert [name for name in names if name not in words] == []


def test_groups_told_from_text_agree_with_the_manifests_as_they_are_read() -> None:
    catalogue = Catalogue()
    for name, group in manifest_groups(()).items():
        manifest = catalogue.load(name)
        place = DatasetGroup.public if manifest.is_public else DatasetGroup.embedded
        assert group == (manifest.role or place), name


def test_the_shipped_folder_is_not_yours_where_the_command_runs_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shipped("data_manifests").parent)
    assert DatasetGroup.yours not in manifest_groups(("data_manifests",)).values()
