"""Bases that are scored alone: each has a folder and a name of its own in tables."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from forgetbench.commands.eval_matrix import eval_matrix
from forgetbench.config import (
    DataConfig,
    EvalMatrixConfig,
    MatrixConfig,
    ModelConfig,
    RepresentationConfig,
    StageConfig,
)
from forgetbench.core.errors import UserError
from forgetbench.core.records import Decoding
from tests.support.families import FAMILIES
from tests.support.toys import write_data

MATRIX = MatrixConfig(datasets=["toy"], decodings=[Decoding.choice], representation=RepresentationConfig(enabled=False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models in folders of one name, and the data."""
    folder = tmp_path_factory.mktemp("bases")
    write_data(folder / "data")
    FAMILIES["llava"](folder / "first" / "checkpoint-10")
    shutil.copytree(folder / "first", folder / "second")
    weights = folder / "second" / "checkpoint-10" / "model.safetensors"
    tensors = load_file(weights)
    save_file({key: value + torch.full_like(value, 0.01) for key, value in tensors.items()}, weights, {"format": "pt"})
    return folder


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> EvalMatrixConfig:
    return EvalMatrixConfig(
        outputs=str(tmp_path),
        manifests=[str(folder / "data")],
        threads=1,
        model=ModelConfig(path=str(folder / "first" / "checkpoint-10")),
        data=DataConfig(stages=[StageConfig(set="toy")]),
        matrix=MATRIX,
    )


def second(folder: Path) -> ModelConfig:
    return ModelConfig(path=str(folder / "second" / "checkpoint-10"))


def test_two_bases_whose_folders_have_one_name_share_neither_folder_nor_name_in_tables(
    folder: Path, config: EvalMatrixConfig, tmp_path: Path
) -> None:
    for base_config in (config, replace(config, model=second(folder))):
        eval_matrix(base_config, tmp_path)
    tables = [pd.read_csv(path) for path in sorted(tmp_path.glob("base-*/scores.csv"))]
    assert len(tables) == 2
    assert len({name for table in tables for name in table["model"]}) == 2
    assert len({name for table in tables for name in table["run"]}) == 2


def test_a_base_has_the_name_it_is_given_and_another_is_refused_under_it(
    folder: Path, config: EvalMatrixConfig, tmp_path: Path
) -> None:
    named = replace(config, name="größe 1")
    eval_matrix(named, tmp_path)
    scores = pd.read_csv(tmp_path / "größe 1" / "scores.csv")
    assert set(scores["run"]) == {"größe 1"}
    eval_matrix(named, tmp_path)  # again, as itself
    with pytest.raises(UserError, match=r"tables of another model: checkpoint-10-.*name="):
        eval_matrix(replace(named, model=second(folder)), tmp_path)
    with pytest.raises(UserError, match=r"tables of another target: toy, not other"):
        eval_matrix(replace(named, data=DataConfig(stages=[StageConfig(set="other")])), tmp_path)
    assert pd.read_csv(tmp_path / "größe 1" / "scores.csv").equals(scores)


def test_a_base_is_not_scored_into_the_folder_of_a_run(config: EvalMatrixConfig, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text("{}")
    with pytest.raises(UserError, match="holds a run"):
        eval_matrix(replace(config, name="mine"), tmp_path)
