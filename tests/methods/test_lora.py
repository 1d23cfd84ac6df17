"""LoRA: invisible at the start, confined to its parts, and the same numbers when merged by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from forgetbench.compose import compose
from forgetbench.config import FinetuneConfig, ModelConfig, RecipeConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind, Precision, Sample
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.methods.lora import LoRA
from forgetbench.models.checkpoint import list_checkpoints, save_checkpoint
from forgetbench.models.load import load_model
from forgetbench.models.parts import audit, part_of, word_of
from forgetbench.training.loop import Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.prepare import prepare
from tests.support.families import FAMILIES, llava

MLP = ["gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module", params=["llava", "idefics3", "qwen2_5_vl"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(FAMILIES[request.param](tmp_path_factory.mktemp("models") / request.param))


def recipe(*parts: str) -> RecipeConfig:
    return RecipeConfig(lr=1e-3, parts=list(parts))


def fresh(path: str) -> Any:
    return load_model(ModelConfig(path=path))


def question(path: str) -> dict[str, Tensor]:
    processor = fresh(path).processor
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    image = Image.new("RGB", (20, 20), (200, 30, 90))
    return dict(processor(text=[text], images=[image], return_tensors="pt"))


@torch.no_grad()
def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    model.eval()
    return model(**inputs, use_cache=False).logits


@torch.no_grad()
def disturb(model: Any) -> None:
    """Stand in for training: change everything that trains."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.05)


VARIANTS: dict[str, dict[str, bool]] = {
    "lora": {},
    "rslora": {"rank_stabilised": True},
    "dora": {"weight_decomposed": True},
}


@pytest.mark.parametrize("variant", ["lora", "dora"])  # rsLoRA is another factor on nothing
def test_fresh_adapters_change_no_bit_of_the_output(path: str, variant: str) -> None:
    inputs, model = question(path), fresh(path).model
    before = logits(model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = logits(model, inputs)
    method = LoRA(parts=["vision", "language"], dropout=0.5, **VARIANTS[variant])
    prepare(model, [recipe("vision", "language")], method, 0)
    assert torch.equal(logits(model, inputs), before)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(logits(model, inputs), rounded)


def test_only_adapters_train_where_there_are_adapters(path: str) -> None:
    model = fresh(path).model
    prepare(model, [recipe("language", "projector")], LoRA(parts=["language"]), 0)
    for name, parameter in model.named_parameters():
        trains = "lora_" in name if part_of(name) == "language" else part_of(name) == "projector"
        assert parameter.requires_grad is trains, name
    assert audit(model).label == "projector+language"


def test_a_module_gets_adapters_and_what_else_is_named_trains_in_full(path: str) -> None:
    model = fresh(path).model
    words = ["language.layers_1_to_1.attention", "language.norms"]
    prepared = prepare(model, [recipe(*words)], LoRA(parts=words[:1]), 0)
    adapters = [name for name in prepared.audit.names if "lora_" in name]
    assert len(adapters) == 2 * 4
    assert {word_of(name, words) for name in adapters} == {words[0]}
    assert {word_of(name, words) for name in set(prepared.audit.names) - set(adapters)} == {words[1]}
    assert prepared.audit.label == "language.norms+language.layers_1_to_1.attention"


def test_a_module_without_linear_layers_gets_no_adapter(path: str) -> None:
    with pytest.raises(UserError, match=r"'language\.norms' has no linear layer"):
        prepare(fresh(path).model, [recipe("language.norms")], LoRA(parts=["language.norms"]), 0)


def test_last_layers_restrict_the_adapters_too(path: str) -> None:
    model = fresh(path).model
    chosen = recipe("language")
    chosen.language_last_layers = 1
    prepare(model, [chosen], LoRA(), 0)
    names = audit(model).names
    assert names
    assert all("lora_" in name and ".layers.1." in name for name in names)


def test_targets_are_looked_up_in_their_own_part_only(path: str) -> None:
    model = fresh(path).model
    prepare(model, [recipe("language")], LoRA(targets={"language": MLP}), 0)
    adapted = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert {part_of(name) for name in adapted} == {"language"}
    assert len(adapted) == 2 * len(MLP) * 2  # two layers, A and B


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_weights_merged_by_hand_give_the_same_logits(path: str, variant: str) -> None:
    inputs, model = question(path), fresh(path).model
    method = LoRA(rank=3, alpha=5, parts=["language", "vision"], **VARIANTS[variant])
    prepare(model, [recipe("language", "vision")], method, 0)
    disturb(model)
    adapted = logits(model, inputs)
    values = dict(model.named_parameters())
    plain = fresh(path).model
    base = logits(plain, inputs)
    scale = 5 / (3**0.5 if method.rank_stabilised else 3)
    for name, parameter in plain.named_parameters():
        module = name.removesuffix(".weight")
        if f"{module}.lora_A.default.weight" in values:
            a, b = (values[f"{module}.lora_{side}.default.weight"] for side in "AB")
            parameter.add_(scale * b @ a)
            length = values.get(f"{module}.lora_magnitude_vector.default.weight")
            if length is not None:
                parameter.mul_((length / parameter.norm(dim=1))[:, None])
    assert (adapted - base).abs().max() > 1e-3
    assert (logits(plain, inputs) - adapted).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["lora", "rslora", "dora"])
def test_each_shipped_variant_is_the_class_with_its_own_name(name: str) -> None:
    method = compose(FinetuneConfig, [f"method={name}", "method.rank=4"]).method
    assert method == LoRA(name=name, rank=4, **VARIANTS[name])


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_a_saved_checkpoint_reloads_and_step_0_is_the_plain_base(path: str, tmp_path: Path, variant: str) -> None:
    inputs = question(path)
    method = LoRA(rank=2, **VARIANTS[variant])
    trained = fresh(path).model
    prepare(trained, [recipe("language", "projector")], method, 0)
    disturb(trained)
    delta = {name: value.detach() for name, value in trained.named_parameters() if value.requires_grad}
    save_checkpoint(tmp_path, 7, delta, {"method": {"rank": 2}})

    scored = fresh(path).model
    torch.manual_seed(123)  # scoring attaches with other random numbers than training did
    method.attach(scored, 1)
    swap = WeightSwap(scored)
    base, checkpoint = list_checkpoints(tmp_path)
    swap.to(checkpoint.delta())
    assert torch.equal(logits(scored, inputs), logits(trained, inputs))
    swap.to(base.delta())
    assert torch.equal(logits(scored, inputs), logits(fresh(path).model, inputs))


def test_a_checkpoint_after_one_step_holds_the_adapters_whole(tmp_path: Path) -> None:
    # After one step from B = 0 the matrices A have not moved, but a later process cannot draw them again.
    folder = llava(tmp_path / "llava")
    loaded = load_model(ModelConfig(path=str(folder)))
    method, recipe = LoRA(rank=2), RecipeConfig(lr=1e-2, parts=["language"], batch_size=1, precision=Precision.fp32)
    prepare(loaded.model, [recipe], method, seed=0)
    trainer = Trainer(loaded, Encoder(loaded.processor), method, recipe, seed=0)
    sample = Sample.question("0", "What is it?", "A", AnswerKind.text)
    list(trainer.run([Stage("toy", MixedStream([WeightedSet("toy", [sample], 1.0)], [], 0.0, 0), 1, "digest")]))
    assert {name.rpartition(".lora_")[2][0] for name in trainer.delta()} == {"A", "B"}
    assert set(trainer.delta()) == set(trainer.trainable)
