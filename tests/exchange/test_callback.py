"""A training of transformers' Trainer that is looked at: unchanged to the bit, and a run like any other.

The shipped model at a rate that costs it half of the digits in three steps.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import distributed
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from examples.garments import MATRIX, MODEL, TARGET, conversations
from examples.trainer import collate
from examples.trainer import train as run_example
from forgetbench import ForgettingCallback
from forgetbench.commands.compare import Options, compare_checkpoints
from forgetbench.commands.eval_matrix import eval_matrix
from forgetbench.commands.import_ import importer
from forgetbench.commands.report import Options as Page
from forgetbench.commands.report import make_report
from forgetbench.commands.show import print_stored_tables, read_stored_tables
from forgetbench.config import EvalMatrixConfig, MatrixConfig, ModelConfig, RepresentationConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import Decoding
from forgetbench.exchange.live_model import base_of, changed_weights, is_sliced, trained_names
from forgetbench.models.checkpoint import list_checkpoints
from forgetbench.models.load import load_model
from forgetbench.models.tensors import tensor_bytes, whole
from forgetbench.runs.run import read_run

# peft 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]
SLOW = pytest.mark.slow
SETS = ["digits_naming", "emoji_category"]
HALF = MixedPrecisionPolicy(torch.bfloat16, torch.float32)


def watch(folder: Path, **settings: Any) -> ForgettingCallback:
    given = {"target": TARGET, "matrix": SETS, "items": 40, "outputs": folder / "outputs", "name": "run", **settings}
    return ForgettingCallback(**given)


class Draws(TrainerCallback):
    """Draws from every generator at every step, as data loading and dropout do."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.drawn += [random.random(), float(np.random.rand()), float(torch.rand(()))]


def trained(
    folder: Path,
    *callbacks: TrainerCallback,
    path: str | Path = MODEL,
    adapter: bool = False,
    resume: bool = False,
    make: type[Trainer] = Trainer,
    **settings: Any,
) -> Trainer:
    torch.set_num_threads(1)
    model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=settings.pop("dtype", torch.float32))
    processor = AutoProcessor.from_pretrained(MODEL)
    model.model.vision_tower.requires_grad_(False)
    if adapter:
        torch.manual_seed(0)
        modules = r".*language_model.*\.(q_proj|v_proj)"
        model = get_peft_model(model, LoraConfig(target_modules=modules, lora_dropout=0.2, r=4))
    given: dict[str, Any] = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": "none",
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        **settings,
    }
    trainer = make(
        model,
        TrainingArguments(str(folder / "saves"), **given),
        data_collator=lambda rows: collate(processor, rows),
        train_dataset=conversations(16),
        processing_class=processor,
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer


def left_by(trainer: Trainer) -> tuple[list[Any], dict[str, Any], dict[str, bytes]]:
    """Losses, what the model is like, and the bytes of its weights."""
    model: Any = trainer.model
    losses = [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row]
    state = {
        "modes": [one.training for one in model.modules()],
        "free": [one.requires_grad for one in model.parameters()],
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
        "forward": "forward" in vars(model),
    }
    weights = {name: tensor_bytes(whole(one.detach())) for name, one in model.named_parameters()}
    return losses, state, weights


@dataclass(frozen=True)
class Watched:
    """A training with the callback, for all tests that only look at it."""

    folder: Path
    settings: dict[str, Any]
    drawn: list[float]
    left: Any

    @property
    def run(self) -> Path:
        return self.folder / "outputs/run"


def watched(folder: Path, **settings: Any) -> Watched:
    draws = Draws()
    trainer = trained(folder, watch(folder), draws, report_to="tensorboard", **settings)
    return Watched(folder, settings, draws.drawn, left_by(trainer))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """With dropout and checkpointing."""
    return watched(tmp_path_factory.mktemp("adapter"), adapter=True, activation_checkpointing=True)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(tmp_path_factory.mktemp("narrow"), bf16=True, dtype=torch.bfloat16, gradient_accumulation_steps=2)


@pytest.mark.parametrize("training", ["full", "adapter", pytest.param("narrow", marks=SLOW)])
def test_training_is_the_same_to_the_bit_with_and_without_the_callback(
    training: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    beside: Watched = request.getfixturevalue(training)
    alone = Draws()
    plain = left_by(trained(tmp_path, alone, **beside.settings))
    assert beside.drawn == alone.drawn
    assert beside.left == plain
    assert set(pd.read_csv(beside.run / "scores.csv")["step"]) == {0, 2, 4}


def scored_again(folder: Path) -> None:
    """Score a run from its checkpoints, and find what the looks found."""
    run = folder / "outputs/run"
    matrix = MatrixConfig(
        datasets=SETS, decodings=[Decoding.choice], limit=20, representation=RepresentationConfig(enabled=False)
    )
    live = pd.read_csv(run / "scores.csv").drop(columns=["seconds"])
    shutil.move(folder / "outputs/.cells", folder / "cells")
    eval_matrix(
        EvalMatrixConfig(run=str(run), outputs=str(folder / "outputs"), threads=1, matrix=matrix), folder / "outputs"
    )
    pd.testing.assert_frame_equal(pd.read_csv(run / "scores.csv").drop(columns=["seconds"]), live)


def test_the_answers_of_the_live_model_are_those_of_its_checkpoints(full: Watched) -> None:
    scored_again(full.folder)


def test_commands_read_the_folder_as_any_run(full: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    run = full.run
    print_stored_tables(read_stored_tables(run), as_json=False)
    compare_checkpoints([str(run)], Options())
    make_report(run, Page())
    assert (run / "report.html").is_file()
    assert "ForgettingCallback(target=" in (run / "report.html").read_text("utf-8")
    assert pd.read_csv(run / "train.csv")["step"].tolist() == [1, 2, 3]
    assert read_run(run).parts == "projector+language"


def test_what_the_trainer_reports_to_gets_every_quadrant_with_its_interval_and_the_time(full: Watched) -> None:
    logged = EventAccumulator(str(next(full.folder.rglob("events.out.tfevents.*")).parent)).Reload()
    name = "train/forgetbench/ood_text-ood_image/choice"
    assert [one.step for one in logged.Scalars(name)] == [0, 2, 4]
    rows = pd.read_csv(full.run / "matrix.csv").set_index(["step", "quadrant"])
    for end in ("delta", "delta_ci_low", "delta_ci_high"):
        assert logged.Scalars(f"{name}/{end}")[-1].value == pytest.approx(rows.loc[(4, "ood_text-ood_image"), end])
    assert len(logged.Scalars("train/forgetbench/seconds")) == 3


def test_its_checkpoints_are_those_that_an_import_makes_of_the_trainers_own(full: Watched, tmp_path: Path) -> None:
    config = read_run(full.run).config
    config.name, config.outputs, config.guard.max_loss = "imported", str(tmp_path), None
    importer(full.folder / "saves")(config, tmp_path / "imported")
    ours, theirs = (list_checkpoints(one) for one in (full.run, tmp_path / "imported"))
    assert [(one.step, one.digest) for one in ours] == [(one.step, one.digest) for one in theirs]


def test_an_adapter_is_kept_merged_and_its_base_row_is_of_the_model_below_it(adapter: Watched, tmp_path: Path) -> None:
    run = read_run(adapter.run)
    assert run.config.method.name == "lora"
    delta = list_checkpoints(run.folder)[-1].delta()
    assert {name.rpartition(".self_attn.")[2] for name in delta} == {"q_proj.weight", "v_proj.weight"}
    config = run.config
    config.name, config.outputs = "imported", str(tmp_path)
    importer(adapter.folder / "saves")(config, tmp_path / "imported")
    imported = list_checkpoints(tmp_path / "imported")[-1].delta()
    assert all(torch.equal(delta[name], imported[name]) for name in imported)


def test_a_broken_budget_stops_the_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = watch(tmp_path, budget=12.0, every=1)
    trainer = trained(tmp_path, callback, max_steps=6, learning_rate=1e-2)
    rows = pd.read_csv(tmp_path / "outputs/run/guard.csv")
    assert trainer.state.global_step < 6
    assert rows["step"].max() == trainer.state.global_step
    assert rows["decision"].iloc[-1] == "stop"
    assert rows["looks"].eq(6).all()
    assert f"stopped after step {trainer.state.global_step}" in capsys.readouterr().out


def forget_step_4(folder: Path) -> None:
    """As if a training had ended before it."""
    shutil.rmtree(folder / "saves/checkpoint-4")
    shutil.rmtree(folder / "outputs/run/checkpoints/step_000004")


def test_a_resumed_training_goes_on_in_the_same_folder_to_the_same_rows(adapter: Watched, tmp_path: Path) -> None:
    shutil.copytree(adapter.folder, tmp_path, dirs_exist_ok=True)
    forget_step_4(tmp_path)
    trained(tmp_path, watch(tmp_path), Draws(), resume=True, **adapter.settings)
    once, again = (pd.read_csv(one / "outputs/run/scores.csv") for one in (adapter.folder, tmp_path))
    pd.testing.assert_frame_equal(again.drop(columns=["seconds"]), once.drop(columns=["seconds"]))
    with pytest.raises(
        UserError, match=r"checkpoints up to step 4, and this training starts anew.*\n?.*resume_from_check"
    ):
        trained(tmp_path, watch(tmp_path), **adapter.settings)


def test_a_trainer_that_resumes_on_other_weights_than_it_saved_is_refused(full: Watched, tmp_path: Path) -> None:
    shutil.copytree(full.folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "saves/checkpoint-4")
    # transformers 5.23 loads none of the tensors of a family whose files have other names than its model.
    with pytest.raises(UserError, match=r"goes on from step 2, but .* are not those of step 2.*from_pretrained"):
        trained(tmp_path, watch(tmp_path), resume=True)
    trained(tmp_path, watch(tmp_path, model=MODEL), path=tmp_path / "saves/checkpoint-2", resume=True)
    once, again = (pd.read_csv(one / "outputs/run/scores.csv")["value"] for one in (full.folder, tmp_path))
    assert again.tolist() == once.tolist()


def test_a_training_that_was_not_begun_with_the_callback_cannot_go_on_with_it(full: Watched, tmp_path: Path) -> None:
    shutil.copytree(full.folder / "saves", tmp_path / "saves")
    shutil.rmtree(tmp_path / "saves/checkpoint-4")
    with pytest.raises(UserError, match=r"holds no run, and this training goes on from step 2.*forgetbench import"):
        trained(tmp_path, watch(tmp_path), resume=True)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"target": "fashion_namin"}, "no dataset manifest named 'fashion_namin'.*fashion_naming"),
        ({"matrix": "digits_naming"}, "give a list of datasets"),
        ({"items": 1}, r"items=1\) for 2 datasets; give at least one for each"),
        ({"every": 0}, "every=0.*1 or more"),
        ({"budget": 100.0}, "budget=100.*below 100"),
        ({"matrix": [TARGET], "budget": 5.0}, "nothing to lose; add one"),
        ({"precision": "fp8"}, "give 'fp32' or 'bf16'"),
    ],
)
def test_a_wish_that_does_not_fit_is_refused_at_construction(wish: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        watch(tmp_path, **wish)


def moved(model: Any) -> None:
    model.lm_head.weight.data.add_(1)


def nameless(model: Any) -> None:
    model.config._name_or_path = ""


@pytest.mark.parametrize(
    ("change", "said"),
    [(moved, "is not the one in .*embed_tokens.weight differs"), (nameless, "does not say which folder or Hub id")],
)
def test_a_model_that_is_not_its_base_is_refused(change: Callable[[Any], None], said: str, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(MODEL)
    change(model)
    arguments = TrainingArguments(str(tmp_path), max_steps=1, report_to="none", use_cpu=True)
    trainer = Trainer(model, arguments, train_dataset=conversations(1), callbacks=[watch(tmp_path)])
    with pytest.raises(UserError, match=said):
        trainer.train()
    assert not (tmp_path / "outputs/run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed.*Use FSDP2 or DDP.*forgetbench import"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP1.*fsdp_version: 2.*or DDP.*forgetbench import"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, ""),
    ],
)
def test_ways_of_sharing_a_model_that_cannot_be_looked_at_are_refused_by_name(
    settings: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    callback = watch(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said) if said else nullcontext():
        callback.on_init_end(arguments, TrainerState(), TrainerControl())


@pytest.mark.parametrize("version", [1, 2])
def test_the_trainers_own_key_says_which_fsdp_it_is(version: int, tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    arguments.fsdp, arguments.fsdp_config = True, {"version": version}
    with pytest.raises(UserError, match="FSDP1") if version == 1 else nullcontext():
        watch(tmp_path).on_init_end(arguments, TrainerState(), TrainerControl())


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of one process, whose slices are all of a tensor."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("adapter", [False, True])
def test_a_sliced_model_is_read_in_full_width_and_by_the_names_of_its_base(adapter: bool) -> None:
    loaded = load_model(ModelConfig(path=MODEL))
    base, model = base_of(loaded), loaded.model
    if adapter:
        model = get_peft_model(model, LoraConfig(target_modules=r".*\.(q_proj|fc1)", init_lora_weights=False))
    names = trained_names(model, base.fingerprints)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 1e-3  # so that bf16 would show
    before = changed_weights(model, base, names)
    for name, module in list(model.named_modules()):
        if name.endswith(("layers.1", "layers.2")):
            model.set_submodule(name, fully_shard(checkpoint_wrapper(module), mp_policy=HALF))
    fully_shard(model, mp_policy=HALF)
    with torch.no_grad():
        model(input_ids=torch.ones(1, 4, dtype=torch.long))  # leaves what is outside the layers whole, in bf16
    assert is_sliced(model)
    after = changed_weights(model, base, names)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert any(name.startswith("model.language_model.layers.1.") for name in after)
    assert changed_weights(model, base, names, keeps=False) == {}


@SLOW
def test_the_callback_comes_without_hydra() -> None:
    code = "import forgetbench, sys; forgetbench.ForgettingCallback; sys.exit('hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left, which assert that FSDP2 trains to the same bits with and without the callback."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29741", "-m"]
    done = subprocess.run(
        [*command, "tests.support.watched", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@SLOW
@pytest.mark.parametrize("sharing", ["ddp", "fsdp"])
def test_two_processes_score_together_and_stop_together(sharing: str, two: Path) -> None:
    ends = [json.loads((two / f"rank{rank}.json").read_text())[sharing] for rank in range(2)]
    assert ends[0] == ends[1]
    assert 0 < ends[0] < 6
    assert pd.read_csv(two / sharing / "outputs/run/guard.csv")["decision"].iloc[-1] == "stop"


@SLOW
def test_slices_train_to_the_weights_of_whole_models(two: Path) -> None:
    sliced, whole_ = (list_checkpoints(two / name / "outputs/run")[1].delta() for name in ("fsdp", "ddp"))
    assert sliced.keys() == whole_.keys()
    assert all(torch.allclose(sliced[name], value, rtol=0, atol=1e-5) for name, value in whole_.items())


@SLOW
def test_a_sliced_training_that_is_resumed_ends_on_the_same_weights(two: Path) -> None:
    once, again = (list_checkpoints(two / name / "outputs/run") for name in ("full", "resumed"))
    assert [(one.step, one.digest) for one in again] == [(one.step, one.digest) for one in once]


@SLOW
@pytest.mark.parametrize("training", ["fsdp", "full", "adapter"])
def test_the_answers_beside_a_sliced_model_are_those_of_its_checkpoints(training: str, two: Path) -> None:
    scored_again(two / training)


def test_the_example_leaves_a_run_with_every_quadrant(tmp_path: Path) -> None:
    run_example(str(tmp_path), steps=1, items=16, use_cpu=True, dataloader_pin_memory=False)
    rows = pd.read_csv(tmp_path / "outputs/garments/matrix.csv")
    assert all(steps == [0, 1] for steps in rows.groupby("quadrant")["step"].apply(list))
    assert rows["quadrant"].nunique() == len(MATRIX)


@SLOW
@pytest.mark.skipif("FORGETBENCH_TRL_PYTHON" not in os.environ, reason="names no interpreter with trl")
def test_the_example_of_trl_prints_a_curve_of_forgetting(tmp_path: Path) -> None:
    command = [
        os.environ["FORGETBENCH_TRL_PYTHON"],
        "-m",
        "examples.trl_sft",
        "--folder",
        str(tmp_path),
        "--steps",
        "3",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("step ")] == ["1", "2", "3"]


@SLOW
@pytest.mark.skipif(
    "FORGETBENCH_LLAMAFACTORY_PYTHON" not in os.environ, reason="names no interpreter with llamafactory"
)
def test_the_example_of_llamafactory_leaves_a_run(tmp_path: Path) -> None:
    python = os.environ["FORGETBENCH_LLAMAFACTORY_PYTHON"]
    command = [python, "-m", "examples.llamafactory_sft", "--folder", str(tmp_path), "--steps", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(pd.read_csv(tmp_path / "outputs/garments/matrix.csv")["step"]) == {0, 1, 2, 3}
