from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from forgetbench.core.errors import UserError
from forgetbench.models.checkpoint import (
    ResumePoint,
    list_checkpoints,
    load_resume,
    save_checkpoint,
    save_resume,
)

META = {"method": {"name": "plain"}}
TENSORS = {"a": torch.arange(4.0), "b": torch.ones(2, 3)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"w": torch.full((3,), float(step))}, META)
    source = list_checkpoints(tmp_path)[-1].digest
    save_checkpoint(tmp_path, 2, {"w": torch.zeros(3)}, META | {"variant": "wise_ft:0.5", "source_digest": source})
    return tmp_path


def names(run: Path) -> list[str]:
    return [checkpoint.name for checkpoint in list_checkpoints(run)]


@pytest.mark.parametrize(
    "copy", ["step_000002 (copy)", "step_000002.bak", "step_000002~", "step_000002@wise_ft-0.5 (2)", "step_000002_old"]
)
def test_a_copy_of_a_checkpoints_folder_is_no_checkpoint(run: Path, copy: str) -> None:
    before, folder = names(run), run / "checkpoints"
    shutil.copytree(folder / ("step_000002@wise_ft-0.5" if "@" in copy else "step_000002"), folder / copy)
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "step_000009").write_text("a file")
    assert names(run) == before == ["step_000000", "step_000001", "step_000002", "step_000002@wise_ft-0.5"]


def test_a_folder_that_is_named_like_another_step_is_refused(run: Path) -> None:
    (run / "checkpoints" / "step_000002").rename(run / "checkpoints" / "step_000003")
    with pytest.raises(UserError, match=r"step_000003 holds step_000002.*rename it back"):
        list_checkpoints(run)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"step": "2", "delta_digest": "", "method": {}}'])
def test_a_damaged_meta_json_is_refused_by_name(run: Path, content: str) -> None:
    (run / "checkpoints" / "step_000002" / "meta.json").write_text(content)
    with pytest.raises(UserError, match=r"step_000002.meta\.json.*run"):
        list_checkpoints(run)


def test_what_stands_beside_a_resume_point_is_none(tmp_path: Path) -> None:
    save_resume(tmp_path, ResumePoint(3, TENSORS))
    shutil.copytree(tmp_path / "resume" / "step_000003", tmp_path / "resume" / "step_000003 (copy)")
    (tmp_path / "resume" / "step_000009").mkdir()  # what a kill left of another one
    (tmp_path / "resume" / ".DS_Store").write_bytes(b"\0")
    point = load_resume(tmp_path)
    assert point is not None
    assert point.step == 3
    assert all(torch.equal(point.tensors[name], value) for name, value in TENSORS.items())
    save_resume(tmp_path, ResumePoint(4, TENSORS))
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["step_000004"]


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_a_damaged_resume_point_is_refused_with_what_goes_on(tmp_path: Path, damage: str) -> None:
    save_resume(tmp_path, ResumePoint(3, TENSORS))
    path = tmp_path / "resume" / "step_000003" / "state.safetensors"
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-5], "empty": b"", "flipped": content[:-1] + bytes([content[-1] ^ 1])}[damage])
    with pytest.raises(UserError, match=r"is damaged .*checkpoints are not lost.*delete .*step_000003"):
        load_resume(tmp_path)


@pytest.mark.parametrize("kind", ["checkpoint", "resume"])
def test_a_full_disk_is_an_os_error_that_leaves_what_was_there(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(step: int) -> None:
        if kind == "checkpoint":
            save_checkpoint(tmp_path, step, TENSORS, META)
        else:
            save_resume(tmp_path, ResumePoint(step, TENSORS))

    def full(_tensors: object, path: Path, *_: object) -> None:
        path.write_bytes(b"half of it")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    write(1)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left") as raised:
        write(2)
    assert raised.value.errno == errno.ENOSPC
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_resume_point_without_its_digest_is_refused(tmp_path: Path) -> None:
    save_resume(tmp_path, ResumePoint(1, {"optimiser/a/step": torch.zeros(1)}))
    path = next((tmp_path / "resume").rglob("*.safetensors"))
    save_file({}, path)
    with pytest.raises(UserError, match=rf"{path.name} is damaged"):
        load_resume(tmp_path)
