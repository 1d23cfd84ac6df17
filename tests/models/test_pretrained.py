"""Processors: without video, and under a chat template of the user's choice."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import transformers
from huggingface_hub import constants
from PIL import Image

from forgetbench.config import ModelConfig
from forgetbench.core import limits
from forgetbench.core.errors import UserError
from forgetbench.models.chat_template import ChatTemplate
from forgetbench.models.load import load_model
from forgetbench.models.pretrained import load_config, load_processor
from tests.support.families import FAMILIES, llava

QUESTION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
OTHER = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}Q: {{ part['text'] }} A:{% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


def with_template(folder: Path, path: Path, text: str) -> ModelConfig:
    path.write_text(text)
    return ModelConfig(path=str(folder), chat_template=str(path))


def test_a_template_takes_the_place_of_the_checkpoints_own(folder: Path, tmp_path: Path) -> None:
    config = with_template(folder, tmp_path / "other.jinja", OTHER)
    processor = load_processor(config)
    assert processor.apply_chat_template(QUESTION, add_generation_prompt=True) == "<image>Q: What is it? A:"
    published, replaced = load_model(ModelConfig(path=str(folder))), load_model(config)
    assert published.inputs_digest != replaced.inputs_digest
    assert published.digest != replaced.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% for message in messages %}", "fails on a question with a picture"),
        ("{{ messages[0]['content'] + '!' }}", "fails on a question with a picture"),
        ("{{ raise_exception('no pictures, please') }}", "no pictures, please"),
        ("{% for message in messages %}{{ message['role'] }}: {% endfor %}", "writes nothing for a picture"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested too deeply"),
        ("{{ 'a' * 10000000000 }}", "more memory than there is"),
        ("{{ 10 ** 10 ** 10 }}", r"computes powers \(\*\*\)"),
        ("{# " + "x" * 2**20 + " #}", r"at most 1,048,576 are read"),
        ("  ", "it is empty"),
    ],
    ids=[
        "syntax",
        "text only",
        "its own refusal",
        "picture dropped",
        "zero",
        "deep",
        "memory",
        "powers",
        "long",
        "empty",
    ],
)
def test_a_template_that_cannot_ask_about_pictures_is_refused(
    folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_processor(with_template(folder, tmp_path / "bad.jinja", text))


def test_a_template_that_never_ends_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.3)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(UserError, match=r"endless\.jinja takes more than"):
        load_processor(with_template(folder, tmp_path / "endless.jinja", endless + OTHER))


@pytest.mark.parametrize(
    ("template", "message"),
    [(4, "is no text"), ({"tool_use": OTHER}, "one called 'default'"), ({"default": 4}, "is no text")],
)
def test_what_stands_for_a_template_and_is_none_is_refused(folder: Path, template: Any, message: str) -> None:
    processor = load_processor(ModelConfig(path=str(folder)))
    processor.chat_template = template
    with pytest.raises(ValueError, match=message):
        ChatTemplate(processor)


def test_of_several_templates_the_default_is_taken(folder: Path) -> None:
    processor = load_processor(ModelConfig(path=str(folder)))
    processor.chat_template = {"default": OTHER, "tool_use": "x"}
    assert ChatTemplate(processor).apply(QUESTION, asks=True) == "<image>Q: What is it? A:"


def test_a_processor_that_makes_no_numbers_of_a_picture_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = next(candidate for candidate in copy.glob("*processor_config.json") if "image_std" in candidate.read_text())
    content = json.loads(path.read_text())
    content.get("image_processor", content)["rescale_factor"] = float("nan")
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="makes no finite numbers of a picture"):
        load_model(ModelConfig(path=str(copy)))


def test_a_template_that_cannot_be_read_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.chat_template=.*none\.jinja cannot be read"):
        load_processor(ModelConfig(path=str(folder), chat_template=str(tmp_path / "none.jinja")))
    with pytest.raises(UserError, match="cannot be read"):
        load_processor(ModelConfig(path=str(folder), chat_template=str(tmp_path)))
    (tmp_path / "bytes.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        load_processor(ModelConfig(path=str(folder), chat_template=str(tmp_path / "bytes.jinja")))


def test_a_model_that_is_not_here_is_refused_at_once_without_a_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    config = ModelConfig(path="owner/name", revision="v1")
    for offline, reason in ((True, "HF_HUB_OFFLINE is set"), (False, r"http://127.0.0.1:9 cannot be reached \(.+\)")):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        with pytest.raises(UserError, match=reason) as refused:
            load_config(config)
        assert "owner/name is neither a folder nor downloaded" in str(refused.value)
        assert str(refused.value).endswith("hf download owner/name --revision v1")
        assert ("Unset it" in str(refused.value)) is offline
        load_config(ModelConfig(path=str(folder)))


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_family_whose_pictures_need_torchvision_says_so(folder: Path, tmp_path: Path) -> None:
    transformers.Lfm2VlConfig().save_pretrained(tmp_path)
    described = {"image_processor_type": "Lfm2VlImageProcessor", "processor_class": "Lfm2VlProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(described))
    shutil.copy(folder / "tokenizer.json", tmp_path)
    shutil.copy(folder / "tokenizer_config.json", tmp_path)
    with pytest.raises(UserError, match=r"pip install 'forgetbench\[torchvision\]'"):
        load_processor(ModelConfig(path=str(tmp_path)))


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_vl", "smolvlm", "internvl", "minicpmv4_6"])
def test_a_processor_without_its_video_half_is_saved_and_loaded_like_any_other(tmp_path: Path, family: str) -> None:
    folder = FAMILIES[family](tmp_path / family)
    first = load_processor(ModelConfig(path=str(folder)))
    assert isinstance(first, getattr(transformers, type(first).__name__))
    assert first.get_attributes() == ["image_processor", "tokenizer"]
    first.save_pretrained(folder)
    second = load_processor(ModelConfig(path=str(folder)))
    text = second.apply_chat_template(QUESTION, add_generation_prompt=True)
    assert text == first.apply_chat_template(QUESTION, add_generation_prompt=True)
    image = Image.new("RGB", (40, 20), (200, 30, 10))
    before, after = (p(text=[text], images=[[image]], return_tensors="pt") for p in (first, second))
    assert before.keys() == after.keys() >= {"input_ids", "pixel_values"}
    assert all((before[key] == after[key]).all() for key in before)
