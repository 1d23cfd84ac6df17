"""Hydra's run and multirun with fake tasks."""

from __future__ import annotations

import errno
import os
import pickle
import shlex
from functools import partial
from pathlib import Path

import pytest

from forgetbench import compose
from forgetbench.commands import sweep
from forgetbench.compose.overrides import folder_name, parse
from forgetbench.config import EvalMatrixConfig, FinetuneConfig, SweepConfig
from forgetbench.core.errors import UserError
from forgetbench.core.paths import shipped


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_task_gets_its_typed_config_and_its_folder() -> None:
    seen: list[tuple[FinetuneConfig, Path]] = []
    compose.run(FinetuneConfig, ["seed=7"], lambda config, folder: seen.append((config, folder)))
    [(config, folder)] = seen
    assert config.seed == 7
    assert folder == Path("outputs/fashion_naming-full_low_lr-seed7")


def test_a_run_of_fewer_steps_than_checkpoints_is_composed() -> None:
    config = compose.compose(FinetuneConfig, ["recipe.steps=2"])
    assert (config.recipe.steps, config.recipe.checkpoints.log_spaced) == (2, 4)


def test_a_checkpoint_after_the_last_step_is_refused() -> None:
    keep = ["recipe.checkpoints.log_spaced=null", "recipe.checkpoints.steps=[1,3]"]
    with pytest.raises(UserError, match=r"recipe\.checkpoints\.steps .*step 3 is outside the 2 steps"):
        compose.compose(FinetuneConfig, ["recipe.steps=2", *keep])


def test_hydra_leaves_no_files_of_its_own() -> None:
    compose.run(FinetuneConfig, ["name=mine"], lambda *_: None)
    assert files("outputs") == []


def test_run_stays_in_the_working_folder() -> None:
    folders: list[Path] = []
    compose.run(FinetuneConfig, [], lambda *_: folders.append(Path.cwd()))
    assert folders == [Path.cwd()]


def test_scoring_leaves_no_files_of_its_own() -> None:
    compose.run(EvalMatrixConfig, [], lambda *_: None)
    assert files("outputs") == []


def test_user_error_of_a_task_passes_and_hydra_adds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> None:
        raise UserError("the folder holds another run")

    with pytest.raises(UserError, match="another run"):
        compose.run(FinetuneConfig, [], refuse)
    assert capsys.readouterr().err == ""


def test_refused_config_leaves_nothing() -> None:
    with pytest.raises(UserError, match=r"recipe\.warmup"):
        compose.run(FinetuneConfig, ["recipe.warmup=2"], lambda *_: None)
    with pytest.raises(UserError, match=r"recipe\.lr"):
        compose.sweep(["recipe.lr=1e-4,-1"], lambda *_: None)
    assert list(Path().iterdir()) == []


def test_every_point_of_a_grid_runs_in_a_folder_named_after_it() -> None:
    seen: list[tuple[float, int, str]] = []
    failed = compose.sweep(
        ["recipe.lr=1e-5,1e-4", "seed=0,1", "data=digits_naming"],
        lambda config, folder: seen.append((config.recipe.lr, config.seed, folder.as_posix())),
    )
    assert failed == []
    base = "outputs/grid-recipe.lr--seed--data-digits_naming/recipe.lr"
    assert seen == [
        (1e-05, 0, f"{base}-1e-05--seed-0"),
        (1e-05, 1, f"{base}-1e-05--seed-1"),
        (1e-04, 0, f"{base}-0.0001--seed-0"),
        (1e-04, 1, f"{base}-0.0001--seed-1"),
    ]


def points(*overrides: str) -> list[str]:
    seen: list[str] = []
    compose.sweep(list(overrides), lambda _, folder: seen.append(folder.relative_to("outputs").as_posix()))
    return seen


def test_a_points_name_holds_what_varies_in_whatever_order_it_is_given() -> None:
    given = ["seed=0,1", "model.dtype=fp32", "recipe.steps=3", "name=mine"]
    assert points(*given) == points(*reversed(given)) == ["mine/seed-0", "mine/seed-1"]


def test_what_does_not_vary_is_in_the_name_of_the_sweep_so_that_two_sweeps_share_no_folder() -> None:
    assert points("recipe.steps=3")[0] == "demo--recipe.steps-3/recipe-full_high_lr"
    assert points("seed=0,1", "recipe.steps=3")[0] == "grid-seed--recipe.steps-3/seed-0"
    assert points("seed=0,1", "matrix.limit=3", "threads=1")[0] == "grid-seed/seed-0"


def test_a_named_sweep_that_is_narrowed_keeps_the_names_of_its_points() -> None:
    assert points("sweep=methods", "method=plain", "seed=0", "recipe.lr=4e-4") == [
        "methods/method-plain--recipe.lr-0.0004--seed-0"
    ]


def test_points_whose_names_would_be_the_same_are_told_from_points_that_are_the_same() -> None:
    with pytest.raises(UserError, match="share the folder"):
        points("model.path=a/b,a-b")
    with pytest.raises(UserError, match="same training"):
        points("recipe.lr=1e-3,0.001")


def test_sweep_without_overrides_is_the_demo() -> None:
    seen: list[tuple[str, str]] = []
    compose.sweep([], lambda config, folder: seen.append((folder.as_posix(), config.method.name)))
    assert seen == [
        ("outputs/demo/recipe-full_high_lr", "plain"),
        ("outputs/demo/recipe-full_low_lr", "plain"),
        ("outputs/demo/recipe-lora", "lora"),
        ("outputs/demo/recipe-hybrid", "plain"),
    ]


def test_named_sweep_keeps_its_points_when_a_key_is_swept_too() -> None:
    seen: list[str] = []
    compose.sweep(["sweep=demo", "seed=0,1"], lambda _, folder: seen.append(folder.as_posix()))
    assert len(seen) == 8
    assert "outputs/demo/recipe-hybrid--seed-1" in seen


def test_failing_point_is_named_and_the_others_complete() -> None:
    done: list[int] = []
    summarised: list[list[int]] = []

    def task(config: SweepConfig, folder: Path) -> None:
        if config.seed == 1:
            raise RuntimeError("out of memory")
        done.append(config.seed)

    failed = compose.sweep(["seed=0,1,2"], task, lambda *_: summarised.append(list(done)))
    assert done == [0, 2]
    assert summarised == [[0, 2]]
    [point] = failed
    assert point.folder == Path("outputs/grid-seed/seed-1")
    assert point.cause == "RuntimeError: out of memory"
    assert "Traceback" in (point.folder / "error.txt").read_text("utf-8")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
def test_a_disk_that_takes_no_more_ends_the_sweep_at_its_first_point(number: int) -> None:
    begun: list[int] = []
    summarised: list[object] = []

    def task(config: SweepConfig, folder: Path) -> None:
        begun.append(config.seed)
        if config.seed == 1:
            raise OSError(number, os.strerror(number), str(folder / "train.csv"))

    with pytest.raises(OSError, match=r"seed-1/train\.csv") as refused:
        compose.sweep(["seed=0,1,2"], task, lambda *_: summarised.append(1))
    assert (refused.value.errno, begun, summarised) == (number, [0, 1], [])
    assert compose.sweep(["seed=0,1,2"], lambda *_: None, lambda *_: summarised.append(1)) == []
    assert [len(summarised), *Path("outputs").rglob(".lock")] == [1]


def test_error_is_forgotten_when_the_point_succeeds() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    assert len(compose.sweep(["seed=0,1"], fail)) == 2
    assert compose.sweep(["seed=0,1"], lambda *_: None) == []
    assert [name for name in files("outputs") if name.endswith("error.txt")] == []


def test_errors_of_another_grid_in_the_folder_are_not_this_ones() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    compose.sweep(["seed=0,1", "name=shared"], fail)
    for path in Path("outputs/shared").glob("*/error.txt"):
        os.utime(path, (0, 0))
    assert compose.sweep(["seed=2,3", "name=shared"], lambda *_: None) == []


def test_interrupt_stops_every_point() -> None:
    seen: list[int] = []

    def interrupted(config: SweepConfig, folder: Path) -> None:
        seen.append(config.seed)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compose.sweep(["seed=0,1"], interrupted)
    assert seen == [0]


def test_job_can_be_sent_to_another_process() -> None:
    job = compose.point_job(sweep.sweep_point)
    assert pickle.loads(pickle.dumps(job)).keywords["task"] is sweep.sweep_point


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["recipe=lora"], "recipe-lora"),
        (["a", "", "b"], "a--b"),
        (["recipe.parts-[vision, projector]"], "recipe.parts-vision+projector"),
        (["model.path-/some/where/../x"], "model.path--some-where-..-x"),
        (["'quoted text'"], "quotedtext"),
        ([""], "point"),
        (["..."], "point"),
    ],
)
def test_folder_name_is_safe(items: list[str], expected: str) -> None:
    assert folder_name(*items) == expected


def test_long_folder_names_end_in_a_digest() -> None:
    first, second = folder_name("x" * 300), folder_name("x" * 301)
    assert first != second
    assert len(first) == len(second) == 150


@pytest.mark.parametrize(
    "name",
    ["größe", "実験", "epoch=3-step=5", "v2 (best)", "a[1]", "it's", "50% #3", 'say "hi"', "naïve run", "x~y", "é"],
)
def test_a_name_that_can_mean_nothing_else_is_taken_as_it_is(name: str) -> None:
    config = compose.compose(FinetuneConfig, [f"name={name}", f"model.path={name}"])
    assert (config.name, config.model.path) == (name, name)
    folders: list[Path] = []
    compose.run(FinetuneConfig, [f"name={name}"], lambda _, folder: folders.append(folder))
    assert folders == [Path("outputs") / name]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("[größe,b]", ["größe", "b"]),
        ('["größe", b=2]', ["größe", "b=2"]),
        ("[~/sets, '~/as it is']", ["HOME/sets", "~/as it is"]),
        ("[été 1,été 2]", ["été 1", "été 2"]),
    ],
)
def test_elements_of_a_list_are_taken_as_they_are(given: str, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "HOME")
    assert parse([f"matrix.datasets={given}"])[0].value() == read


def test_a_tilde_is_the_home_folder_where_the_shell_left_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert compose.compose(FinetuneConfig, ["model.path=~/models/b"]).model.path == "/home/me/models/b"
    assert compose.compose(FinetuneConfig, ["model.path=base~"]).model.path == "base~"


@pytest.mark.parametrize("line", ["name=a,b (c)", "name=a,b", 'name="half', "matrix.datasets=[a,ü", "name=[x],(y"])
def test_what_could_be_read_in_two_ways_is_refused_with_the_argument_that_works(line: str) -> None:
    key, _, value = line.partition("=")
    read = partial(compose.compose, EvalMatrixConfig if key.startswith("matrix") else FinetuneConfig)
    with pytest.raises(UserError) as refused:
        read([line])
    works = shlex.split(str(refused.value).rpartition(": ")[2].rpartition(" as ")[2])[-1]
    assert parse([works])[0].value() == value


def test_sets_with_letters_outside_ascii_are_chosen_and_swept() -> None:
    folder = Path("data_manifests")
    folder.mkdir()
    for name in ("würfel", "farbe"):
        text = (shipped("data_manifests") / "fashion_naming.yaml").read_text("utf-8")
        (folder / f"{name}.yaml").write_text(text.replace("fashion_naming", name), "utf-8")
    for given in ("data=würfel", 'data="würfel"', "data='würfel'"):
        assert compose.compose(FinetuneConfig, [given]).data.sets == ["würfel"]
    seen: list[str] = []
    compose.sweep(["data=würfel,farbe"], lambda config, folder: seen.append(config.data.sets[0]))
    assert seen == ["würfel", "farbe"]


def test_one_way_of_choosing_checkpoints_takes_the_place_of_that_of_the_recipes_file() -> None:
    keep = compose.compose(FinetuneConfig, ["recipe.checkpoints.every=60"]).recipe.checkpoints
    assert (keep.every, keep.steps, keep.log_spaced) == (60, [], None)
    keep = compose.compose(FinetuneConfig, ["recipe.checkpoints.every=null"]).recipe.checkpoints
    assert (keep.every, keep.log_spaced) == (None, 4)
    with pytest.raises(UserError, match="are both given"):
        compose.compose(FinetuneConfig, ["recipe.checkpoints.every=60", "recipe.checkpoints.log_spaced=2"])
