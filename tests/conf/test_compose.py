"""Every file of every config group composes and checks; the commands that have the group take turns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from forgetbench import compose
from forgetbench.compose.session import open_session
from forgetbench.config import EvalMatrixConfig, FinetuneConfig, ScoreConfig, SweepConfig
from forgetbench.core.errors import UserError
from forgetbench.core.options import GROUPS, config_files, manifest_names, options
from forgetbench.core.paths import shipped
from forgetbench.methods.registry import SCHEMAS

COMMANDS = {"finetune": FinetuneConfig, "eval_matrix": EvalMatrixConfig, "score": ScoreConfig, "sweep": SweepConfig}
OPTIONS = [
    (group, option)
    for group in dict.fromkeys(group for groups in GROUPS.values() for group in groups)
    for option in options(group, ())
    # Manifests are all registered in one way: the files of conf/data and the target are enough.
    if group != "data" or option not in manifest_names(()) or option == "fashion_naming"
]
NEEDED = {
    "local": ["model.path=some/folder"],
    "ewc": ["data=[fashion_naming,digits_naming]"],  # its strategy holds what earlier stages learnt
    "server": ["engine.url=http://127.0.0.1:8000"],
    "vllm": [f"engine.python={sys.executable}"],
}
"""What an option leaves open."""


def choices() -> Iterator[tuple[str, str, str]]:
    """Every option with one of the commands that have its group, which take turns."""
    for place, (group, option) in enumerate(OPTIONS):
        commands = [command for command, groups in GROUPS.items() if group in groups]
        yield commands[place % len(commands)], group, option


FILES = sorted(shipped("conf").rglob("*.yaml"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("command", "group", "option"), list(choices()))
def test_option_composes_into_a_config_that_can_run(command: str, group: str, option: str) -> None:
    if group == "launcher":
        pytest.importorskip(f"hydra_plugins.hydra_{option.removesuffix('_local')}_launcher")
    extra = NEEDED.get(option, ["predictions=."] if command == "score" else [])
    config = compose.compose(COMMANDS[command], [f"{group}={option}", *extra])
    assert isinstance(config, COMMANDS[command])


@pytest.mark.parametrize(
    "sweep",
    [
        # Values of the slow ones are options of conf/, each of which is composed above.
        pytest.param(name, marks=pytest.mark.slow if name in {"continual", "continual_rates", "methods"} else ())
        for name in options("sweep")
    ],
)
def test_every_value_of_a_shipped_sweep_can_run(sweep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_session(SweepConfig, [f"sweep={sweep}"]) as session:
        sweep_config = session.compose()
        points = session.points(sweep_config)
        assert len({tuple(point) for point in points}) == len(points) > 0
        seen: set[str] = set()
        # A point for every value: the whole grid of 117 takes a minute, and each point is checked by itself.
        covering = [point for point in points if not seen.issuperset(point) and not seen.update(point)]
        monkeypatch.setattr(session, "points", lambda _: covering)
        assert len(session.check_points(sweep_config)) == len(covering)


def test_every_manifest_is_an_option_that_trains_on_its_own_set_alone() -> None:
    names = [name for name in manifest_names(()) if name not in config_files("data")]
    with open_session(FinetuneConfig, []) as session:
        offered = set(session.hydra.config_loader.get_group_options("data"))
        stages = {name: ConfigStore.instance().load(f"data/{name}.yaml").node.stages for name in names}
    assert offered == {*names, *config_files("data")}
    assert stages == {name: [{"set": name}] for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(shipped("conf")).as_posix())
def test_file_opens_with_what_it_is_and_its_schema(path: Path) -> None:
    group = path.parent.name
    lines = path.read_text("utf-8").splitlines()
    if group in {"sweep", "strategy", "launcher"}:
        assert lines[0] == "# @package _global_"
        assert lines[1].startswith("# ")
        return
    assert lines[0].startswith("# ")
    key = path.stem if path.parent == shipped("conf") else group
    key = f"{group}/{path.stem}" if group == "method" else key
    assert key in SCHEMAS
    assert yaml.safe_load(path.read_text("utf-8"))["defaults"][0] == f"/schema/{key}@_here_"


def test_defaults_are_the_demo_world() -> None:
    config = compose.compose(FinetuneConfig, [])
    assert config.model.path == "embedded:tiny"
    assert [stage.set for stage in config.data.stages] == ["fashion_naming"]
    assert (config.recipe.parts, config.recipe.lr) == (["language"], 5e-5)
    assert (config.recipe.steps, config.recipe.batch_size) == (240, 32)
    assert config.recipe.checkpoints.log_spaced == 4
    assert config.method.name == "plain"


def test_lora_recipe_selects_its_method_and_an_explicit_method_wins() -> None:
    assert compose.compose(FinetuneConfig, ["recipe=lora"]).method.name == "lora"
    assert compose.compose(FinetuneConfig, ["recipe=lora", "method=plain"]).method.name == "plain"


def test_a_rate_per_module_is_read_from_the_command_line_and_from_a_file() -> None:
    parts, rates = "recipe.parts=[language.attention,projector]", "{language.attention: 1e-4, projector: 1e-3}"
    typed = compose.compose(FinetuneConfig, [parts, f"recipe.lr={rates}"]).recipe
    assert typed.lr == {"language.attention": 1e-4, "projector": 1e-3}
    _write("conf/recipe/two_rates.yaml", f"lr: {rates}\nparts: [language.attention, projector]\n")
    assert compose.compose(FinetuneConfig, ["recipe=two_rates"]).recipe.lr == typed.lr
    changed = compose.compose(FinetuneConfig, ["recipe=two_rates", "recipe.lr={language.attention: 3e-4}"]).recipe
    assert changed.lr == {"language.attention": 3e-4, "projector": 1e-3}


def test_name_tells_runs_with_different_results_apart() -> None:
    def name(*overrides: str) -> str:
        return compose.compose(FinetuneConfig, overrides).name

    assert name() == name("outputs=elsewhere", "threads=1") == "fashion_naming-full_low_lr-seed0"
    variants = [
        (),
        ("seed=1",),
        ("recipe=full_high_lr",),
        ("data=digits_naming",),
        ("method=lora",),
        ("model=tiny_random",),
        ("recipe.lr=1e-4",),
        ("recipe.lr={language: 1e-4}",),
        ("recipe.parts=[language,projector]",),
    ]
    assert len({name(*variant) for variant in variants}) == len(variants)
    assert name("recipe.parts=[language,projector]").endswith("--recipe.parts-language+projector")


def test_long_names_are_cut_and_stay_different() -> None:
    names = [
        compose.compose(FinetuneConfig, [f"data.stages=[{'{set: digits_naming},' * 20}{{set: {last}}}]"]).name
        for last in ("digits_naming", "emoji_naming")
    ]
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 150


def test_config_file_of_your_own_is_an_option() -> None:
    _write("conf/recipe/mine.yaml", "lr: {language: 2e-4, projector: 1e-3}\nparts: [language, projector]\n")
    config = compose.compose(FinetuneConfig, ["recipe=mine"])
    assert config.recipe.lr == {"language": 2e-4, "projector": 1e-3}
    assert config.recipe.steps == 240


@pytest.mark.parametrize("schema", ["", "defaults:\n  - /schema/recipe@_here_\n  - _self_\n"])
@pytest.mark.parametrize(
    ("line", "named"),
    [("lrr: 1e-4", "recipe.lrr"), ("steps: many", "recipe.steps"), ("lr: [1", "not readable as YAML")],
)
def test_mistake_in_a_file_of_your_own_names_the_key_and_the_file(schema: str, line: str, named: str) -> None:
    _write("conf/recipe/mine.yaml", f"{schema}{line}\n")
    with pytest.raises(UserError, match=named) as raised:
        compose.compose(FinetuneConfig, ["recipe=mine"])
    assert "conf/recipe/mine.yaml" in str(raised.value)


def test_file_with_the_name_of_a_shipped_one_is_refused_instead_of_passed_over() -> None:
    _write("conf/recipe/full_low_lr.yaml", "lr: 1.0\nparts: [vision]\n")
    with pytest.raises(UserError, match="rename your file"):
        compose.compose(FinetuneConfig, [])


def test_manifest_of_your_own_is_a_target_and_a_matrix_entry_without_any_other_file() -> None:
    described = "image_domains: [photos]\ntext_tasks: [naming]\nsource: {kind: jsonl}\n"
    _write("mine/my_set.yaml", f"{described}splits: {{train: {{files: [a.jsonl]}}, test: {{files: [b.jsonl]}}}}\n")
    config = compose.compose(SweepConfig, ["manifests=[mine]", "data=my_set", "matrix.datasets=[my_set]"])
    assert [stage.set for stage in config.data.stages] == config.matrix.datasets == ["my_set"]
    with pytest.raises(UserError, match="my_set"):
        compose.compose(SweepConfig, ["data=my_set"])


def _write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, "utf-8")
