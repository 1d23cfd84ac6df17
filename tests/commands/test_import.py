from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer, Trainer, TrainingArguments

from forgetbench.commands.compare import Options, compare_checkpoints, print_comparison
from forgetbench.commands.export import export
from forgetbench.commands.import_ import importer
from forgetbench.commands.power import power
from forgetbench.commands.show import print_stored_tables, read_stored_tables
from forgetbench.core.errors import UserError
from forgetbench.core.files import read_json
from forgetbench.methods.lora import LoRA
from forgetbench.models.checkpoint import list_checkpoints
from forgetbench.reporting.gather import gather
from forgetbench.runs.address import resolve
from tests.support.toys import World, inputs_of, logits, own_logits

# peft 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
CARD = """---
library_name: transformers
---
### Training hyperparameters

The following hyperparameters were used during training:
- learning_rate: 0.002
- train_batch_size: 1
- seed: 7
- total_train_batch_size: 16
- lr_scheduler_type: linear
- lr_scheduler_warmup_ratio: 0.25

### Training results
"""


@pytest.fixture(scope="module")
def ours(world: World) -> Path:
    run = world.train("ours", "llava")
    world.score(run)
    return run


def write_state(folder: Path, step: int, max_steps: int = 2) -> None:
    history: list[dict[str, Any]] = [
        {"epoch": 0.5, "grad_norm": 1.5, "learning_rate": 1e-3, "loss": 3.0, "step": 1},
        {"epoch": 0.5, "eval_loss": 2.0, "step": 1},
        {"epoch": 1.0, "learning_rate": 5e-4, "loss": 2.5, "step": 2},
        {"epoch": 1.0, "train_loss": 2.7, "train_runtime": 3.0, "step": 2},
    ]
    state = {
        "global_step": step,
        "max_steps": max_steps,
        "log_history": [row for row in history if row["step"] <= step],
    }
    (folder / "trainer_state.json").write_text(json.dumps(state))
    (folder / "training_args.bin").write_bytes(b"a pickle that would run code")


@pytest.fixture(scope="module")
def trainer_output(world: World, ours: Path) -> Path:
    """As transformers' Trainer leaves it: checkpoint-1, checkpoint-2, the final weights again, in the names on disk."""
    folder = world.folder / "saves"
    for step in (1, 2):
        export(ours / f"checkpoints/step_{step:06d}", folder / f"checkpoint-{step}", adapter=False)
        write_state(folder / f"checkpoint-{step}", step)
    for path in (folder / "checkpoint-2").iterdir():
        shutil.copyfile(path, folder / path.name)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def theirs(world: World, trainer_output: Path) -> Path:
    return bring_in(world, trainer_output, "theirs")


def bring_in(world: World, source: Path, name: str, family: str = "llava", **changes: Any) -> Path:
    config = replace(world.config(name, family), **changes)
    importer(source)(config, world.outputs / name)
    return world.outputs / name


def test_checkpoints_of_a_trainer_become_a_run_with_the_digests_and_cells_of_our_own(
    world: World, ours: Path, theirs: Path
) -> None:
    run = theirs
    digests = [
        [(checkpoint.step, checkpoint.digest) for checkpoint in list_checkpoints(folder)] for folder in (ours, run)
    ]
    assert digests[0] == digests[1]
    assert resolve(run).run().parts == resolve(ours).run().parts == "projector+language"

    cells = set((world.outputs / ".cells").glob("*.parquet"))
    world.score(run)
    assert set((world.outputs / ".cells").glob("*.parquet")) == cells
    scores = [pd.read_csv(folder / "scores.csv") for folder in (ours, run)]
    assert list(scores[0]["cell"]) == list(scores[1]["cell"])
    assert set(scores[1]["lr"]) == {0.002}
    assert set(scores[1]["seed"]) == {7}

    (facts,) = gather(run, 10).runs
    assert (facts.train_seconds, facts.peak_memory_mb) == (None, None)
    print_stored_tables(read_stored_tables(run), as_json=False)
    power(run, [2.0], 0.8, 0.05, as_json=True)
    print_comparison(compare_checkpoints([str(ours), str(run)], Options()), as_json=False)


def test_what_the_trainer_said_is_in_run_json_and_the_rest_is_named_as_not_known(
    theirs: Path, trainer_output: Path
) -> None:
    run = theirs
    written = read_json(run / "run.json")
    recipe = written["config"]["recipe"]
    assert (recipe["lr"], recipe["batch_size"], recipe["schedule"], recipe["warmup"]) == (0.002, 16, "linear", 0.25)
    assert (recipe["steps"], recipe["checkpoints"]["steps"], written["config"]["seed"]) == (2, [1, 2], 7)
    assert written["environment"]["imported from"] == str(trainer_output)
    assert "recipe.weight_decay" in written["environment"]["not known"]
    assert "recipe.batch_size" not in written["environment"]["not known"]
    log = pd.read_csv(run / "train.csv")
    assert log.to_dict("list")["loss"] == [3.0, 2.5]
    assert list(log["lr_language"]) == [1e-3, 5e-4]
    assert log["grad_norm"].isna().tolist() == [False, True]


def test_an_unlogged_learning_rate_stays_empty_in_the_tables(
    world: World, trainer_output: Path, tmp_path: Path
) -> None:
    shutil.copytree(trainer_output / "checkpoint-2", tmp_path / "checkpoint-2")
    for name in ("trainer_state.json", "README.md"):
        (tmp_path / "checkpoint-2" / name).unlink()
    run = bring_in(world, tmp_path / "checkpoint-2", "silent")
    world.score(run)
    rates = pd.read_csv(run / "scores.csv")["lr"]
    assert len(rates)
    assert rates.isna().all()
    assert not (run / "train.csv").exists()
    assert "recipe.lr" in read_json(run / "run.json")["environment"]["not known"]
    print_stored_tables(read_stored_tables(run), as_json=False)


def test_importing_again_changes_nothing_and_other_weights_under_the_name_are_refused(
    world: World, theirs: Path, trainer_output: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in theirs.rglob("*")}
    bring_in(world, trainer_output, "theirs")
    assert {path: path.stat().st_mtime_ns for path in theirs.rglob("*")} == before

    other = tmp_path / "saves"
    shutil.copytree(trainer_output, other)
    for path in (other / "checkpoint-2", other):
        shutil.copyfile(other / "checkpoint-1/model.safetensors", path / "model.safetensors")
    with pytest.raises(UserError, match="different weights"):
        bring_in(world, other, "theirs")
    with pytest.raises(UserError, match="trained here"):
        bring_in(world, trainer_output, "ours")
    (world.outputs / "notes").mkdir()
    (world.outputs / "notes/mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="no run"):
        bring_in(world, trainer_output, "notes")
    assert (world.outputs / "notes/mine.txt").is_file()


def test_final_weights_that_are_not_those_of_the_last_checkpoint_are_refused(
    world: World, trainer_output: Path, tmp_path: Path
) -> None:
    shutil.copytree(trainer_output, tmp_path / "saves")
    shutil.copyfile(trainer_output / "checkpoint-1/model.safetensors", tmp_path / "saves/model.safetensors")
    with pytest.raises(UserError, match="load_best_model_at_end"):
        bring_in(world, tmp_path / "saves", "best")
    assert not (world.outputs / "best/run.json").exists()


def test_weights_saved_in_16_bits_are_exact_and_rounding_alone_is_no_training(
    world: World, trainer_output: Path, tmp_path: Path
) -> None:
    source = tmp_path / "checkpoint-5"
    model = AutoModelForImageTextToText.from_pretrained(trainer_output).to(torch.bfloat16)
    model.save_pretrained(source, max_shard_size="50KB")
    assert (source / "model.safetensors.index.json").is_file()
    run = bring_in(world, source, "rounded")
    inputs = inputs_of(world.model("llava"))
    stored = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32)
    assert torch.equal(own_logits(run, inputs), logits(stored, inputs))
    assert resolve(run).run().parts == "projector+language"  # the vision tower was only rounded


def test_an_adapter_is_merged_and_its_own_parameters_are_counted(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = world.train("adapted", "qwen2_5_vl", LoRA(rank=2), steps=1)
    export(trained, tmp_path / "checkpoint-2", adapter=True)
    write_state(tmp_path / "checkpoint-2", 2)
    run = bring_in(world, tmp_path, "merged", "qwen2_5_vl")
    inputs = inputs_of(world.model("qwen2_5_vl"))
    torch.testing.assert_close(own_logits(run, inputs), own_logits(trained, inputs), atol=1e-5, rtol=1e-5)
    imported, trained_here = resolve(run).run(), resolve(trained).run()
    assert imported.settings["method"]["name"] == "lora"
    assert imported.audit["trainable"] == trained_here.audit["trainable"]
    assert imported.parts == "projector+language"

    settings = read_json(tmp_path / "checkpoint-2/adapter_config.json")
    named = {**settings, "base_model_name_or_path": "someone/else"}
    (tmp_path / "checkpoint-2/adapter_config.json").write_text(json.dumps(named))
    (tmp_path / "checkpoint-2/chat_template.jinja").write_text("{{ messages }}")
    capsys.readouterr()
    bring_in(world, tmp_path, "merged", "qwen2_5_vl")
    output = " ".join(capsys.readouterr().out.split())
    assert "names someone/else as its base" in output
    assert "its chat template is not the base's" in output

    (tmp_path / "checkpoint-2/adapter_config.json").write_text(json.dumps({**settings, "r": 4}))
    with pytest.raises(UserError, match="adapter does not fit the base"):
        bring_in(world, tmp_path, "misfit", "qwen2_5_vl")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of a data loader that would pin memory for a GPU
def test_what_transformers_own_trainer_writes_is_imported(world: World, tmp_path: Path) -> None:
    base = world.model("llava")
    model = AutoModelForImageTextToText.from_pretrained(base.path)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("multi_modal_projector" in name)
    item = {name: value[0] for name, value in inputs_of(base).items()}
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path / "saves"),
            max_steps=4,
            save_steps=2,
            logging_steps=1,
            learning_rate=1e-2,
            per_device_train_batch_size=2,
            report_to=[],
            use_cpu=True,
            remove_unused_columns=False,
            disable_tqdm=True,
        ),
        train_dataset=[{**item, "labels": item["input_ids"]}] * 8,
        processing_class=AutoTokenizer.from_pretrained(base.path),
    )
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    trainer.create_model_card()
    run = bring_in(world, tmp_path / "saves", "from_trainer")
    inputs = inputs_of(base)
    assert torch.equal(own_logits(run, inputs), logits(trainer.model, inputs))
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [0, 2, 4]
    assert resolve(run).run().parts == "projector"
    recipe = resolve(run).run().settings["recipe"]
    assert (recipe["lr"], recipe["batch_size"], recipe["schedule"]) == (1e-2, 2, "linear")
    assert list(pd.read_csv(run / "train.csv")["step"]) == [1, 2, 3, 4]


def resized(folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    model.resize_token_embeddings(model.config.text_config.vocab_size + 8)
    model.save_pretrained(folder)


def with_more_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)


def with_another_layer(folder: Path) -> None:
    config = read_json(folder / "config.json")
    (folder / "config.json").write_text(json.dumps({**config, "vision_feature_layer": -1}))


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def as_shards_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (resized, "resized vocabulary or another architecture"),
        (with_more_tokens, "tokenizer is not that of the base"),
        (with_another_layer, "differs from that of the base.*vision_feature_layer"),
        (as_pickle, "is a pickle"),
        (as_shards_elsewhere, "which is not in"),
        (without_weights, "holds no checkpoint"),
    ],
)
def test_what_is_more_than_changed_weights_is_refused_and_leaves_no_run(
    world: World, trainer_output: Path, tmp_path: Path, change: Any, reason: str
) -> None:
    shutil.copytree(trainer_output / "checkpoint-2", tmp_path / "checkpoint-2")
    change(tmp_path / "checkpoint-2")
    with pytest.raises(UserError, match=reason):
        bring_in(world, tmp_path / "checkpoint-2", "refused")
    assert not (world.outputs / "refused").exists()


def test_another_family_is_refused(world: World, trainer_output: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer is not|is a llava model"):
        bring_in(world, trainer_output, "family", "idefics3")
