"""The estimate of memory: against the bytes that torch keeps, by arithmetic done by hand, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from typer.testing import CliRunner

from benchmarks.activations import RECIPES, measured
from forgetbench.cli import app
from forgetbench.commands.models_plan import memory_savings, usual_recipes
from forgetbench.compose.checks.memory import memory_problems
from forgetbench.config import (
    DataConfig,
    Dtype,
    EvalMatrixConfig,
    FinetuneConfig,
    GuardConfig,
    MatrixConfig,
    ModelConfig,
    Optimiser,
    Quantisation,
    RecipeConfig,
    Sharding,
    StageConfig,
    Weights,
)
from forgetbench.core.errors import UserError
from forgetbench.core.paths import shipped
from forgetbench.core.records import PARTS, Precision
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.methods.mdgd import MDGD
from forgetbench.methods.moe_lora import MoELoRA
from forgetbench.methods.wise_ft import WiseFT
from forgetbench.models.load import empty_model
from forgetbench.models.memory import GIB, Estimate, estimate, setting_of, trained_parameters
from forgetbench.models.parts import audit, module_counts
from forgetbench.models.sizes import NOMINAL
from forgetbench.training.footprint import memory_warning, read_sizes
from tests.support.families import FAMILIES
from tests.support.runs import ITEMS

# transformers' PaliGemma processor hands tensors to numpy the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LLAVA = "llava-hf/llava-1.5-7b-hf"
CONFIG = FinetuneConfig(
    name="run",
    model=ModelConfig(path=LLAVA, dtype=Dtype.bf16),
    data=DataConfig(stages=[StageConfig(set="target")]),
    recipe=RecipeConfig(lr=1e-4, parts=["language"]),
    method=Method(),
)
SIZES = NOMINAL[LLAVA].sizes(None)
KNOWN = [name for name in FAMILIES if not name.startswith("minicpm")]
"""Families without linear attention, which keeps what no formula here knows."""
SMALLER = {"gradient_accumulation": 32, "gradient_checkpointing": True, "optimiser": Optimiser.adamw_8bit}


def of(config: FinetuneConfig, devices: int = 1) -> Estimate:
    return estimate(NOMINAL[config.model.path].sizes(config.model.max_pixels), setting_of(config, devices))


@pytest.mark.parametrize(
    "family",
    [name if name in {"llava", "qwen2_5_vl"} else pytest.param(name, marks=pytest.mark.slow) for name in KNOWN],
)
def test_estimated_activations_are_what_torch_keeps(family: str, tmp_path: Path) -> None:
    folder = FAMILIES[family](tmp_path / family)
    torch.set_num_threads(1)
    for recipe in RECIPES:
        kept, estimated = measured(folder, recipe, [sample for sample in ITEMS if sample.images][:4])
        assert estimated.activations + estimated.copies == pytest.approx(kept.activations + kept.copies, rel=0.25), (
            recipe
        )


def test_full_training_takes_16_bytes_a_parameter_besides_what_passes_need() -> None:
    config = replace(CONFIG, recipe=replace(CONFIG.recipe, parts=list(PARTS)))
    whole, estimated = sum(SIZES.parameters.values()), of(config)
    assert estimated.weights + estimated.gradients + estimated.moments == 16 * whole
    assert estimated.total == pytest.approx(sum(vars(estimated).values()))


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_what_a_word_trains_is_counted_about_as_the_model_itself_counts_it(family: str, tmp_path: Path) -> None:
    config = replace(CONFIG, model=ModelConfig(path=str(FAMILIES[family](tmp_path / family))))
    model, sizes = empty_model(config.model), read_sizes(config.model)
    counts = {count.part: count.total for count in (*audit(model).parts, *module_counts(model))}
    layered = ["language.layers_1_to_1", "language.layers_1_to_1.attention"]
    counts |= {word: audit(model, [word]).words[0].total for word in layered}
    rough = {"vision.norms", "vision.embeddings", "projector.mlp", "projector.norms"}  # biases are a third of a toy's
    for word in counts.keys() - rough:
        estimated = trained_parameters(sizes, setting_of(replace(config, recipe=replace(CONFIG.recipe, parts=[word]))))
        assert estimated[word] == pytest.approx(counts[word], rel=0.05, abs=150), word


def test_a_module_takes_the_gradients_and_adapters_of_its_own_matrices() -> None:
    words, layers = ["language.attention"], SIZES.language
    attention_only = replace(CONFIG, recipe=replace(CONFIG.recipe, parts=words))
    assert (
        of(attention_only).gradients == 4 * layers.count * 4 * layers.hidden**2
    )  # q, k, v and o of LLaVA-1.5 are square
    adapted = replace(attention_only, method=LoRA(parts=words))
    assert of(adapted).gradients == 4 * 8 * layers.count * 4 * 2 * layers.hidden
    late = replace(CONFIG, recipe=replace(CONFIG.recipe, parts=["language.layers_16_to_31.attention"]))
    assert of(late).gradients == of(attention_only).gradients / 2
    assert of(late).activations < of(attention_only).activations
    with pytest.raises(UserError, match="has 32 layers, from 0 to 31"):
        of(replace(CONFIG, recipe=replace(CONFIG.recipe, parts=["language.layers_16_to_32"])))


def test_packed_weights_are_adapted_word_by_word_and_norms_may_train() -> None:
    packed = replace(CONFIG.model, quantisation=Quantisation.nf4)

    def keys(parts: list[str], method: Method) -> set[str]:
        recipe = replace(CONFIG.recipe, parts=parts)
        return {problem.key for problem in memory_problems(replace(CONFIG, model=packed, recipe=recipe, method=method))}

    attention = LoRA(parts=["language.attention"])
    assert "recipe.parts" in keys(["language.attention"], Method())
    assert "recipe.parts" in keys(["language.attention", "language.mlp"], attention)
    assert "recipe.parts" not in keys(["language.attention", "language.norms", "projector"], attention)


def test_frozen_weights_take_what_their_width_says() -> None:
    lora = replace(CONFIG, method=LoRA())
    parts = SIZES.parameters
    added = of(lora).gradients / 4
    assert added == 8 * sum(SIZES.language.sides.values())
    assert of(lora).weights == 2 * sum(parts.values()) + 4 * added
    packed = replace(lora, model=replace(lora.model, quantisation=Quantisation.nf4))
    saved = of(lora).weights - of(packed).weights
    assert saved == pytest.approx((2 - 0.516) * SIZES.language.linear)


@pytest.mark.parametrize("changed", [{key: value} for key, value in SMALLER.items()], ids=list(SMALLER))
def test_each_change_takes_less(changed: dict[str, object]) -> None:
    assert of(replace(CONFIG, recipe=replace(CONFIG.recipe, **changed))).total < of(CONFIG).total


def test_a_recipe_of_one_item_in_4_bits_fits_24_gb_where_full_training_fits_neither_card() -> None:
    small = replace(CONFIG, method=LoRA(), model=replace(CONFIG.model, quantisation=Quantisation.nf4))
    small = replace(small, recipe=replace(CONFIG.recipe, gradient_accumulation=32))
    assert of(small).fits(24)
    assert not of(CONFIG).fits(80)


def test_sharding_shares_weights_gradients_and_moments_and_ddp_does_not() -> None:
    single, ddp, fsdp = of(CONFIG), of(CONFIG, 8), of(replace(CONFIG, sharding=Sharding.fsdp2), 8)
    assert fsdp.moments == single.moments / 8
    assert single.weights / 8 < fsdp.weights < single.weights / 4
    assert ddp.weights == single.weights
    assert ddp.gradients == 2 * single.gradients


def test_a_guard_holds_what_changes_a_second_time_and_of_a_sliced_model_everything() -> None:
    guard, parts = GuardConfig(max_loss=5.0, datasets=["digits_naming"]), SIZES.parameters
    assert of(replace(CONFIG, guard=guard)).weights - of(CONFIG).weights == 2 * parts["language"]
    lora = replace(CONFIG, method=LoRA())
    assert of(replace(lora, guard=guard)).weights - of(lora).weights == of(lora).gradients  # the adapters, in fp32
    sliced = replace(CONFIG, sharding=Sharding.fsdp2)
    assert of(replace(sliced, guard=guard), 8).weights - of(sliced, 8).weights == 2 * sum(parts.values())


def test_the_last_layers_alone_take_less_than_all_of_them() -> None:
    few = of(replace(CONFIG, recipe=replace(CONFIG.recipe, language_last_layers=4)))
    assert few.activations < of(CONFIG).activations / 7
    assert few.moments < of(CONFIG).moments / 7


def test_more_last_layers_than_there_are_have_no_estimate() -> None:
    with pytest.raises(UserError, match="language_last_layers=999, but the language model has"):
        of(replace(CONFIG, recipe=replace(CONFIG.recipe, language_last_layers=999)))


@pytest.mark.parametrize("path", sorted(shipped("conf").glob("model/*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_checkpoint_can_be_planned_without_network_and_names_no_invented_revision(path: Path) -> None:
    content = yaml.safe_load(path.read_text("utf-8"))
    if path.stem == "local" or content["path"].startswith("embedded:"):
        assert "dtype" not in content  # the embedded base stays as it is, bit for bit
        return
    assert content["path"] in NOMINAL
    assert content["revision"] is None
    assert (content["dtype"], content["attention"]) == ("bf16", "auto")


def test_the_plan_of_a_checkpoint_that_is_not_here_says_that_its_sizes_are_nominal() -> None:
    rows = json.loads(CliRunner().invoke(app, ["models", "plan", "llava_1_5_7b", "--json"]).output)
    assert {row["devices"] for row in rows} == {1, 8}
    assert {"as given", "full", "language", "projector", "lora", "qlora"} <= {row["recipe"] for row in rows}
    assert {row["sizes"] for row in rows} == {"nominal"}
    assert {(row["recipe"], row["devices"]) for row in rows if row["sharding"] == "none" and row["devices"] > 1} == {
        ("optimiser=adamw_8bit", 8),
        ("these three", 8),
        ("qlora", 8),
    }


def test_a_plan_reads_sizes_from_the_configuration_and_no_weight(tmp_path: Path) -> None:
    folder = FAMILIES["llava"](tmp_path / "llava")
    (folder / "model.safetensors").unlink()
    words = ["models", "plan", "model=local", f"model.path={folder}", "--json"]
    rows = json.loads(CliRunner().invoke(app, words).output)
    assert {row["sizes"] for row in rows} == {"read"}


@pytest.mark.parametrize(("family", "is_noted"), [("minicpmv4_6", True), ("llava", False)])
def test_a_plan_says_where_linear_attention_keeps_more_than_it_counts(
    family: str, is_noted: bool, tmp_path: Path
) -> None:
    folder = FAMILIES[family](tmp_path / family)
    shown = CliRunner().invoke(app, ["models", "plan", "model=local", f"model.path={folder}"])
    assert shown.exit_code == 0
    assert ("linear attention keeps more" in " ".join(shown.output.split())) is is_noted


def test_changes_and_usual_recipes_differ_from_the_recipe_as_given() -> None:
    recipes = [case.config.recipe for case in memory_savings(CONFIG)]
    assert recipes
    assert CONFIG.recipe not in recipes
    assert next(case for case in usual_recipes(CONFIG) if case.name == "language").config.recipe.parts == ["language"]


def test_a_training_that_cannot_fit_the_gpu_is_told_of_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, model=ModelConfig(path="embedded:tiny"))
    assert memory_warning(config) is None
    card = SimpleNamespace(total_memory=24 * GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    assert memory_warning(config) is None
    card.total_memory = 1 << 20
    assert "models plan" in (memory_warning(config) or "")


NF4 = replace(CONFIG.model, quantisation=Quantisation.nf4)
PACKED = replace(CONFIG, model=NF4, method=LoRA())
Change = Callable[[FinetuneConfig], FinetuneConfig]


@pytest.mark.parametrize(
    ("start", "key", "change"),
    [
        (CONFIG, "recipe.precision", lambda c: replace(c, recipe=replace(c.recipe, precision=Precision.fp32))),
        (CONFIG, "method.precision", lambda c: replace(c, method=MDGD())),
        (CONFIG, "method.weight_decomposed", lambda c: replace(c, method=LoRA(weight_decomposed=True))),
        (PACKED, "recipe.parts", lambda c: replace(c, method=Method())),
        (PACKED, "method", lambda c: replace(c, method=MoELoRA())),
        (PACKED, "method", lambda c: replace(c, method=WiseFT())),
        (PACKED, "sharding", lambda c: replace(c, sharding=Sharding.fsdp2)),
        (PACKED, "model.quantisation", lambda c: replace(c, model=replace(c.model, weights=Weights.random))),
        (PACKED, "recipe.precision", lambda c: replace(c, recipe=replace(c.recipe, precision=Precision.fp32))),
        (
            CONFIG,
            "recipe.optimiser",
            lambda c: replace(c, sharding=Sharding.fsdp2, recipe=replace(c.recipe, optimiser=Optimiser.adamw_8bit)),
        ),
    ],
)
def test_what_cannot_be_held_and_trained_together_is_refused(
    start: FinetuneConfig, key: str, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # as if bitsandbytes were there
    assert list(memory_problems(start)) == []
    assert [problem.key for problem in memory_problems(change(start))] == [key]


def test_4_bit_weights_are_not_scored_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    config = EvalMatrixConfig(model=NF4, data=CONFIG.data, matrix=MatrixConfig(datasets=["target"]))
    assert [problem.key for problem in memory_problems(config)] == ["matrix.precision"]
    assert not list(memory_problems(replace(config, run="outputs/run")))
    assert not list(memory_problems(replace(config, model=CONFIG.model)))


def test_packing_without_bitsandbytes_is_refused_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    eight = replace(CONFIG, recipe=replace(CONFIG.recipe, optimiser=Optimiser.adamw_8bit))
    for config in (PACKED, eight):
        assert ["forgetbench[bitsandbytes]" in problem.message for problem in memory_problems(config)] == [True]
