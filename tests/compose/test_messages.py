"""What a newcomer is told of a typo: what was typed, where, and what to type instead; nothing of the libraries'."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from forgetbench import compose
from forgetbench.config import EvalMatrixConfig, FinetuneConfig, ScoreConfig
from forgetbench.core.errors import UserError
from forgetbench.core.options import MOST_NAMED, manifest_names, nearest

KINDS = {"finetune": FinetuneConfig, "eval-matrix": EvalMatrixConfig, "score": ScoreConfig}
NOT_OURS = re.compile(
    r"could not be converted|Invalid (value|type)|is not a subclass|not Optional|Cannot (merge|assign|convert)|"
    r"ListConfig|DictConfig|Interpolation|interpolation|not in '|viable|Could not|type 'str'|Traceback|full_key"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(line: str) -> str:
    command, *overrides = line.split()
    given = (
        partial(compose.sweep, task=lambda *_: None) if command == "sweep" else partial(compose.compose, KINDS[command])
    )
    with pytest.raises(UserError) as refused:
        given(overrides=overrides)
    return str(refused.value)


@pytest.mark.parametrize("line", ["eval-matrix run=.", "finetune method=wise_ft run=."])
def test_of_a_run_that_is_none_the_model_is_not_blamed(line: str) -> None:
    try:
        message = refusal(line)
    except pytest.fail.Exception:  # composed: that there is no run is said later
        message = ""
    assert "model.path" not in message


@pytest.mark.parametrize("line", ["finetune recipe=lora,hybrid", "finetune seed=0,1"])
def test_several_values_of_one_thing_are_not_offered_as_a_list(line: str) -> None:
    message = refusal(line)
    assert "forgetbench sweep" in message
    assert "for a list" not in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "eval-matrix matrix.decodings=[chioce]",
            "matrix.decodings[0] (command line): there is no 'chioce'; it may",
        ),
        ("sweep matrix.decodings=[chioce]", "matrix.decodings[0] (command line): there is no 'chioce'"),
        ("eval-matrix matrix.steps=[a]", "matrix.steps[0] (command line): a whole number is expected, not 'a'"),
        ("eval-matrix matrix.limit=ten", "matrix.limit (command line): a whole number is expected, not 'ten'"),
        ("eval-matrix matrix.reasoning.marks=[a]", "matrix.reasoning.marks[0] (command line): each element is a list"),
        ("eval-matrix matrix.representation=true", "keys of its own (enabled, datasets, images, layers, centred)"),
        ("eval-matrix matrix=[a,b]", "datasets to score are matrix.datasets=[a,b]"),
        ("eval-matrix recipe=lora", "`eval-matrix` has no 'recipe'; finetune, sweep have"),
        ("finetune matrix.limit=3", "`finetune` has no 'matrix'; eval-matrix, score, sweep have"),
        ("finetune method.rank=8", "It is a key of method=lora, method=rslora"),
        (
            "finetune data.stages=[{sett:emoji_use}]",
            "data.stages[0].sett (command line): there is no such key. Did",
        ),
        ("finetune data.stages=[{set:emoji_use,step:3}]", "data.stages[0].step (command line): there is no such key."),
        ("finetune data.stages=[{set:emoji_use,steps:x}]", "data.stages[0].steps (command line): a whole number is"),
        (
            "finetune data.stages=[{set:emoji_use,recipe:{lrr:1}}]",
            "recipe.lrr (command line): there is no such key.",
        ),
        (
            "finetune data.stages=[{set:emoji_use,recipe:{mix:{ration:1}}}]",
            "recipe.mix.ration (command line): there",
        ),
        (
            "finetune data.stages=[{set:emoji_use,recipe:{schedule:cosin}}]",
            "recipe.schedule (command line): there is",
        ),
        ("finetune data.stages=[{set:emoji_use,recipe:3}]", "data.stages[0].recipe (command line): keys with values"),
        ("finetune data.stages=[3]", "data.stages[0] (command line): 3 is no stage"),
        ("finetune data.stages=emoji_use", "data.stages (command line): a list is expected; write data.stages=[a,b]"),
        ("finetune recipe.mix.ratio=half", "a number such as 0.5 or 1e-4 is expected, not 'half'"),
        ("finetune recipe.mix=0.3", "keys of its own (data, ratio), and '0.3' is none of them"),
        ("finetune recipe.steps=null", "null is no value of this key"),
        ("finetune recipe.lr=[1,2]", "[1,2] is not a learning rate; give a number above 0, such as 1e-5 or {language"),
        ("finetune recipe.lr=${foo}", "recipe.lr (command line): ${foo} refers to a key that is not there"),
        ("finetune name=${nope:3}", "name (command line): ${nope:...} is no function"),
        ("sweep seed=1,${foo}", "seed (command line): ${foo} refers to a key that is not there"),
        ("finetune recipe.parts=[[language]]", "recipe.parts (command line): [language] is no name"),
        ("eval-matrix matrix.datasets=[[a]]", "matrix.datasets (command line): [a] is no name"),
        ("finetune recipe.lr={language:[1,2]}", "recipe.lr (command line): [1,2] is not a learning rate"),
        ("sweep recipe.lr=interval(1e-5,1e-3)", "A range without steps (interval) is no grid"),
        ("sweep sweep=demo,grid", "one sweep at a time"),
        ("sweep recipe.lr=1e-3,fast", "Point recipe.lr=fast:\nrecipe.lr (command line): 'fast' is not"),
        ("finetune data=emoji_use,emoji_count", "data=[emoji_use,emoji_count] for these sets one after the other"),
        ("finetune recipe=", "'recipe' needs an option; leave it out for the default"),
        ("finetune strategy=null", "'strategy' needs an option; leave it out for the default"),
        ("finetune =3", "there is no key before the ="),
        ("finetune recipe.lr={language", "{ and } are not in pairs"),
        ("finetune recipe.lr=[1e-4,", "[ and ] are not in pairs"),
        ("finetune data='fashion_naming", "a quote has no partner"),
        ("sweep recipe.lr=1e-3,", "nothing stands before or after a comma"),
        ("finetune recipe.mix.data={general: 1}", "Blanks part words"),
        ("finetune recipee=lora", "Did you mean recipe or"),
        ("finetune recipe=conf/recipe/lora.yaml", "write recipe=lora."),
        ("finetune model=some/model", "`model=local model.path=some/model`"),
        ("finetune name=${${name}}", "name (command line): holds ${"),
        ("finetune name=${", "name (command line): holds ${"),
        ("finetune outputs=a${b", "outputs (command line): holds ${"),
        ("finetune name=${oc.env:NOT_SET_AT_ALL}", "the environment has no variable NOT_SET_AT_ALL; set it"),
        ("finetune recipe.lr=${recipe}", "refers to keys that hold this one"),
        ("finetune data.stages=[{set:emoji_use,recipe:lora}]", "keys with values are expected"),
        ("finetune hydra/launcher=joblibb", "hydra/launcher=joblibb: there is no such option"),
        ("finetune model.path=", "model.path (command line): empty"),
        ("score run=", "run (command line): empty"),
    ],
)
def test_a_typo_is_blamed_where_it_was_typed_in_our_words(line: str, expected: str) -> None:
    message = refusal(line)
    assert expected in message
    assert not NOT_OURS.search(message)


@pytest.mark.parametrize(
    "line", ["finetune data=zzzz", "finetune recipe.mix.data=[zzzz] recipe.mix.ratio=0.1", "finetune recipe=zzzz"]
)
def test_a_typo_far_from_any_name_lists_ten_and_says_how_to_see_all(line: str) -> None:
    named = re.search(r"Known: (.*), and (\d+) more \(`(.*)` lists them\)", refusal(line))
    assert named is not None
    assert len(named[1].split(", ")) == MOST_NAMED
    assert "--" in named[3]


def test_of_many_names_those_most_like_it_are_listed() -> None:
    names = manifest_names(())
    listed = nearest("emoji", names, names)
    assert len(re.findall(r"\b\w*emoji\w*", listed)) == MOST_NAMED


def test_a_wrong_value_in_a_file_of_yours_is_blamed_on_the_file(tmp_path: Path) -> None:
    (tmp_path / "conf/matrix").mkdir(parents=True)
    (tmp_path / "conf/matrix/mine.yaml").write_text(
        "defaults:\n  - /schema/matrix@_here_\n  - _self_\ndatasets: [emoji_use]\ndecodings: [chioce]\n"
    )
    message = refusal("eval-matrix matrix=mine")
    assert "conf/matrix/mine.yaml" in message
    assert "there is no 'chioce'" in message
