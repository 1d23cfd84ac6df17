"""The command line: help at once, refusals in one message, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from forgetbench import __version__
from forgetbench.cli import app
from forgetbench.cli.help import COMMAND_GROUPS, EXAMPLES
from forgetbench.commands import finetune, sweep
from forgetbench.config import MatrixConfig, SweepConfig
from forgetbench.core.dataset_groups import manifest_groups
from forgetbench.core.options import options
from forgetbench.runs.scored import Scored, matrix_settings, remember

HEAVY = ("torch", "hydra", "omegaconf", "pandas", "transformers")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("arguments", [["--help"], ["sweep", "--help"], ["data", "show", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['forgetbench', *{arguments}]\n"
        "from forgetbench.cli import main\n"
        "try: main()\n"
        f"finally: sys.stderr.write(' '.join(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout


@pytest.mark.parametrize("command", EXAMPLES)
def test_help_shows_examples_and_every_option_of_every_group(command: str) -> None:
    shown = call(*command.split(), "--help")
    assert shown.exit_code == 0
    assert 3 <= shown.stdout.count(f"  forgetbench {command}") <= 5
    words = shown.stdout.replace(",", " ").split()
    for group in COMMAND_GROUPS.get(command, ("data",)):
        left_out = {"base_model", "base_words"} | _with_role() if group == "data" else set()
        assert set(options(group)) - left_out <= set(words)


def _with_role() -> set[str]:
    return {name for name, group in manifest_groups().items() if group.by_role}


@pytest.mark.parametrize("command", ["finetune", "eval-matrix", "score", "sweep"])
def test_examples_of_the_help_compose(command: str, elsewhere: Path) -> None:
    for folder in ("outputs/my_run", "outputs/fashion_naming-full_low_lr-seed0", "from_vllm"):
        (elsewhere / folder).mkdir(parents=True)
        (elsewhere / folder / "run.json").write_text("{}")
    known = Scored(matrix_settings(MatrixConfig(datasets=["fashion_naming"])), [], elsewhere / "outputs")
    remember(elsewhere / "outputs/my_run", known)
    lines = [line for line in EXAMPLES[command].split("\n") if line.strip()]
    assert lines
    for line in lines:
        words = line.replace("recipe.lr='{language: 1e-5, projector: 1e-4}'", "recipe.lr={language:1e-5}").split()
        words = words[words.index("forgetbench") + 1 :]
        words = [word for word in words if "my_set" not in word]  # the reader's own
        assert call(*words, "--cfg").exit_code == 0, line


def test_version_is_printed() -> None:
    assert call("--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    "command", ["finetune", "eval-matrix", "sweep", "models show", "data list", "data show", "data check"]
)
def test_cfg_prints_the_composed_config_and_writes_nothing(command: str, elsewhere: Path) -> None:
    shown = call(*command.split(), "--cfg", "seed=3")
    assert shown.exit_code == 0
    assert yaml.safe_load(shown.stdout)["seed"] == 3
    assert list(elsewhere.iterdir()) == []


def test_cfg_of_a_sweep_lists_its_points() -> None:
    shown = call("sweep", "--cfg", "recipe.lr=1e-5,1e-4")
    assert shown.stdout.count("# point: ") == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("finetune recipe.lrr=1e-4", ["recipe.lrr", "Did you mean recipe.lr"]),
        ("finetune lr=1e-4", ["lr (command line)", "Did you mean recipe.lr"]),
        ("finetune +recipe.dropout=0.1", ["recipe.dropout", "no such key"]),
        ("finetune ++recipe.dropout=0.1", ["recipe.dropout", "no such key"]),
        ("finetune ~recipe.lr", ["recipe.lr", "cannot be deleted"]),
        ("finetune method.rank=4", ["method.rank", "no such key"]),
        ("finetune recipe=full_hi_lr", ["recipe=full_hi_lr", "full_high_lr", "conf/recipe/full_hi_lr.yaml"]),
        ("finetune data=fashion_namin", ["data=fashion_namin", "Did you mean fashion_naming"]),
        ("finetune model=null", ["model=null", "tiny"]),
        ("finetune recipe={lr: 1}", ["recipe.<key>"]),
        ("finetune fashion_naming", ["Did you mean data=fashion_naming"]),
        ("finetune recipe.steps=many", ["recipe.steps", "a whole number", "command line"]),
        ("finetune recipe.schedule=cosin", ["recipe.schedule", "cosine", "command line"]),
        ("finetune recipe.parts=vision", ["recipe.parts", "a list is expected"]),
        ("finetune model=local", ["model.path", "conf/model/local.yaml"]),
        ("finetune recipe.parts=[]", ["recipe.parts", "nothing is trainable", "command line"]),
        ("finetune recipe=hybrid recipe.mix.ratio=1.5", ["recipe.mix.ratio", "from 0 to 1"]),
        ("finetune recipe=lora recipe.parts=[vision]", ["method.parts", "lora", "frozen"]),
        ("finetune recipe.lr=[", ["recipe.lr=[", "not readable"]),
        ("finetune recipe.lr=1e-5,1e-4", ["recipe.lr=1e-5,1e-4", "forgetbench sweep"]),
        ("finetune hydra.mode=MULTIRUN", ["hydra.mode"]),
        ("finetune hydra/launcher=no_such", ["hydra/launcher", "pip install"]),
        ("finetune name=../elsewhere", ["name (command line)", ".."]),
        (f"finetune name={'n' * 256}", ["name (command line)", "256 bytes", "at most 200"]),
        ("finetune name='\x1b[31m'", ["name (command line)", r"\x1b"]),
        ("finetune outputs=''", ["outputs (command line)", "empty"]),
        ("finetune seed=-1", ["seed (command line)", "negative"]),
        (f"finetune seed={10**30}", ["seed (command line)", "too large"]),
        (f"finetune seed={'9' * 5000}", ["seed=999", "not readable"]),
        ("finetune recipe.weight_decay=nan", ["recipe.weight_decay", "not a number"]),
        ("finetune model.max_pixels=0", ["model.max_pixels", "null"]),
        ("finetune recipe=lora method.rank=1000000000", ["method.rank", "65536"]),
        ("finetune threads=1000000", ["threads", "4096"]),
        ("eval-matrix matrix.sample_seed=-1", ["matrix.sample_seed", "negative"]),
        ("finetune --recipe full", ["No such option"]),
        ("finetun", ["No such command", "finetune"]),
        ("eval-matrix run=outputs/none", ["run", "outputs/none"]),
        ("eval-matrix matrix.datasets=[fashion_namin]", ["matrix.datasets", "fashion_naming"]),
        ("eval-matrix run=. model=tiny", ["model", "drop one"]),
        ("sweep recipe.lr=1e-5,-1", ["recipe.lr=-1", "not a learning rate"]),
        ("sweep recipe=full_high_lr,full_lo_lr", ["full_lo_lr", "full_low_lr"]),
        ("sweep recipe.lrr=1,2", ["recipe.lrr", "Did you mean recipe.lr"]),
        ("sweep matrix=quick,fashion", ["same training"]),
        ("sweep hydra.mode=RUN", ["hydra.mode"]),
        ("models show tyny", ["model=tyny", "tiny"]),
        ("data list manifests=[nowhere]", ["manifests", "nowhere"]),
    ],
)
def test_refusal_names_the_key_and_the_fix_and_writes_nothing(
    arguments: str, named: list[str], elsewhere: Path
) -> None:
    command, _, rest = arguments.partition(" ")
    words = [rest] if "{" in rest else rest.split()
    result = call(command, *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    for name in named:
        assert name in result.stderr
    assert "Traceback" not in result.stderr
    assert list(elsewhere.iterdir()) == []


def test_all_contradictions_are_told_at_once() -> None:
    result = call("finetune", "recipe.parts=[]", "threads=0", "recipe.warmup=3")
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["threads", "recipe.parts", "recipe.warmup"]


def test_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "finetune", interrupted)
    result = call("finetune")
    assert result.exit_code == 130
    assert "The same command resumes" in result.stderr


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(finetune, "finetune", broken)


@pytest.mark.usefixtures("bug")
def test_a_bug_is_told_apart_from_bad_input() -> None:
    result = call("finetune")
    assert result.exit_code == 1
    assert result.stderr.startswith("Unexpected ZeroDivisionError: a bug\n")
    assert "--debug" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("bug")
@pytest.mark.parametrize("words", [("--debug", "finetune"), ("finetune", "seed=1", "--debug")])
def test_debug_shows_the_traceback_before_the_message_wherever_it_stands(words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert "in broken" in result.stderr
    assert "\nUnexpected ZeroDivisionError: a bug\n" in result.stderr


def test_debug_shows_what_a_refusal_was_made_of(elsewhere: Path) -> None:
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine/run.json").write_text("{")
    result = call("eval-matrix", "run=mine", "--debug")
    assert result.exit_code == 2
    assert "JSONDecodeError" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("mine/run.json cannot be read")


def test_a_path_that_the_system_refuses_is_named(elsewhere: Path) -> None:
    (elsewhere / "file").write_text("")
    result = call("finetune", "outputs=file", "name=x")
    assert result.exit_code == 2
    assert result.stderr.startswith("file/x: Not a directory")


@pytest.mark.parametrize("command", ["score", "sweep"])
def test_several_processes_of_one_command_are_refused(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = call(command)
    assert result.exit_code == 2
    assert "without torchrun" in result.stderr


@pytest.mark.parametrize("command", ["finetune", "eval-matrix"])
def test_a_process_count_that_torchrun_did_not_set_is_explained(
    command: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = call(command, "model=tiny_random", "outputs=here")
    assert result.exit_code == 2
    assert "torchrun" in result.stderr
    assert "or unset WORLD_SIZE" in result.stderr


@pytest.mark.parametrize("content", ["{", "[]", '{"config": {}}'])
def test_damaged_run_is_named(content: str, elsewhere: Path) -> None:
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine/run.json").write_text(content)
    result = call("eval-matrix", "run=mine")
    assert result.exit_code == 2
    assert "mine/run.json" in result.stderr


def test_refused_data_leave_no_folder(elsewhere: Path) -> None:
    (elsewhere / "data_manifests").mkdir()
    (elsewhere / "data_manifests/mine.yaml").write_text(
        "source: {kind: jsonl}\nsplits: {train: {files: [t.jsonl]}}\nimage_domains: [a]\ntext_tasks: [b]\n"
    )
    result = call("finetune", "data=mine", "name=x")
    assert result.exit_code == 2
    assert "t.jsonl" in result.stderr
    assert not (elsewhere / "outputs/x").exists()


def test_steps_that_every_stage_overrides_are_refused() -> None:
    result = call("finetune", "data=base_model", "recipe.steps=8")
    assert result.exit_code == 2
    assert result.stderr.startswith("recipe.steps (command line): every stage of data=base_model")


def test_run_named_without_its_outputs_folder_is_told(elsewhere: Path) -> None:
    (elsewhere / "outputs/mine").mkdir(parents=True)
    result = call("eval-matrix", "run=mine")
    assert result.exit_code == 2
    assert "write run=outputs/mine." in result.stderr


def test_failed_points_are_named_and_the_exit_code_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "sweep_point", _fails_at_seed_1)
    monkeypatch.setattr(sweep, "summarise_sweep", lambda *_: None)
    result = call("sweep", "seed=0,1,2")
    assert result.exit_code == 1
    assert "outputs/grid-seed/seed-1: RuntimeError: no memory" in result.stderr
    assert [line for line in result.stderr.splitlines() if "seed-0" in line] == [
        "point 1 of 3: outputs/grid-seed/seed-0"
    ]


def _fails_at_seed_1(config: SweepConfig, folder: Path) -> None:
    if config.seed == 1:
        raise RuntimeError("no memory")


def test_programs_get_datasets_checks_and_models_as_json() -> None:
    listed = {row["name"]: row for row in json.loads(call("data", "list", "--json").stdout)}
    assert listed["fashion_naming"]["items"]["test"] == 500
    assert listed["fashion_naming"]["quadrant"] == "id_text-id_image"
    assert listed["general"]["quadrant"] is None
    (checked,) = json.loads(call("data", "check", "fashion_shifted", "--json").stdout)
    assert (checked["problems"], checked["in_training"]["identical"]) == ([], 0)
    counted = json.loads(call("models", "show", "--json").stdout)
    assert sum(row["parameters"] for row in counted[:-1]) == counted[-1]["parameters"]
    assert all(sum(row["modules"].values()) == row["parameters"] for row in counted[:-1])
    assert {"language.attention", "language.mlp_gate_up"} <= counted[2]["modules"].keys()
