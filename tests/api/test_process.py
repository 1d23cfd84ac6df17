"""Calls from a program: several in one process, from any thread, and nothing of them stays behind."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.resolvers import oc
from typer.testing import CliRunner

import forgetbench
from forgetbench.cli import app
from forgetbench.config import SweepConfig

RECIPE: dict[str, Any] = {"steps": 2, "batch_size": 2, "checkpoints": {"every": 2}}
MATRIX: dict[str, Any] = {
    "datasets": ["fashion_naming", "digits_naming"],
    "limit": 4,
    "decodings": ["choice"],
    "representation": {"enabled": False},
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained in a thread, as a server or a notebook may do."""
    outputs = tmp_path_factory.mktemp("process") / "outputs"

    def train() -> forgetbench.RunResult:
        return forgetbench.finetune(recipe=RECIPE, outputs=outputs, name="run", threads=1, tracker="tensorboard")

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(train).result()
    assert list(run.checkpoints) == ["step_000002"]
    return outputs


def trained(outputs: Path) -> forgetbench.RunResult:
    """The call that made the run, which finds nothing left to do."""
    return forgetbench.finetune(recipe=RECIPE, outputs=outputs, name="run", threads=1)


def points(run: Path) -> dict[str, list[int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_scoring_gives_tables_and_prints_none_and_its_scores_stand_beside_training(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = forgetbench.eval_matrix(run=outputs / "run", matrix=MATRIX, tracker="tensorboard", threads=1)
    output = capsys.readouterr()
    assert output.out == ""
    assert "scores.csv, matrix.csv, summary.csv" in output.err
    assert "best on target" not in output.err
    assert set(run.matrix["step"]) == {0, 2}
    name = "forgetbench/id_text-id_image/choice"
    expected = {"loss": [1, 2], name: [0, 2], f"{name}/delta": [2], "forgetbench/summary/choice/A_T": [2]}
    assert expected.items() <= points(outputs / "run").items()
    # A finished run's tables go there afterwards, too, without a model and without a second point.
    done = CliRunner().invoke(app, ["score", f"run={outputs / 'run'}", "tracker=tensorboard"])
    assert done.exit_code == 0, done.output
    assert "best on target" in done.stdout
    assert expected.items() <= points(outputs / "run").items()


def test_a_call_works_inside_a_running_event_loop_and_from_several_threads(outputs: Path) -> None:
    async def cell() -> forgetbench.RunResult:
        return trained(outputs)

    assert asyncio.run(cell()).folder == outputs / "run"
    with ThreadPoolExecutor(2) as pool:
        refused = [pool.submit(forgetbench.finetune, [f"recpie={seed}"]) for seed in range(2)]
        assert ["Did you mean recipe?" in str(future.exception()) for future in refused] == [True] * 2


@pytest.fixture
def own_accelerator() -> Iterator[Accelerator]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(mixed_precision="bf16", cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_call_leaves_the_process_as_it_was(outputs: Path, tmp_path: Path, own_accelerator: Accelerator) -> None:
    threads, bars = torch.get_num_threads(), transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.enable_progress_bar()
    torch.set_num_threads(1)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    before = Path.cwd(), dict(os.environ), sys.stdout, sys.stderr
    try:
        forgetbench.finetune(recipe=RECIPE, outputs=tmp_path, name="run", threads=2)
        assert torch.get_num_threads() == 1
        assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
        assert (Path.cwd(), dict(os.environ), sys.stdout, sys.stderr) == before
        assert transformers.utils.logging.is_progress_bar_enabled()
        assert own_accelerator.mixed_precision == "bf16"
        assert Accelerator(mixed_precision="bf16", cpu=True).state is not None
    finally:
        torch.set_num_threads(threads)
        if not bars:
            transformers.utils.logging.disable_progress_bar()
    # And what it made is what the other call made, whatever the program had drawn before.
    weights = "run/checkpoints/step_000002/delta.safetensors"
    assert (tmp_path / weights).read_bytes() == (outputs / weights).read_bytes()


def test_a_program_of_hydra_keeps_its_configuration_and_its_resolvers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.yaml").write_text("token: ${oc.env:MY_TOKEN}\n")
    monkeypatch.setenv("MY_TOKEN", "of-the-program")
    OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        for _ in range(2):
            with pytest.raises(forgetbench.UserError, match="MY_TOKEN is called like a secret"):
                forgetbench.finetune(["name=${oc.env:MY_TOKEN}"])
            assert compose("app").token == "of-the-program"


def test_ctrl_c_is_keyboard_interrupt_and_the_next_call_works(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("forgetbench.commands.finetune.finetune", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(outputs)
    trained(outputs)
    assert "already trained" in capsys.readouterr().err


def test_what_the_system_refuses_is_said_as_the_command_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    given = [f"outputs={tmp_path / 'file'}", "name=x"]
    with pytest.raises(forgetbench.UserError) as refused:
        forgetbench.finetune(given)
    assert f"{refused.value}\n" == CliRunner().invoke(app, ["finetune", *given]).stderr
    assert (refused.value.__cause__, refused.value.__suppress_context__) == (None, True)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "delta.safetensors")

    monkeypatch.setattr("forgetbench.commands.finetune.finetune", full)
    with pytest.raises(OSError, match="No space left") as stopped:
        forgetbench.finetune(outputs=tmp_path, name="x")
    assert "make room" in stopped.value.__notes__[0]


def test_a_fault_of_ours_keeps_its_class_and_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("forgetbench.commands.finetune.finetune", breaks)
    with pytest.raises(ZeroDivisionError) as raised:
        forgetbench.finetune(outputs=tmp_path, name="x")
    assert raised.traceback[-1].name == "breaks"


def test_a_sweep_names_what_failed_and_returns_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def point(config: SweepConfig, folder: Path) -> None:
        if config.recipe.steps == 2:
            raise ValueError("<b>this one</b>")

    monkeypatch.setattr("forgetbench.commands.sweep.sweep_point", point)
    result = forgetbench.sweep(recipe={"steps": (1, 2)}, outputs=tmp_path, name="grid")
    assert result.folder == tmp_path / "grid"
    (failed,) = result.failed
    assert (failed.folder.name, failed.cause) == ("recipe.steps-2", "ValueError: <b>this one</b>")
    assert failed.traceback is not None
    assert "Failed: " in capsys.readouterr().err
    assert "this one" in str(result)
    assert "&lt;b&gt;" in result._repr_html_()
