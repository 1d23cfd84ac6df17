"""Pictures and repositories that are links: within their folder, and out of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef
from forgetbench.data.manifest import DOWNLOADS, Manifest, Source, SourceKind, Split
from forgetbench.data.pictures import read_image
from forgetbench.data.sources import load_samples


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "disk/pictures").mkdir(parents=True)
    (tmp_path / "pictures").symlink_to(tmp_path / "disk/pictures")
    for path in ("pictures/a.png", "private.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / path)
    (tmp_path / "pictures/within.png").symlink_to("a.png")
    (tmp_path / "pictures/out.png").symlink_to(tmp_path / "private.png")
    (tmp_path / "pictures/folder").symlink_to(tmp_path)
    return tmp_path / "pictures"


def test_a_folder_of_pictures_may_be_a_link_and_hold_links_within(pictures: Path) -> None:
    assert read_image(ImageRef(str(pictures), "a.png")) == read_image(ImageRef(str(pictures), "within.png"))


@pytest.mark.parametrize("name", ["out.png", "OUT.PNG", "folder/private.png"])
def test_a_picture_that_is_a_link_elsewhere_is_refused(pictures: Path, name: str) -> None:
    with pytest.raises(UserError, match="it leads out of the folder"):
        read_image(ImageRef(str(pictures), name))


def test_links_into_and_in_the_downloads_are_followed(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DOWNLOADS, str(pictures.parent))
    assert read_image(ImageRef(str(pictures), "out.png"))


@pytest.mark.parametrize("path", ["../private.jsonl", "{folder}/private.jsonl", "linked.jsonl"])
def test_a_repositorys_card_names_no_data_elsewhere(tmp_path: Path, path: str) -> None:
    row = '{"question": "q", "answer": "a"}\n'
    (tmp_path / "private.jsonl").write_text(row)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/linked.jsonl").symlink_to(tmp_path / "private.jsonl")
    data = f"data_files: [{{split: test, path: {path.format(folder=tmp_path)}}}]"
    (tmp_path / "set/README.md").write_text(f"---\nconfigs: [{{config_name: default, {data}}}]\n---\n")
    source = Source(kind=SourceKind.hub, hub_id="set")
    manifest = Manifest(
        "m", path=str(tmp_path / "m.yaml"), source=source, splits={"test": Split()}, image_domains=["text"]
    )
    with pytest.raises(UserError, match="outside of the repository"):
        load_samples(manifest, "test")
