"""What a run's folder may hold of another place: nothing that is written to, taken or removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from forgetbench.core.errors import UserError
from forgetbench.models.checkpoint import ResumePoint, list_checkpoints, save_checkpoint, save_resume
from forgetbench.models.weight_files import check_content


def test_a_resume_folder_that_is_a_link_is_refused_and_nothing_in_it_removed(tmp_path: Path) -> None:
    run, home = tmp_path / "run", tmp_path / "home"
    run.mkdir()
    home.mkdir()
    (home / "letter").touch()
    (run / "resume").symlink_to(home)
    with pytest.raises(UserError, match="resume is a link that leads out of the run"):
        save_resume(run, ResumePoint(1, {"a": torch.zeros(1)}))
    assert [path.name for path in home.iterdir()] == ["letter"]


def test_checkpoints_elsewhere_are_refused_and_a_run_elsewhere_is_not(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "disk", 1, {"a": torch.zeros(1)}, {"method": {}})
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path / "run")] == [0, 1]
    (tmp_path / "other/checkpoints").mkdir(parents=True)
    (tmp_path / "other/checkpoints/step_000001").symlink_to(tmp_path / "disk/checkpoints/step_000001")
    with pytest.raises(UserError, match="step_000001 is a link"):
        list_checkpoints(tmp_path / "other")


@pytest.mark.parametrize("variant", ["x/../../pwned", "/tmp/x", "..", "a\\b", "\x1b[31m", "${oc.env:HOME}"])
def test_a_variant_that_is_no_name_is_refused(tmp_path: Path, variant: str) -> None:
    saved = save_checkpoint(tmp_path, 1, {"a": torch.zeros(1)}, {"method": {}})
    assert saved.path
    meta = json.loads((saved.path / "meta.json").read_text())
    (saved.path / "meta.json").write_text(json.dumps({**meta, "variant": variant}))
    with pytest.raises(UserError, match="is not that of a checkpoint"):
        list_checkpoints(tmp_path)


def test_a_file_of_a_model_that_is_a_link_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("text")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").symlink_to(tmp_path / "private")
    with pytest.raises(UserError, match="is a link that leads out of its folder"):
        check_content(tmp_path / "model/config.json")
