"""Pictures of the flip explorer: whose are shown, and what is said where there are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from forgetbench.data.catalogue import Catalogue
from forgetbench.reporting.thumbnails import thumbnails
from tests.support.pages import flips


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of one item with a picture."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    (tmp_path / "test.jsonl").write_text(json.dumps({"id": "0", "image": "red.png", "question": "?", "answer": "x"}))
    return tmp_path


def write_manifest(folder: Path, *lines: str) -> Catalogue:
    held = ("source: {}", "splits: {test: {files: [test.jsonl]}}", "image_domains: [x]", "text_tasks: [x]", *lines)
    (folder / "mine.yaml").write_text("\n".join(held))
    return Catalogue([folder])


def shown(catalogue: Catalogue) -> dict[str, str]:
    flip = replace(next(flips("mine", 1)), dataset="mine", sample_id="0", image="")
    pictures, keyed_flips = thumbnails([flip], catalogue)
    assert [shown_flip.image for shown_flip in keyed_flips] == (list(pictures) or [""])
    return pictures


def test_the_picture_of_an_item_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (uri,) = shown(write_manifest(folder)).values()
    assert uri.startswith("data:image/")
    assert capsys.readouterr().out == ""


def test_a_set_without_an_evaluation_split_has_no_pictures_and_no_fault(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(write_manifest(folder, "eval_split: ''")) == {}
    assert capsys.readouterr().out == ""


def test_a_set_whose_items_are_gone_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "test.jsonl").unlink()
    assert shown(write_manifest(folder)) == {}
    assert "No pictures of mine:" in capsys.readouterr().out
