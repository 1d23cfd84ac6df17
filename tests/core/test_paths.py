"""Which names and links stay in their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetbench.core.paths import is_relative, leads_out


@pytest.mark.parametrize("name", ["a.png", "a/b.png", "./a", "a..b", "~a", "a:b", "C:b", "..a/b"])
def test_names_that_lead_down_are_relative(name: str) -> None:
    assert is_relative(name)


@pytest.mark.parametrize("name", ["/a", "../a", "a/../../b", "..", "C:\\a", "c:/a", "..\\a", "a\\..\\b", "\\\\host\\a"])
def test_names_that_lead_elsewhere_are_not(name: str) -> None:
    assert not is_relative(name)


def test_links_may_lead_within_a_folder_and_to_blobs_of_the_hub(tmp_path: Path) -> None:
    folder, blobs = tmp_path / "folder", tmp_path / "models--a--b" / "blobs"
    for path in (folder, blobs):
        path.mkdir(parents=True)
    (folder / "file").touch()
    (folder / "within").symlink_to("file")
    (folder / "blob").symlink_to(blobs / "0123")
    (folder / "out").symlink_to(tmp_path / "private")
    (tmp_path / "linked").symlink_to(folder)
    for name, expected in {"file": False, "within": False, "blob": False, "out": True}.items():
        assert leads_out(folder, folder / name) is expected
        assert leads_out(tmp_path / "linked", tmp_path / "linked" / name) is expected
