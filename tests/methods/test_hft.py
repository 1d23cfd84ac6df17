"""HFT: exactly half of the projection matrices, block by block, and frozen to the bit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from forgetbench.config import ModelConfig
from forgetbench.core.errors import UserError
from forgetbench.methods.hft import HFT
from forgetbench.models.load import load_model
from forgetbench.models.parts import audit, linear_layers, part_of
from tests.support.families import FAMILIES, llava
from tests.support.runs import plan, same_bits, snapshot, trainer


def modules(**children: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


def linears(*names: str, bias: bool = False) -> nn.Module:
    return modules(**{name: nn.Linear(2, 2, bias=bias) for name in names})


def tree(depth: int) -> nn.Module:
    """Module names as in a family with fused attention in the vision tower; a head, embeddings and norms beside."""
    decoder = nn.ModuleList(
        modules(
            self_attn=linears("q_proj", "k_proj", "v_proj", "o_proj", bias=True),
            mlp=linears("gate_proj", "up_proj", "down_proj"),
            norm=nn.LayerNorm(2),
        )
        for _ in range(depth)
    )
    vision = nn.ModuleList(modules(attn=linears("qkv", "proj")) for _ in range(depth))
    language = modules(embed_tokens=nn.Embedding(3, 2), layers=decoder)
    merger = modules(mlp=nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2)))
    return modules(
        model=modules(language_model=language, visual=modules(blocks=vision, merger=merger)),
        lm_head=nn.Linear(2, 3, bias=False),
    )


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def frozen_by_block(model: nn.Module, trainable: list[str], seed: int) -> Counter[str]:
    return Counter(name.split(".")[-3] for name in HFT().frozen(model, trainable, seed))


@pytest.mark.parametrize("depth", [2, 8, 32])
def test_half_of_the_matrices_are_frozen_at_even_depth(depth: int) -> None:
    model = tree(depth)
    frozen = HFT().frozen(model, names(model), 0)
    matrices = {part: [f"{name}.weight" for name in linear_layers(model, part)] for part in ("language", "vision")}
    for part, every in matrices.items():
        assert sum(part_of(name) == part for name in frozen) * 2 == len(every)
    assert sum(part_of(name) == "projector" for name in frozen) == 1
    for layer in range(depth):
        inside = [name for name in frozen if f".layers.{layer}." in name]
        assert sum("self_attn" in name for name in inside) == 2
        assert sum("mlp" in name for name in inside) in (1, 2)
    assert frozen_by_block(model, names(model), 0)["mlp"] == depth * 3 // 2 + 1  # the merger's among them


def test_only_matrices_of_linear_layers_are_frozen() -> None:
    model = tree(4)
    for name in HFT().frozen(model, names(model), 0):
        assert name.endswith(".weight")
        assert not any(word in name for word in ("norm", "embed", "lm_head"))


def test_the_draw_hangs_on_the_seed_and_takes_every_matrix_at_some_time() -> None:
    model = tree(4)
    draws = [frozenset(HFT().frozen(model, names(model), seed)) for seed in range(40)]
    assert draws[3] == frozenset(HFT().frozen(tree(4), names(model)[::-1], 3))
    assert len(set(draws)) == 40
    matrices = [f"{name}.weight" for part in ("language", "vision", "projector") for name in linear_layers(model, part)]
    shares = [sum(name in draw for draw in draws) / 40 for name in matrices]
    assert min(shares) > 0.2
    assert max(shares) < 0.8
    # Which layers give one more is a draw of its own in every run.
    thick = Counter(layer for draw in draws for layer in range(4) if _mlp(draw, layer) == 2)
    assert sum(thick.values()) == 80
    assert min(thick.values()) >= 10


def _mlp(draw: frozenset[str], layer: int) -> int:
    return sum(f".layers.{layer}.mlp" in name for name in draw)


def test_frozen_blocks_are_among_those_that_train() -> None:
    model = tree(4)
    last = [name for name in names(model) if ".layers.2." in name or ".layers.3." in name]
    frozen = set(HFT().frozen(model, last, 0))
    assert frozen <= set(last)
    assert len(frozen) == 7


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "idefics3"])
def test_half_of_every_family_s_decoder_stays_at_the_start(family: str, tmp_path: Path) -> None:
    model = load_model(ModelConfig(path=str(FAMILIES[family](tmp_path / family)))).model
    frozen = HFT().frozen(model, names(model), 1)
    assert sum(part_of(name) == "language" for name in frozen) * 2 == len(linear_layers(model, "language"))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_projector_of_one_matrix_has_no_half(tmp_path: Path) -> None:
    model = load_model(ModelConfig(path=str(FAMILIES["paligemma"](tmp_path / "paligemma")))).model
    projector = [name for name in names(model) if part_of(name) == "projector"]
    with pytest.raises(UserError, match="no half to freeze"):
        HFT().frozen(model, projector, 0)


def test_frozen_matrices_are_bitwise_unchanged_and_all_others_train(tmp_path: Path) -> None:
    folder = llava(tmp_path / "llava")
    subject = trainer(folder, HFT(), parts=["vision", "projector", "language"], weight_decay=0.1)
    model: Any = subject.context.model
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    free = snapshot(subject)
    frozen = set(HFT().frozen(model, before, 0))
    assert set(before) - set(free) == frozen
    assert audit(model).trainable == sum(value.numel() for name, value in before.items() if name not in frozen)
    list(subject.run(plan(3)))
    after = dict(model.named_parameters())
    assert all(same_bits(after[name], before[name]) for name in frozen)
    moved = {name for name in free if not torch.equal(after[name], before[name])}
    assert set(subject.delta()) == moved
    assert {part_of(name) for name in moved} == {"vision", "projector", "language"}
