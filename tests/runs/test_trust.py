"""A run.json of somebody else: what it asks to be run, and what it refers to."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetbench.config import DataConfig, FinetuneConfig, ModelConfig, RecipeConfig, StageConfig
from forgetbench.core.errors import UserError
from forgetbench.methods.base import Method
from forgetbench.runs.run import TRUST, Run, read_run

AUDIT = {"label": "language", "trainable": 1, "total": 1, "parts": {}}


def run_of(folder: Path, model: ModelConfig) -> Run:
    data = DataConfig(stages=[StageConfig(set="fashion_naming")])
    config = FinetuneConfig(
        name="n", model=model, data=data, recipe=RecipeConfig(lr=0.1, parts=["language"]), method=Method()
    )
    return Run(folder, config, ["0"], [[]], "0", AUDIT, {})


def test_code_of_a_model_is_run_for_a_run_only_if_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path, ModelConfig(path=str(tmp_path / "none"), trust_remote_code=True))
    with pytest.raises(UserError, match=f"{TRUST}=1"):
        run.load_base()
    for trusted, value in ((True, ""), (False, "1")):
        monkeypatch.setenv(TRUST, value)
        with pytest.raises(UserError, match="Cannot load"):  # goes on to the model, which is not there
            run.load_base(trusted)


def test_references_in_a_run_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "scratch")
    run_of(tmp_path, ModelConfig(path="${oc.env:SCRATCH}", system_prompt="${seed}")).write()
    read = read_run(tmp_path)
    assert (read.model.path, read.model.system_prompt) == ("${oc.env:SCRATCH}", "${seed}")
