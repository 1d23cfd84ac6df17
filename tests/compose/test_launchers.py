"""Sweeps whose points run in other processes: joblib, submitit's local executor, a local Ray."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf
from typer.testing import CliRunner

from forgetbench import compose
from forgetbench.cli import app
from forgetbench.commands import sweep
from forgetbench.compose import points
from forgetbench.compose.launchers import EXTRAS, missing_plugin, process_failure, shared_overrides
from forgetbench.core.errors import UserError
from tests.support import point_tasks

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # other processes find this module's tasks
    monkeypatch.setenv("FORGETBENCH_DOWNLOADS", "/scratch/${USER}'s sets")


@pytest.fixture
def joblib() -> Iterator[None]:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    from joblib.externals.loky import get_reusable_executor

    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token into the home folder
    yield
    ray.shutdown()


def launched(launcher: str, seeds: str, *overrides: str) -> dict[str, compose.FailedPoint]:
    """The points without a result, by folder name; the others are summarised."""
    summarised: list[Path] = []
    failed = compose.sweep(
        [f"launcher={launcher}", f"seed={seeds}", "name=small", *overrides],
        point_tasks.steps,
        lambda _, points: summarised.extend(points),
    )
    every = {f"seed-{seed}" for seed in seeds.split(",")}
    assert {path.name for path in summarised} == every - {point.folder.name for point in failed}
    return {point.folder.name: point for point in failed}


def processes(seed: int) -> list[int]:
    """Which process did each step of a point; never this one."""
    pids = point_tasks.processes(Path(f"outputs/small/seed-{seed}"))
    assert os.getpid() not in pids
    return pids


@pytest.mark.usefixtures("joblib")
def test_joblib_runs_points_and_the_same_command_finishes_one_whose_process_was_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweep, "sweep_point", point_tasks.steps)
    command = ["sweep", "launcher=joblib", "seed=0,1,3", "name=small", "threads=2"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "A process of the sweep died: TerminatedWorkerError: " in done.stderr
    assert "Not finished: outputs/small/seed-3: its process died" in done.stderr
    assert "the same command" in done.stderr
    [killed] = processes(3)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    error = "outputs/small/seed-1/error.txt"
    assert done.stderr == f"Failed: outputs/small/seed-1: RuntimeError: out of memory\n  traceback: {error}\n"
    assert Path(error).read_text("utf-8").count("Traceback") == 1
    [process] = set(processes(0))
    where = {"where": str(Path.cwd()), "downloads": os.environ["FORGETBENCH_DOWNLOADS"]}
    assert point_tasks.read(Path("outputs/small/seed-0"))[0] == {"pid": process, "threads": 2, **where}
    first, *others = processes(3)
    assert first == killed
    assert len(others) == 2
    assert killed not in others
    left = [path.name for path in Path("outputs/small").rglob("*") if not path.name.startswith("step_")]
    assert sorted(left) == ["error.txt", "multirun.yaml", "seed-0", "seed-1", "seed-3"]


def test_submitit_requeues_a_preempted_point_and_tells_of_a_killed_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)  # what it waits for a slow file system
    failed = launched("submitit_local", "2,3")
    preempted, *others = processes(2)
    assert len(others) == 2
    assert preempted not in others
    assert failed["seed-3"].traceback is None
    assert "squeue" in capsys.readouterr().err
    assert len(processes(3)) == 1
    assert launched("submitit_local", "2,3") == {}
    assert len(processes(3)) == 3


@pytest.mark.usefixtures("ray")
def test_ray_starts_a_killed_point_again_until_its_retries_are_used_up(capsys: pytest.CaptureFixture[str]) -> None:
    failed = launched("ray", "1,3")
    assert {name: point.cause for name, point in failed.items()} == {"seed-1": "RuntimeError: out of memory"}
    killed, *others = processes(3)
    assert len(others) == 2
    assert killed not in others
    shutil.rmtree("outputs")
    failed = launched("ray", "3,4", "hydra.launcher.ray.remote.max_retries=0")
    assert failed["seed-3"].traceback is None
    assert "died: WorkerCrashedError: " in capsys.readouterr().err


def test_two_commands_never_work_on_one_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "TAKEOVER_S", 0)
    seen: list[int] = []
    folder = Path("outputs/grid-seed/seed-0")
    folder.mkdir(parents=True)
    with FileLock(folder / points.LOCK_FILE):
        [unfinished] = compose.sweep(["seed=0,4"], lambda config, _: seen.append(config.seed))
    assert (unfinished.folder, unfinished.traceback) == (folder, None)
    assert "another command" in unfinished.cause
    assert seen == [4]


def test_folder_that_a_machine_lacks_is_named() -> None:
    job = compose.point_job(lambda *_: None)
    with pytest.raises(UserError, match=r"/no/such/folder: not on .* all machines share"):
        job.func(OmegaConf.create(), task=print, working_folder="/no/such/folder")


@pytest.mark.parametrize(("command", "watches"), [(os.getppid, 1), (os.getpid, 0)], ids=["its parent", "itself"])
def test_only_a_process_that_the_command_itself_started_ends_with_it(
    command: Callable[[], int], watches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[int] = []
    monkeypatch.setattr(points, "end_with_parent", lambda: watched.append(1))
    with pytest.raises(UserError, match="/no/such/folder"):
        compose.point_job(lambda *_: None).func(
            OmegaConf.create(), task=print, working_folder="/no/such/folder", command=command()
        )
    assert len(watched) == watches


@pytest.mark.parametrize(("plugin", "extra"), EXTRAS.items())
def test_launcher_that_is_not_installed_is_named_with_its_extra(plugin: str, extra: str) -> None:
    refusal = missing_plugin(f"In 'sweep': Could not find 'hydra/launcher/{plugin}'")
    assert refusal == f"{plugin} is not installed: pip install 'forgetbench[{extra}]'"
    assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text("utf-8")


def test_preset_whose_launcher_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    Plugins.instance()  # brings the launchers that are installed
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], "ray.yaml", raising=False)
    done = CliRunner().invoke(app, ["sweep", "launcher=ray"])
    assert done.exit_code == 2
    assert done.stderr == "ray is not installed: pip install 'forgetbench[ray]'\n"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["launcher=submitit"], "srun is not on this machine"),
        (["launcher=submitit_local", "hydra.launcher.tasks_per_node=2"], "hydra.launcher.tasks_per_node=2: .*torchrun"),
    ],
)
def test_launcher_that_could_not_start_a_point_is_refused(
    overrides: list[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=named):
        compose.sweep(overrides, lambda *_: None)
    assert list(Path().iterdir()) == []


def test_ray_that_does_not_run_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    Plugins.instance()  # imports the launchers anew
    plugin = pytest.importorskip("hydra_plugins.hydra_ray_launcher.ray_launcher")

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(plugin.RayLauncher, "launch", refuse)
    with pytest.raises(UserError, match=r"^no Ray is running here: start one with `ray start --head`, or leave out .*"):
        compose.sweep(["launcher=ray", "hydra.launcher.ray.init.address=auto", "seed=0,1"], lambda *_: None)


def test_slurm_gets_the_resources_the_requeue_and_the_array_of_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    bin_folder = Path("bin").absolute()
    bin_folder.mkdir()
    for name, line in (("srun", ""), ("sbatch", f'cp "$1" {bin_folder}/script; echo no such partition >&2; exit 1')):
        (bin_folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (bin_folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    failed = compose.sweep(["launcher=submitit", "seed=0,1", "hydra.launcher.partition=gpu"], point_tasks.steps)
    assert [point.cause for point in failed] == ["not begun", "not begun"]
    script = (bin_folder / "script").read_text()
    flags = ("array=0-1%2", "cpus-per-task=8", "gpus-per-node=1", "mem=64GB", "partition=gpu", "time=240", "requeue")
    assert [flag for flag in flags if f"#SBATCH --{flag}\n" not in script] == []


def test_own_launcher_file_builds_on_a_shipped_one() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    launcher_file = Path("conf/launcher/my_cluster.yaml")
    launcher_file.parent.mkdir(parents=True)
    launcher_file.write_text(
        "# @package _global_\ndefaults:\n  - submitit\n\nhydra:\n  launcher:\n    cpus_per_task: 12\n"
    )
    assert compose.compose(compose.SweepConfig, ["launcher=my_cluster"]).threads == 12


def test_errors_of_the_program_itself_are_not_taken_for_dead_processes() -> None:
    assert process_failure(RuntimeError("a bug")) is None
    assert shared_overrides(Path("a b"))[0] == f"hydra.sweep.dir='{Path.cwd()}/a b'"


GRID = [
    "recipe=full_high_lr,full_low_lr", "model=tiny_random", "threads=1", "name=real", "recipe.steps=4",
    "recipe.batch_size=2", "recipe.checkpoints.log_spaced=null", "recipe.checkpoints.every=2", "matrix.limit=12",
    "matrix.batch_size=2", "matrix.representation.images=8",
    "matrix.datasets=[fashion_naming,fashion_knowledge,emoji_open]",
]  # fmt: skip


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep as one process makes it."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert compose.sweep(GRID, sweep.sweep_point, sweep.summarise_sweep) == []
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_interrupted_points_end_as_one_process_makes_them(
    launcher: str, one_process: Path, request: pytest.FixtureRequest
) -> None:
    if launcher == "submitit_local":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    else:
        request.getfixturevalue(launcher)
    overrides = [f"launcher={launcher}", *GRID]
    task = point_tasks.preempted_point if launcher == "submitit_local" else point_tasks.killed_point
    failed = compose.sweep(overrides, task, sweep.summarise_sweep)
    if launcher == "joblib":
        assert {point.traceback for point in failed} == {None}
        failed = compose.sweep(overrides, task, sweep.summarise_sweep)
    assert failed == []
    assert len(list(Path().glob("stopped_*"))) == 1
    made = [line for path in Path().glob("made_*.txt") for line in path.read_text().splitlines()]
    assert len(made) == len(set(made)) == len(list(Path("outputs/.cells").glob("*.parquet"))) > 0
    measured = {"scores.csv": ["seconds"], "train.csv": ["samples_per_s", "tokens_per_s", "peak_memory_mb"]}
    expected = sorted(path.relative_to(one_process) for path in one_process.glob("outputs/real/**/*.csv"))
    assert {path.name for path in expected} >= {*measured, "matrix.csv"}
    assert sorted(Path().glob("outputs/real/**/*.csv")) == expected
    for path in expected:
        left, right = (
            pd.read_csv(folder / path, dtype=str).drop(columns=measured.get(path.name, []))
            for folder in (one_process, Path())
        )
        assert left.to_csv() == right.to_csv(), path
    weights = list(one_process.glob("outputs/real/**/delta.safetensors"))
    assert weights
    for path in weights:
        assert path.read_bytes() == path.relative_to(one_process).read_bytes()
