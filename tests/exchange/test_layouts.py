"""What other trainers say of a training, and what stands for a number and is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from forgetbench.core.errors import UserError
from forgetbench.exchange.layouts import read_layout

ROW = {"step": 1, "loss": 0.5, "learning_rate": 1e-4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "saved/checkpoint-2"
    path.mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, path / "model.safetensors")
    return tmp_path / "saved"


def write_log(folder: Path, log: object) -> None:
    (folder / "checkpoint-2/trainer_state.json").write_text(json.dumps({"log_history": log}))


@pytest.mark.parametrize("log", [None, 4, "loss", {"loss": 1}, [1], [None]])
def test_a_log_that_is_no_list_of_rows_is_refused(folder: Path, log: object) -> None:
    write_log(folder, log)
    with pytest.raises(UserError, match=r"trainer_state\.json: log_history is no list of rows"):
        read_layout(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("loss", "low"), ("loss", [0.5]), ("step", None), ("step", "1"), ("learning_rate", {"vision": 1})],
)
def test_a_row_whose_number_is_none_is_refused_by_its_key(folder: Path, key: str, value: object) -> None:
    write_log(folder, [ROW, {**ROW, key: value}])
    with pytest.raises(UserError, match=rf"trainer_state\.json: {key} is "):
        read_layout(folder)


def test_rows_of_evaluation_and_what_was_not_logged_are_no_fault(folder: Path) -> None:
    write_log(folder, [{"step": 1, "eval_loss": "low"}, {**ROW, "learning_rate": None}])
    assert [row["loss"] for row in read_layout(folder).log] == [0.5]


@pytest.mark.parametrize("text", ["slow", "nan", "inf", "-1", "9" * 400])
def test_a_hyperparameter_that_is_no_number_is_refused_by_its_name(folder: Path, text: str) -> None:
    (folder / "README.md").write_text(f"### Training hyperparameters\n\n- learning_rate: {text}\n")
    with pytest.raises(UserError, match=r"README\.md: learning_rate is "):
        read_layout(folder).number("learning_rate")


@pytest.mark.parametrize(("text", "value"), [("16", 16), ("16.0", 16)])
def test_a_count_is_a_whole_number(folder: Path, text: str, value: int) -> None:
    (folder / "README.md").write_text(f"### Training hyperparameters\n\n- train_batch_size: {text}\n- seed: 2.5\n")
    layout = read_layout(folder)
    assert layout.count("train_batch_size") == value
    assert layout.count("gradient_accumulation_steps") is None
    with pytest.raises(UserError, match="a whole number is expected"):
        layout.count("seed")


def test_a_checkpoint_of_a_step_that_no_training_has_is_none(folder: Path) -> None:
    (folder / "checkpoint-2").rename(folder / f"checkpoint-{'9' * 100}")
    with pytest.raises(UserError, match="holds no checkpoint"):
        read_layout(folder)
