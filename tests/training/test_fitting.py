"""Items that are too long are refused or left out before the first step; nothing is cut."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from transformers import LlamaConfig, LlavaConfig
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.compose import compose
from forgetbench.config import FinetuneConfig, ModelConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind, Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.models.context import Context, context_of
from forgetbench.models.pretrained import load_processor
from forgetbench.training.fitting import drop_long_items
from forgetbench.training.plan import Stage
from tests.support.families import FAMILIES

LONG = "Is the ball in the box red, or is it green? " * 40
TRAIN = [
    *("finetune", "data=balls", "name=run", "model=tiny_random", "recipe.steps=2", "recipe.batch_size=2", "threads=1"),
    "recipe.checkpoints.log_spaced=1",
]
SCORE = ["eval-matrix", "run=outputs/run", "matrix.datasets=[balls]", "matrix.decodings=[choice]", "threads=1"]
MANIFEST = """
source: {root: .}
splits: {train: {files: [train.jsonl]}, test: {files: [test.jsonl]}}
image_domains: [text]
text_tasks: [balls]
answer: option
options: ["yes", "no"]
"""


@pytest.fixture
def balls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data_manifests"
    folder.mkdir()
    (folder / "balls.yaml").write_text(MANIFEST)
    for split in ("train", "test"):
        questions = [(f"{split}-short", "Is it red?"), (f"{split}-long", LONG), (f"{split}-other", "Is it green?")]
        rows = [{"id": name, "question": text, "answer": "yes"} for name, text in questions]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def output_of(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, " ".join(done.output.split())


def test_a_long_item_is_refused_by_name_before_anything_is_written(balls: Path) -> None:
    code, output = output_of(*TRAIN)
    assert code == 2
    assert "1 item is longer than 512 tokens" in output
    assert "'train-long' of balls" in output
    assert "recipe.too_long=skip" in output
    assert not (balls / "outputs" / "run").exists()


def test_or_left_out_and_told_and_a_long_item_that_is_scored_is_told_again_and_again(balls: Path) -> None:
    code, output = output_of(*TRAIN, "recipe.too_long=skip")
    assert code == 0, output
    assert "Left out (recipe.too_long=skip): 1 item is longer than 512 tokens" in output
    again = output_of(*TRAIN, "recipe.too_long=skip")
    assert again[0] == 0
    assert "already trained" in again[1]
    for _ in range(2):  # the second time every cell is read from the store
        code, output = output_of(*SCORE)
        assert code == 0, output
        assert "balls: 1 item is longer than the model's context of 512 tokens, the longest 'test-long'" in output
    rows = pd.read_csv(balls / "outputs/run/beyond_context.csv")
    assert set(rows["longest_id"]) == {"test-long"}
    assert set(rows["context"]) == {512}
    assert rows["tokens"].min() > 512
    assert len(rows) == 2  # the base and the checkpoint


def test_a_recipe_may_ask_for_shorter_items_than_the_model_does(balls: Path) -> None:
    code, output = output_of(*TRAIN, "recipe.max_length=5")
    assert code == 2
    assert "3 items are longer than 5 tokens" in output
    code, output = output_of(*TRAIN, "recipe.max_length=5", "recipe.too_long=skip")
    assert code == 2
    assert "no item is short enough" in output


def test_the_context_is_the_language_parts() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 100}
    assert context_of(LlavaConfig(text_config=LlamaConfig(**sizes))) == Context(100, is_hard=False)
    stretched = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100, "rope_theta": 1e4}
    assert context_of(LlamaConfig(**sizes, rope_parameters=stretched)).length == 400
    from transformers import OPTConfig

    assert context_of(OPTConfig(max_position_embeddings=100)) == Context(100, is_hard=True)


# transformers' PaliGemma processor hands tensors to numpy the old way.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_items_without_pictures_are_named_before_a_model_that_needs_them_trains(tmp_path: Path) -> None:
    encoder = Encoder(load_processor(ModelConfig(path=str(FAMILIES["paligemma"](tmp_path / "paligemma")))))
    items = [Sample.question(f"told-{k}", "What?", "A", AnswerKind.text) for k in range(7)]
    stages = [Stage("toy", MixedStream([WeightedSet("toy", items, 1.0)], [], 0.0, 0), 1, "")]
    with pytest.raises(UserError, match=r"there is none in 'told-0' of toy, .*'told-4' of toy and 2 more; leave them"):
        drop_long_items(compose(FinetuneConfig, []), Catalogue(), stages, encoder, None)
