"""Keys as Python values mean what the overrides of the command line mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest
from omegaconf import OmegaConf

from forgetbench.api.keys import EvalMatrixKeys, FinetuneKeys, SweepKeys
from forgetbench.api.overrides import as_overrides
from forgetbench.compose import compose
from forgetbench.compose.overrides import parse
from forgetbench.config import EvalMatrixConfig, FinetuneConfig, SweepConfig
from forgetbench.core.errors import UserError
from forgetbench.core.options import GROUPS
from forgetbench.core.override_text import as_text


def finetune(**keys: Any) -> FinetuneConfig:
    return compose(FinetuneConfig, as_overrides(FinetuneConfig, [], keys))


TEXTS = (
    *("a,b", "two words", "1", "1e-5", "it's", "back\\slash", "C:\\x\\", "q\\'x", "null", "true", "~/x", "a=b", "[x]"),
    *("é", "", "nan", "a'b\"c", "${recipe.lr}", "${oc.env:HOME}", "a:b", "{x: 1}", "-", "0x1", "a\nb"),
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_arrives_as_it_is(text: str) -> None:
    [line] = as_overrides(FinetuneConfig, [], {"model": {"system_prompt": text}})
    composed = OmegaConf.create({"system_prompt": parse([line])[0].value(), "recipe": {"lr": 1}})
    assert OmegaConf.to_container(composed, resolve=True)["system_prompt"] == text  # type: ignore[index,call-overload]


def test_numbers_truth_none_paths_and_lists_keep_their_kind(tmp_path: Path) -> None:
    config = finetune(
        name="x",
        seed=7,
        outputs=tmp_path / "my outputs, all",
        model={
            "trust_remote_code": True,
            "max_pixels": None,
            "chat_template": Path("a b.jinja"),
            "system_prompt": "${x}",
        },
        recipe={"lr": 1e-5, "parts": ["language", "projector"], "mix": {"data": ["general"], "ratio": 0.25}},
        method="lora",
    )
    assert (config.seed, config.outputs) == (7, str(tmp_path / "my outputs, all"))
    assert (config.model.trust_remote_code, config.model.max_pixels) == (True, None)
    assert (config.model.chat_template, config.model.system_prompt) == ("a b.jinja", "${x}")
    assert (config.recipe.lr, config.recipe.parts) == (1e-5, ["language", "projector"])
    assert (config.recipe.mix.data, config.recipe.mix.ratio) == (["general"], 0.25)
    assert config.method.name == "lora"


def test_a_mapping_is_one_value_where_the_configuration_has_no_keys_inside() -> None:
    config = finetune(recipe={"lr": {"language": 1e-4, "projector": 1e-3}, "parts": ["language", "projector"]})
    assert config.recipe.lr == {"language": 1e-4, "projector": 1e-3}
    lines = as_overrides(
        EvalMatrixConfig, [], {"matrix": {"max_new_tokens": {"textvqa": 64}, "reasoning": {"max_tokens": 9}}}
    )
    assert lines == ["matrix.max_new_tokens={textvqa:64}", "matrix.reasoning.max_tokens=9"]
    lines = as_overrides(SweepConfig, [], {"hydra": {"launcher": {"n_jobs": 4}}})
    assert lines == ["hydra.launcher.n_jobs=4"]


def test_a_tuple_is_several_points_and_a_list_is_one_value() -> None:
    lines = as_overrides(
        SweepConfig, ["sweep=grid"], {"recipe": {"lr": (1e-3, 1e-4)}, "data": ["a", "b"], "seed": (0,)}
    )
    assert lines == ["sweep=grid", "recipe.lr=0.001,0.0001", "data=[a,b]", "seed=0"]
    with pytest.raises(UserError, match="several values, but `finetune` runs one configuration"):
        finetune(recipe={"lr": (1e-3, 1e-4)})
    with pytest.raises(UserError, match=r"seed=\(\): no value"):
        finetune(seed=())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"recpie": "lora"}, "recpie .*no such key. Did you mean recipe?"),
        ({"recipe": {"stesp": 3}}, "recipe.stesp .*Did you mean recipe.steps?"),
        ({"recipe": {"steps": "many"}}, "recipe.steps .*'many'"),
        ({"method": {"rank": object()}}, "method.rank: .* is of type object; give a text"),
        ({"recipe": {"parts": [b"language"]}}, r"recipe.parts\[0\]: .* is of type bytes"),
    ],
)
def test_wrong_keys_and_values_are_refused_as_on_the_command_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        finetune(**keys)


@pytest.mark.parametrize("overrides", ["recipe.lr=1", None, [1], {"seed": 1}])
def test_overrides_that_are_no_list_of_texts_are_refused(overrides: Any) -> None:
    with pytest.raises(UserError, match="overrides are a list of texts"):
        as_overrides(FinetuneConfig, overrides, {})


@pytest.mark.parametrize(
    ("keys", "config", "command"),
    [
        (FinetuneKeys, FinetuneConfig, "finetune"),
        (EvalMatrixKeys, EvalMatrixConfig, "eval_matrix"),
        (SweepKeys, SweepConfig, "sweep"),
    ],
)
def test_type_checkers_see_every_key_of_the_command(keys: Any, config: Any, command: str) -> None:
    assert set(get_type_hints(keys)) == {*config.__dataclass_fields__, *GROUPS[command], "hydra"}


def test_a_printed_override_means_the_text_it_was_made_of() -> None:
    assert as_text("C:\\my runs") == "'C:\\my runs'"
    assert as_text("ends\\") == "'ends\\\\'"
