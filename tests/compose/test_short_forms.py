"""Short forms on the command line: the same run as their long forms, and nothing guessed in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetbench import compose
from forgetbench.config import EvalMatrixConfig, FinetuneConfig
from forgetbench.core.errors import UserError
from forgetbench.runs.run import settings_of


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_of(*overrides: str) -> tuple[dict[str, object], str]:
    """What run.json would hold, and the run's folder."""
    seen: list[tuple[dict[str, object], str]] = []
    compose.run(
        FinetuneConfig, list(overrides), lambda config, folder: seen.append((settings_of(config), folder.as_posix()))
    )
    return seen[0]


MIXED = "recipe.mix.data=[{set:general,weight:2},emoji_use]"


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (["data.stages=[digits_naming,emoji_use]"], ["data.stages=[{set:digits_naming},{set:emoji_use}]"]),
        (["data=[digits_naming]"], ["data=digits_naming"]),
        (["recipe.mix.data=[general]"], ["recipe.mix.data=[general]", "recipe.mix.ratio=0.5"]),
        (["recipe.mix.data={general:2,emoji_use:1}", "recipe.mix.ratio=0.3"], [MIXED, "recipe.mix.ratio=0.3"]),
        (["recipe.mix.data=[{set:general,weight:1.0}]"], ["recipe.mix.data=[general]"]),
        (
            ["data.stages=[{set:emoji_use,recipe:{mix:{data:{general:2},ratio:0.2}}}]"],
            ["data.stages=[{set:emoji_use,recipe:{mix:{data:[{set:general,weight:2}],ratio:0.2}}}]"],
        ),
    ],
)
def test_a_short_form_is_the_same_run_in_the_same_folder_as_its_long_form(short: list[str], long: list[str]) -> None:
    assert run_of(*short) == run_of(*long)


def test_a_list_of_sets_is_a_sequence_named_after_them() -> None:
    settings, folder = run_of("data=[digits_naming,emoji_use:train]")
    long, _ = run_of("data.stages=[{set:digits_naming},{set:'emoji_use:train'}]", "name=digits_naming+emoji_use.train")
    assert folder == "outputs/digits_naming+emoji_use.train-full_low_lr-seed0"
    assert settings["data"] == long["data"]
    assert compose.compose(EvalMatrixConfig, ["data=[digits_naming,emoji_use]"]).data.sets == [
        "digits_naming",
        "emoji_use",
    ]


def test_a_sweep_takes_lists_of_sets_and_weighted_mixes_as_values() -> None:
    seen: list[tuple[list[str], dict[str, float], float]] = []
    compose.sweep(
        ["data=[digits_naming,emoji_use],digits_open", "recipe.mix.data={general:3},[general]"],
        lambda config, _: seen.append((config.data.sets, config.recipe.mix.weights, config.recipe.mix.ratio)),
    )
    assert seen == [
        (["digits_naming", "emoji_use"], {"general": 3}, 0.5),
        (["digits_naming", "emoji_use"], {"general": 1}, 0.5),
        (["digits_open"], {"general": 3}, 0.5),
        (["digits_open"], {"general": 1}, 0.5),
    ]


def test_the_ratio_of_a_mix_that_is_named_without_one_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    run_of("recipe.mix.data=[general]")
    assert capsys.readouterr().err.startswith("recipe.mix.ratio=0.5: recipe.mix.data was given without a ratio")


@pytest.mark.parametrize(("given", "ratio"), [("recipe=hybrid_turns", 0.5), ("recipe.mix.ratio=0.3", 0.3)])
def test_a_ratio_that_the_recipe_or_the_user_gives_stays(
    given: str, ratio: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compose.compose(FinetuneConfig, [given, "recipe.mix.data=[emoji_use]"]).recipe.mix.ratio == ratio
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.mix.ratio=0", r"recipe\.mix\.ratio .*nothing of recipe\.mix\.data \(general\)"),
        ("recipe.mix.data=[{set:general,weight:nan}]", "the weight of 'general' is nan"),
        ("recipe.mix.data={general:inf}", "the weight of 'general' is inf"),
        ("recipe.mix.data={general:-1}", "the weight of 'general' is -1"),
        ("recipe.mix.data={general:0}", "the weight of 'general' is 0; .*leave the set out"),
        ("recipe.mix.data={general:heavy}", "the weight of 'general' is heavy"),
        ("recipe.mix.data=[{set:general,wieght:2}]", "is no set; write its name"),
        ("recipe.mix.data=[[general]]", r"\[general\] is no set"),
        ("recipe.mix.data=[null]", "null is no set"),
        ("recipe.mix.data=[general,{set:general,weight:2}]", "'general' is listed 2 times"),
        ("data.stages=[{set:emoji_use,recipe:{mix:{data:[general]}}}]", r"stages\.0\.recipe\.mix\.ratio .*nothing of"),
        ("data=[]", "no set, so nothing to train on"),
        ("data=[five_tasks_a,emoji_use]", "'five_tasks_a' is a sequence of sets itself"),
        ("data=[emoji_us,emoji_use]", "no dataset 'emoji_us'. Did you mean emoji_use"),
        ("data=[{set:emoji_use,steps:3}]", r"given as data\.stages="),
    ],
)
def test_what_a_short_form_cannot_mean_is_refused_by_name(override: str, message: str) -> None:
    mix = [] if "recipe.mix.data" in override or override.startswith("data") else ["recipe.mix.data=[general]"]
    with pytest.raises(UserError, match=message):
        compose.compose(FinetuneConfig, [*mix, override])
