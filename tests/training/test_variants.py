"""What operations after training are given, and what becomes of their results; adapters are the hard part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from forgetbench.config import ModelConfig
from forgetbench.core.errors import UserError
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.methods.o_lora import OLoRA
from forgetbench.methods.wise_ft import WiseFT
from forgetbench.models.checkpoint import list_checkpoints, save_checkpoint
from forgetbench.models.load import load_model
from forgetbench.training.features import is_fixed
from forgetbench.training.variants import OperationContext, has_variants, make_variants, trained_checkpoints
from tests.support.families import llava
from tests.support.runs import ITEMS, plan, trainer

METHODS: dict[str, Method] = {
    "plain": Method(),
    "lora": LoRA(rank=2),
    "rslora": LoRA(rank=4, rank_stabilised=True),
    "dora": LoRA(rank=2, weight_decomposed=True),
    "o_lora": OLoRA(rank=2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


def fresh(folder: Path) -> Any:
    return load_model(ModelConfig(path=str(folder))).model


def attached(folder: Path, method: Method, stages: int) -> Any:
    model = fresh(folder)
    torch.manual_seed(0)
    method.attach(model, stages)
    return model


@pytest.fixture(scope="module", params=list(METHODS))
def trained(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of two stages, its question, and what its model answers."""
    method = METHODS[request.param]
    subject = trainer(folder, method, stages=2, parts=["language", "projector"])
    list(subject.run(plan(2, 2)))
    run = tmp_path_factory.mktemp("run")
    save_checkpoint(run, 4, subject.delta(), {"method": {"name": method.name}, "stage": 2})
    inputs = dict(subject.passes.batch(ITEMS[:3]).inputs)
    return method, run, inputs, logits(subject.context.model, inputs)


@torch.no_grad()
def logits(model: Any, inputs: dict[str, Any]) -> Tensor:
    model.eval()
    logits: Tensor = model(**inputs, use_cache=False).logits
    return logits


def test_a_checkpoint_taken_apart_and_written_back_answers_the_same(folder: Path, trained: Any) -> None:
    method, run, inputs, expected = trained
    operation_context = OperationContext(fresh(folder), method, 2, seed=0)
    dense = operation_context.merged_weights(list_checkpoints(run)[1].delta())
    assert dense.base.keys() == dense.tuned.keys()
    assert not any("lora_" in name for name in dense.tuned)
    base = logits(fresh(folder), inputs)
    assert torch.equal(logits(operation_context.model, inputs), base)  # adapters add nothing
    assert not is_fixed(operation_context.model)  # or passes would be given the base's picture features
    scored = attached(folder, method, 2)
    swap = WeightSwap(scored)
    swap.to(operation_context.delta(dense.tuned))
    assert (logits(scored, inputs) - base).abs().max() > 0.01
    assert torch.allclose(logits(scored, inputs), expected, atol=1e-5)
    swap.to(operation_context.delta(dense.base))
    assert torch.equal(logits(scored, inputs), base)


def test_variants_stand_beside_their_checkpoint(folder: Path, trained: Any, tmp_path: Path) -> None:
    method, run, inputs, expected = trained
    source = list_checkpoints(run)[1]
    save_checkpoint(tmp_path, 4, source.delta(), source.meta)
    (checkpoint,) = trained_checkpoints(tmp_path, [])
    operation = WiseFT(alphas=[0.0, 0.5, 1.0])
    operation_context = OperationContext(fresh(folder), method, 2, seed=0)
    operation_context.passes = None  # type: ignore[assignment]  # reads no data
    assert not has_variants(tmp_path, checkpoint, operation)
    make_variants(tmp_path, [checkpoint], operation, operation_context)
    assert has_variants(tmp_path, checkpoint, operation)
    assert not has_variants(tmp_path, checkpoint, WiseFT(alphas=[0.3]))
    checkpoints = list_checkpoints(tmp_path)
    names = ["step_000000", "step_000004", *(f"step_000004@wise_ft-{alpha}" for alpha in ("0.0", "0.5", "1.0"))]
    assert [stored.name for stored in checkpoints] == names
    assert [stored.variant for stored in checkpoints[2:]] == ["wise_ft:0.0", "wise_ft:0.5", "wise_ft:1.0"]
    assert {stored.meta["stage"] for stored in checkpoints[1:]} == {2}
    assert trained_checkpoints(tmp_path, []) == [checkpoint]  # a variant is no starting point
    scored = attached(folder, method, 2)
    swap, answers = WeightSwap(scored), []
    for variant in checkpoints[2:]:
        swap.to(variant.delta())
        answers.append(logits(scored, inputs))
    assert torch.allclose(answers[0], expected, atol=1e-5)
    assert torch.equal(answers[2], logits(fresh(folder), inputs))
    assert (answers[1] - answers[0]).abs().max() > 1e-3 < (answers[1] - answers[2]).abs().max()


def test_a_changed_checkpoint_or_setting_asks_for_new_variants(folder: Path, tmp_path: Path) -> None:
    subject = trainer(folder, Method())
    reports, operation = subject.run(plan(2)), WiseFT(alphas=[0.5])
    next(reports)
    meta = {"method": {"name": "plain"}, "stage": 1}
    checkpoint = save_checkpoint(tmp_path, 2, subject.delta(), meta)
    operation_context = OperationContext(fresh(folder), Method(), 1, seed=0)
    operation_context.passes = None  # type: ignore[assignment]
    make_variants(tmp_path, [checkpoint], operation, operation_context)
    before = (tmp_path / "checkpoints/step_000002@wise_ft-0.5/meta.json").read_bytes()
    next(reports)
    changed = save_checkpoint(tmp_path, 2, subject.delta(), meta)
    assert not has_variants(tmp_path, changed, operation)
    make_variants(tmp_path, [changed], operation, operation_context)
    after = (tmp_path / "checkpoints/step_000002@wise_ft-0.5/meta.json").read_bytes()
    assert json.loads(after)["delta_digest"] != json.loads(before)["delta_digest"]


def test_a_step_without_a_checkpoint_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no checkpoint; train it first"):
        trained_checkpoints(tmp_path, [])
    save_checkpoint(tmp_path, 4, {}, {"method": {}})
    with pytest.raises(UserError, match=r"no checkpoint at \[3\]; it has 4"):
        trained_checkpoints(tmp_path, [3, 4])


def test_the_last_step_of_an_unfinished_run_is_not_known(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 4, {}, {"method": {}})
    (tmp_path / "resume").mkdir()
    assert [checkpoint.step for checkpoint in trained_checkpoints(tmp_path, [4])] == [4]
    with pytest.raises(UserError, match="not trained to its end"):
        trained_checkpoints(tmp_path, [])


def test_a_checkpoint_of_another_model_is_refused(folder: Path) -> None:
    operation_context = OperationContext(fresh(folder), Method(), 1, seed=0)
    with pytest.raises(UserError, match="made from another"):
        operation_context.merged_weights({"model.language_model.norm.weight": torch.zeros(3)})
