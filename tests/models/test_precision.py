"""Weights held in bf16 or 4 bits, kernels, checkpointed activations and 8-bit moments: what they may not change."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from forgetbench.config import Dtype, MatrixConfig, ModelConfig, Optimiser, Quantisation, RecipeConfig, Weights
from forgetbench.core.errors import UserError
from forgetbench.core.records import Precision
from forgetbench.data.collate import Encoder
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.models.checkpoint import list_checkpoints, save_checkpoint
from forgetbench.models.load import LoadedModel, load_model
from forgetbench.models.parts import linear_layers, part_of
from forgetbench.models.precision import FLASH, at_precision, resolve_attention, scored_digest
from forgetbench.training.loop import Resume, Trainer
from forgetbench.training.optimiser import adamw
from forgetbench.training.prepare import prepare
from tests.support.asking import asked, greedy
from tests.support.families import FAMILIES
from tests.support.runs import ITEMS, all_same_bits, plan, snapshot

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="pip install 'forgetbench[bitsandbytes]'"
)
# bitsandbytes' import makes a ctypes signature the old way, and its CPU backend names a kernel it can do without.
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA whose stored values are bf16's, as published checkpoints' are."""
    path = FAMILIES["llava"](tmp_path_factory.mktemp("precision") / "llava")
    weights = path / "model.safetensors"
    rounded = {name: value.bfloat16().float() for name, value in load_file(weights).items()}
    save_file(rounded, weights, metadata={"format": "pt"})
    return path


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trainer(folder: Path, method: Method, model: Mapping[str, Any] = {}, **recipe: Any) -> Trainer:
    """Ready to train, as `finetune` makes it."""
    values: dict[str, Any] = {"lr": 1e-2, "parts": ["language"], "batch_size": 4} | recipe
    loaded = load_model(ModelConfig(path=str(folder), **model))
    made = RecipeConfig(**values)
    prepare(loaded.model, [made], method, seed=0)
    return Trainer(loaded, Encoder(loaded.processor), method, made, 0)


def trained(subject: Trainer, steps: int = 3) -> list[float]:
    return [report.loss for report in subject.run(plan(steps))]


def bf16(folder: Path) -> LoadedModel:
    return load_model(ModelConfig(path=str(folder), dtype=Dtype.bf16))


def test_digest_is_of_values_and_not_of_the_width_that_holds_them(folder: Path) -> None:
    wide, narrow = load_model(ModelConfig(path=str(folder))), bf16(folder)
    assert {parameter.dtype for parameter in narrow.model.parameters()} == {torch.bfloat16}
    assert narrow.digest == wide.digest
    with torch.no_grad():
        next(narrow.model.parameters()).view(-1)[0] += 1
    assert load_model(ModelConfig(path=str(folder), weights=Weights.random)).digest != wide.digest


def test_cells_of_bf16_passes_tell_models_of_two_widths_apart() -> None:
    narrow, wide = ModelConfig(path="a", dtype=Dtype.bf16), ModelConfig(path="a")
    assert scored_digest("0a", narrow, Precision.bf16) != scored_digest("0a", wide, Precision.bf16) == "0a"
    assert scored_digest("0a", narrow, Precision.fp32) == "0a"


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_fp32_scoring_of_a_model_held_in_bf16_is_that_of_its_values_in_fp32(family: str, tmp_path: Path) -> None:
    path = FAMILIES[family](tmp_path / family)
    narrow, wide = bf16(path), load_model(ModelConfig(path=str(path)))
    for parameter in wide.model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    at_precision(narrow.model, Precision.fp32)
    assert asked(narrow, ITEMS[:4], greedy(2)) == asked(wide, ITEMS[:4], greedy(2))
    buffers = list(zip(narrow.model.buffers(), wide.model.buffers(), strict=True))
    assert buffers
    for ours, theirs in buffers:
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_what_trains_is_fp32_and_what_is_frozen_as_the_model_is_held(folder: Path) -> None:
    subject = trainer(folder, LoRA(), {"dtype": Dtype.bf16})
    widths = {name: parameter.dtype for name, parameter in subject.context.model.named_parameters()}
    assert {widths[name] for name in subject.trainable} == {torch.float32}
    assert {width for name, width in widths.items() if name not in subject.trainable} == {torch.bfloat16}
    losses = trained(subject)
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("parts", [["vision"], ["projector"], ["vision", "projector", "language"]])
def test_every_part_of_a_model_held_in_bf16_trains(folder: Path, parts: list[str]) -> None:
    subject = trainer(folder, Method(), {"dtype": Dtype.bf16}, parts=parts)
    before = snapshot(subject)
    trained(subject, 1)
    moved = {part_of(name) for name, tensor in snapshot(subject).items() if not torch.equal(tensor, before[name])}
    assert moved == set(parts)


def test_small_steps_on_a_model_held_in_bf16_keep_every_bit_through_save_load_and_swap(
    folder: Path, tmp_path: Path
) -> None:
    subject = trainer(folder, Method(), {"dtype": Dtype.bf16}, lr=1e-6, warmup=0.0)
    trained(subject, 1)
    made = {name: value.clone() for name, value in subject.delta().items()}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in made.values())
    save_checkpoint(tmp_path, 1, made, {"method": {}})
    loaded = bf16(folder)
    base = {name: tensor.detach().clone() for name, tensor in loaded.model.named_parameters()}
    swap = WeightSwap(loaded.model)
    for _ in range(2):
        swap.to(list_checkpoints(tmp_path)[-1].delta())
        live: dict[str, Tensor] = dict(loaded.model.named_parameters())
        assert all_same_bits({name: live[name].detach() for name in made}, made)
        assert swap.base_values.keys() == made.keys()
        assert all(torch.equal(value, base[name].float()) for name, value in swap.base_values.items())
        swap.to({})
        assert all(tensor.dtype == torch.bfloat16 and torch.equal(tensor, base[name]) for name, tensor in live.items())


def test_scoring_a_model_held_in_bf16_gives_answers_distances_and_layers(folder: Path, tmp_path: Path) -> None:
    subject = trainer(folder, LoRA(), {"dtype": Dtype.bf16})
    trained(subject, 1)
    saved = save_checkpoint(tmp_path, 1, subject.delta(), {"method": {}})
    loaded = bf16(folder)
    LoRA().attach(loaded.model, 1)
    runner = ModelRunner(
        loaded, Encoder(loaded.processor), MatrixConfig(datasets=[], precision=Precision.bf16), tmp_path
    )
    runner.use_checkpoint(saved)
    language = next(row for row in runner.distances() if row.part == "language")
    assert language.weight_distance > 0
    answers = asked(loaded, ITEMS[:2], replace(greedy(2), precision="bf16"))
    assert [bool(answer.text) for answer in answers] == [True, True]


@pytest.mark.parametrize("method", [Method(), LoRA(dropout=0.1)])
def test_gradient_checkpointing_does_not_change_a_bit(folder: Path, method: Method) -> None:
    runs = [trainer(folder, replace(method), gradient_checkpointing=on) for on in (False, True)]
    plain, again = [(trained(run), snapshot(run)) for run in runs]
    assert plain[0] == again[0]
    assert all_same_bits(plain[1], again[1])
    assert runs[1].context.model.is_activation_checkpointing


def test_auto_attention_is_flash_only_where_it_runs_and_every_pass_is_bf16() -> None:
    auto = ModelConfig(path="a", attention="auto", dtype=Dtype.bf16)
    half, full = Precision.bf16, Precision.fp32
    assert resolve_attention(auto, half, available=lambda: True).attention == FLASH
    assert resolve_attention(auto, available=lambda: True).attention == FLASH
    assert resolve_attention(auto, half, full, available=lambda: True).attention == "sdpa"
    assert resolve_attention(auto, half, available=lambda: False).attention == "sdpa"
    assert resolve_attention(replace(auto, attention="eager"), half, available=lambda: True).attention == "eager"


def test_flash_attention_that_cannot_run_is_refused_with_the_way_out() -> None:
    with pytest.raises(UserError, match=r"model\.attention=auto or sdpa"):
        resolve_attention(ModelConfig(path="a", attention=FLASH), available=lambda: False)


@needs_bitsandbytes
@quiet
def test_nf4_packs_the_linear_layers_of_the_language_model_only(folder: Path) -> None:
    loaded = load_model(ModelConfig(path=str(folder), dtype=Dtype.bf16, quantisation=Quantisation.nf4))
    packed = {
        name.removesuffix(".weight")
        for name, parameter in loaded.model.named_parameters()
        if parameter.dtype == torch.uint8
    }
    assert packed == set(linear_layers(loaded.model, "language"))
    assert loaded.digest != bf16(folder).digest
    with pytest.raises(UserError, match=r"matrix\.precision=bf16"):
        at_precision(loaded.model, Precision.fp32)


@needs_bitsandbytes
@quiet
def test_adapters_train_on_packed_weights_which_stay_and_are_scored(folder: Path, tmp_path: Path) -> None:
    model = {"dtype": Dtype.bf16, "quantisation": Quantisation.nf4}
    subject = trainer(folder, LoRA(), model, gradient_checkpointing=True)
    whole = subject.context.model
    packed = {
        name: parameter.detach().clone()
        for name, parameter in whole.named_parameters()
        if parameter.dtype == torch.uint8
    }
    losses = trained(subject)
    assert losses[0] > losses[1] > losses[2]
    assert packed
    assert all(torch.equal(dict(whole.named_parameters())[name], parameter) for name, parameter in packed.items())
    saved = save_checkpoint(tmp_path, 3, subject.delta(), {"method": {}})
    loaded = load_model(ModelConfig(path=str(folder), **model))
    LoRA().attach(loaded.model, 1)
    runner = ModelRunner(
        loaded, Encoder(loaded.processor), MatrixConfig(datasets=[], precision=Precision.bf16), tmp_path
    )
    runner.use_checkpoint(saved)
    assert {row.part for row in runner.distances()} == {"vision", "projector"}


@needs_bitsandbytes
@quiet
def test_training_with_8_bit_moments_goes_on_to_the_same_bits(folder: Path) -> None:
    def fresh() -> Trainer:
        return trainer(folder, Method(), optimiser=Optimiser.adamw_8bit)

    through, half, rest = fresh(), fresh(), fresh()
    trained(through, 4)
    stages = plan(4)
    run = half.run(stages)
    next(run), next(run)
    point = half.resume_point(2)
    moments = {key.rpartition("/")[2]: value.dtype for key, value in point.tensors.items()}
    assert moments["absmax1"] == torch.float32
    assert torch.uint8 in {value.dtype for value in point.tensors.values()}
    assert "qmap1" not in moments
    save_file({name: value.contiguous() for name, value in point.tensors.items()}, folder / "point.safetensors")
    for _ in rest.run(stages, Resume(point)):
        pass
    assert all_same_bits(snapshot(through), snapshot(rest))


@needs_bitsandbytes
@quiet
def test_8_bit_groups_are_those_of_adamw() -> None:
    weights = {
        "lm_head.weight": torch.nn.Parameter(torch.zeros(2, 2)),
        "model.multi_modal_projector.linear_1.bias": torch.nn.Parameter(torch.zeros(2)),
    }
    recipe = RecipeConfig(lr={"language": 1e-3, "projector": 1e-4}, parts=["language", "projector"], weight_decay=0.1)
    kinds = [adamw(weights, weights, replace(recipe, optimiser=kind)).param_groups for kind in Optimiser]
    keys = ("params", "part", "lr", "peak_lr", "weight_decay")
    plain, eight = [[[group[key] for key in keys] for group in groups] for groups in kinds]
    assert str(plain) == str(eight)


def test_bitsandbytes_that_is_absent_is_named_with_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    with pytest.raises(UserError, match=r"pip install 'forgetbench\[bitsandbytes\]'"):
        load_model(ModelConfig(path=str(folder), quantisation=Quantisation.nf4))
    with pytest.raises(UserError, match=r"pip install 'forgetbench\[bitsandbytes\]'"):
        adamw({}, {}, RecipeConfig(lr=1, parts=["language"], optimiser=Optimiser.adamw_8bit))
