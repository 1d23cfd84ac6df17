"""A configuration that declares what no model has, or what its weights do not hold, is refused before it is made."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from forgetbench.config import ModelConfig
from forgetbench.core.errors import UserError
from forgetbench.models.declared import check_sizes
from forgetbench.models.load import load_model
from forgetbench.models.pretrained import load_config
from tests.support.families import llava
from tests.support.published import CONFIGS


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return llava(tmp_path / "base")


def change(base: Path, part: str, **values: object) -> Path:
    path = base / "config.json"
    content = json.loads(path.read_text())
    (content[part] if part else content).update(values)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("text_config", "num_hidden_layers", 10**9),
        ("text_config", "num_hidden_layers", 10**400),
        ("text_config", "num_hidden_layers", -1),
        ("text_config", "num_hidden_layers", 1.5),
        ("text_config", "vocab_size", 10**12),
        ("text_config", "hidden_size", "64"),
        ("text_config", "hidden_size", True),
        ("vision_config", "patch_size", 0),
        ("vision_config", "image_size", 10**6),
        ("vision_config", "image_size", [32, "32"]),
    ],
)
def test_a_size_that_no_model_has_is_refused_by_its_key(base: Path, part: str, key: str, value: object) -> None:
    change(base, part, **{key: value})
    with pytest.raises(UserError, match=rf"config\.json: {part}\.{key} is "):
        load_config(ModelConfig(path=str(base)))


def test_more_places_in_a_picture_than_any_table_has_are_refused(base: Path) -> None:
    change(base, "vision_config", image_size=60_000, patch_size=1)
    with pytest.raises(UserError, match="3,600,000,000 places"):
        load_config(ModelConfig(path=str(base)))


def test_features_of_a_layer_that_is_not_there_are_refused(base: Path) -> None:
    change(base, "", vision_feature_layer=99)
    with pytest.raises(UserError, match="vision_feature_layer is 99"):
        load_config(ModelConfig(path=str(base)))


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_published_sizes_are_within_the_limits(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGS[name]().to_dict(), default=str))
    check_sizes(path)


def test_a_configuration_of_more_than_its_weights_is_refused_before_memory_is_taken(base: Path) -> None:
    change(base, "text_config", vocab_size=10**8)
    with pytest.raises(UserError, match=r"config\.json declares [\d,]+ parameters, and the weights beside it"):
        load_model(ModelConfig(path=str(base)))


def _not_numbers(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name][0] = float("nan")


def _infinite(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name][-1] = float("-inf")


@pytest.mark.parametrize("damage", [_not_numbers, _infinite])
def test_weights_that_are_no_numbers_are_refused(
    base: Path, damage: Callable[[dict[str, torch.Tensor], str], None]
) -> None:
    tensors = load_file(base / "model.safetensors")
    damage(tensors, next(name for name in tensors if name.endswith("linear_1.bias")))
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"linear_1\.bias are not all finite numbers"):
        load_model(ModelConfig(path=str(base)))


def test_a_tensor_too_many_is_told_and_left_out(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = load_model(ModelConfig(path=str(base)))
    tensors = load_file(base / "model.safetensors") | {"\x1b[31m": torch.zeros(1)}
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    assert load_model(ModelConfig(path=str(base))).digest == before.digest
    assert r"1 tensors that the model has no place for, such as '\x1b[31m'" in capsys.readouterr().err


def test_the_tokenizer_of_a_larger_vocabulary_is_refused(base: Path) -> None:
    path = base / "tokenizer.json"
    content: dict[str, Any] = json.loads(path.read_text())
    content["added_tokens"].append({**content["added_tokens"][-1], "id": 5000, "content": "<new>"})
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="the tokenizer of another model"):
        load_model(ModelConfig(path=str(base)))


def test_a_token_of_pictures_beyond_the_vocabulary_is_refused(base: Path) -> None:
    change(base, "", image_token_index=10**6)
    with pytest.raises(UserError, match="gives pictures the token 1000000"):
        load_model(ModelConfig(path=str(base)))


def test_a_pickle_is_never_loaded(base: Path) -> None:
    (base / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1)}, base / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no file named model\.safetensors"):
        load_model(ModelConfig(path=str(base)))


def test_a_header_beyond_the_file_is_refused(base: Path) -> None:
    (base / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read as safetensors"):
        load_model(ModelConfig(path=str(base)))
