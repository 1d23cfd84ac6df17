"""What a model card gathers from a run."""

from __future__ import annotations

from pathlib import Path

import yaml

from forgetbench.exchange.card import write_card
from forgetbench.models.checkpoint import BASE
from forgetbench.runs.address import Address
from forgetbench.runs.run_file import read_run
from tests.support.answered import answered_course

TASKS = ("fashion_naming", "digits_questions")


def _recipe(run: Path, to: Path) -> dict[str, object]:
    write_card(Address(run, read_run(run), BASE), to, "title", adapter=False)
    section = (to / "README.md").read_text("utf-8").split("## How it was trained\n\n```yaml\n")[1]
    recipe = yaml.safe_load(section.split("```")[0])
    assert isinstance(recipe, dict)
    return recipe


def test_a_card_has_what_stages_change_in_the_recipe(tmp_path: Path) -> None:
    stages = "data.stages=[{set: fashion_naming, steps: 10},{set: digits_questions, recipe: {batch_size: 8}}]"
    own = _recipe(answered_course(tmp_path / "outputs", "own", stages, "recipe.batch_size=32", tasks=TASKS), tmp_path)
    assert own["batch_size"] == 32
    assert own["stages"] == [{"set": "fashion_naming"}, {"set": "digits_questions", "batch_size": 8}]
    plain = _recipe(answered_course(tmp_path / "outputs", "plain", tasks=TASKS), tmp_path)
    assert "stages" not in plain
