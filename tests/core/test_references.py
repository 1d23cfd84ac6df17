"""References of files: to keys alone, and never resolved twice."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from forgetbench.core.errors import UserError
from forgetbench.core.references import check_references, literal


@pytest.mark.parametrize("text", ["${lr}", "${recipe.lr}", "${..recipe.lr} and ${a[0]}", "costs 5 $", "{a: b}"])
def test_a_file_may_refer_to_keys(text: str) -> None:
    check_references({"a": [text]}, "file.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}", "a ${ oc.env : HOME }", "${hydra:runtime.cwd}", "${hydra.runtime.cwd}", "${..hydra.job}",
        "${${a}:HOME}", "${a.${oc.env:HOME}}", "\\${oc.env:HOME}", "${oc.env:A,${b}}", "${", "${a",
    ],
)  # fmt: skip
def test_a_file_that_refers_to_anything_else_is_refused_with_the_key(text: str) -> None:
    with pytest.raises(UserError, match=r"file.yaml: `a\[0\].b: "):
        check_references({"a": [{"b": text}]}, "file.yaml")


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "\\${a}", "a\\\\${b}", "${a", "plain \\ text", "$${x}"])
def test_what_was_resolved_once_stays_text(text: str) -> None:
    assert OmegaConf.to_container(OmegaConf.create(literal({"a": [text]})), resolve=True) == {"a": [text]}
