"""What a model card says, and what it gathers from a run and its base."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from forgetbench.exchange.model_card import CardFacts, model_card, write_card
from forgetbench.models.checkpoint import BASE
from forgetbench.runs.run import Run, read_run
from tests.support.answered import answered_course

TASKS = ("fashion_naming", "digits_questions")
STAGES = "data.stages=[{set: fashion_naming, steps: 10},{set: digits_questions, recipe: {batch_size: 8}}]"
FACTS: dict[str, Any] = {
    "title": "mine",
    "base": "someone/base",
    "base_on_hub": True,
    "revision": "abc",
    "licence": "apache-2.0",
    "adapter": True,
    "run": "run",
    "checkpoint": "step_000010",
    "step": 10,
    "method": "lora",
    "parts": "language",
    "recipe": {"lr": 1e-4},
    "digests": {"base": "d1"},
    "versions": {"torch": "2", "git_revision": None},
    "max_pixels": None,
    "system_prompt": None,
}
ROW = {
    "decoding": "choice", "metric": "accuracy", "quadrant": "id_text-id_image", "seen_in_mix": False, "value": 0.5,
    "ci_low": 0.4, "ci_high": 0.6, "delta": -0.1, "delta_ci_low": -0.2, "delta_ci_high": 0.0,
}  # fmt: skip


def test_the_head_is_what_the_hub_reads() -> None:
    head = yaml.safe_load(model_card(CardFacts(**FACTS), pd.DataFrame()).split("---\n")[1])
    assert set(head) == {"base_model", "base_model_relation", "library_name", "pipeline_tag", "license", "tags"}
    assert head["base_model"] == "someone/base"
    assert head["base_model_relation"] == "adapter"
    assert head["library_name"] == "peft"
    assert head["license"] == "apache-2.0"


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("base", ["someone/base", "embedded:tiny"])
def test_the_code_that_loads_it_is_python(base: str, adapter: bool) -> None:
    text = model_card(CardFacts(**{**FACTS, "base": base, "adapter": adapter}), pd.DataFrame())
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    ast.parse(code)
    assert ("resolve_path" in code) == (adapter and base.startswith("embedded:"))
    assert ('revision="abc"' in code) == adapter


def test_absent_cells_are_dashes_and_other_scales_and_seen_sets_stand_apart() -> None:
    rows = [
        ROW,
        {**ROW, "quadrant": "ood_text-ood_image", "delta": None, "delta_ci_low": None, "delta_ci_high": None},
        {**ROW, "quadrant": "id_text-ood_image", "seen_in_mix": True},
        {**ROW, "metric": "cider_d", "value": 1.25},
    ]
    text = model_card(CardFacts(**FACTS), pd.DataFrame(rows))
    assert "| **ID text** | 50.0 [40.0, 60.0]<br>-10.0 [-20.0, 0.0] | 50.0" in text
    assert "(seen in mix) |" in text
    assert "| **OOD text** | - | 50.0 [40.0, 60.0]<br>- |" in text
    assert "**cider_d** (choice)" in text
    assert "1.2 [0.4, 0.6]" in text
    assert "- git_revision: -" in text


def test_what_was_done_to_inputs_is_said_where_no_file_does_it() -> None:
    plain, told = (
        model_card(CardFacts(**(FACTS | given)), pd.DataFrame())
        for given in ({}, {"max_pixels": 1000, "system_prompt": "Be brief.\nBe kind."})
    )
    assert "system turn" not in plain
    assert "more than 1000 pixels were shrunk first" in told
    assert "> Be brief.\n> Be kind." in told


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("card") / "outputs"
    return answered_course(outputs, "own", STAGES, "recipe.batch_size=32", tasks=TASKS)


def card(run: Path, to: Path, described: Run | None = None) -> str:
    write_card(described or read_run(run), BASE, to, "title", adapter=False)
    return (to / "README.md").read_text("utf-8")


def recipe(text: str) -> dict[str, Any]:
    section = text.split("## How it was trained\n\n```yaml\n")[1]
    found: dict[str, Any] = yaml.safe_load(section.partition("```")[0])
    return found


def test_a_card_has_what_stages_change_in_the_recipe(own: Path, tmp_path: Path) -> None:
    found = recipe(card(own, tmp_path))
    assert found["batch_size"] == 32
    assert found["stages"] == [{"set": "fashion_naming"}, {"set": "digits_questions", "batch_size": 8}]
    assert "stages" not in recipe(card(answered_course(tmp_path / "outputs", "plain", tasks=TASKS), tmp_path))


@pytest.mark.parametrize(
    ("declared", "licence"),
    [
        (b"---\nlicense: mit\ntags:\n- x\n---\n# Base\n", "mit"),
        (b"---\r\nlicense: mit\r\n---\r\n# Base\r\n", "mit"),
        (b"---\nlicense: [mit, apache-2.0]\n---\n", None),
        (b"---\nlicense: [\n---\n", None),
        (b"---\n- license\n---\n", None),
        (b"---\nlicense: \xff\n---\n", None),
        (b"# Base\n\nlicense: mit\n", None),
        (b"", None),
    ],
)
def test_the_licence_is_what_the_head_of_the_bases_card_declares(
    own: Path, tmp_path: Path, declared: bytes, licence: str | None
) -> None:
    (tmp_path / "README.md").write_bytes(declared)
    run = read_run(own)
    config = replace(run.config, model=replace(run.model, path=str(tmp_path)))
    (tmp_path / "card").mkdir()
    text = card(own, tmp_path / "card", replace(run, config=config))
    assert yaml.safe_load(text.split("---\n")[1]).get("license") == licence
