"""What a model card gathers from a run and its base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from forgetbench.exchange.card import write_card
from forgetbench.models.checkpoint import BASE
from forgetbench.runs.address import Address
from forgetbench.runs.run_file import RunFile, read_run
from tests.support.answered import answered_course

TASKS = ("fashion_naming", "digits_questions")
STAGES = "data.stages=[{set: fashion_naming, steps: 10},{set: digits_questions, recipe: {batch_size: 8}}]"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("card") / "outputs"
    return answered_course(outputs, "own", STAGES, "recipe.batch_size=32", tasks=TASKS)


def card(run: Path, to: Path, described: RunFile | None = None) -> str:
    write_card(Address(run, described or read_run(run), BASE), to, "title", adapter=False)
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
    model = {**run.config["model"], "path": str(tmp_path)}
    (tmp_path / "card").mkdir()
    text = card(own, tmp_path / "card", replace(run, config={**run.config, "model": model}))
    assert yaml.safe_load(text.split("---\n")[1]).get("license") == licence
