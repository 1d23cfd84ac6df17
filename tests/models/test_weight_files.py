"""A base whose files are cut short, empty or pointers is refused by name; nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from forgetbench.config import ModelConfig
from forgetbench.core.errors import UserError
from forgetbench.models.load import load_model
from forgetbench.models.pretrained import load_processor
from tests.support.families import FAMILIES

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4" * 64 + "\nsize 988097824\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES["qwen2_vl"](tmp_path_factory.mktemp("whole") / "base")


@pytest.fixture
def base(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "base"))


def refused(base: Path, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_model(ModelConfig(path=str(base)))


@pytest.mark.parametrize("left", [3, 8, 200, -1])
def test_weights_that_were_cut_short_are_refused(base: Path, left: int) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    refused(base, r"model\.safetensors cannot be read as safetensors .*cut short or damaged; copy or download")


def test_weights_of_zeros_after_a_power_cut_are_refused(base: Path) -> None:
    path = base / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    refused(base, r"model\.safetensors cannot be read")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "processor_config.json"])
@pytest.mark.parametrize(("content", "words"), [(POINTER, "is a Git LFS pointer.*git lfs pull"), ("", "is empty")])
def test_pointers_and_empty_files_are_refused_by_name(base: Path, name: str, content: str, words: str) -> None:
    (base / name).write_text(content)
    refused(base, f"{name} {words}")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "processor_config.json"])
def test_settings_that_were_cut_short_are_one_message(base: Path, name: str) -> None:
    path = base / name
    text = path.read_text("utf-8")
    path.write_text(text[: len(text) // 2], "utf-8")
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        load_processor(ModelConfig(path=str(base)))


def test_a_pointer_beside_what_is_read_is_no_matter(base: Path) -> None:
    (base / "pytorch_model.bin").write_text(POINTER)
    (base / "picture.png").write_text(POINTER)
    (base / "notes.txt").touch()
    assert load_model(ModelConfig(path=str(base))).name == "base"


def shard(base: Path) -> list[Path]:
    """The weights in two files with an index."""
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names, index, files = sorted(tensors), {}, []
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        files.append(base / f"model-0000{number}-of-00002.safetensors")
        save_file({name: tensors[name] for name in part}, files[-1], {"format": "pt"})
        index |= dict.fromkeys(part, files[-1].name)
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return files


def test_every_file_of_an_index_is_looked_at(base: Path) -> None:
    files = shard(base)
    assert load_model(ModelConfig(path=str(base))).name == "base"
    files[1].write_text(POINTER)
    refused(base, f"{files[1].name} is a Git LFS pointer")
    files[1].unlink()
    refused(base, f"names {files[1].name}, which is not in")


@pytest.mark.parametrize("content", ["[1]", "{", '{"weight_map": {"a": "../other.safetensors"}}', '{"weight_map": 3}'])
def test_a_damaged_index_is_refused(base: Path, content: str) -> None:
    shard(base)
    (base / "model.safetensors.index.json").write_text(content)
    refused(base, r"model\.safetensors\.index\.json ")
