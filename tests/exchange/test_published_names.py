"""Exports have the names and files of the publishers, for every family and wherever the base came from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from forgetbench.commands.export import export
from forgetbench.commands.finetune import finetune
from forgetbench.config import ModelConfig, Weights
from forgetbench.exchange.layouts import ExternalCheckpoint
from forgetbench.exchange.other_trainers import changed
from forgetbench.exchange.published_names import save_as_published
from forgetbench.methods.lora import LoRA
from forgetbench.models.load import load_model
from forgetbench.runs.address import resolve
from tests.support.families import CHATML, FAMILIES, MARKED
from tests.support.toys import World, base_of, inputs_of, logits, own_logits

pytestmark = [
    # peft 0.21 reads a property that transformers 5.23 has renamed.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]
OF_LLAVA = {
    "lm_head.": "language_model.lm_head.",
    "model.language_model.": "language_model.model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.vision_tower.": "vision_tower.vision_model.",
}
OF_QWEN2 = {"model.visual.": "visual.", "model.language_model.": "model."}
PUBLISHED: dict[str, dict[str, str]] = {
    "llava": OF_LLAVA,
    "llava_onevision": {**OF_LLAVA, "model.image_newline": "image_newline"},
    "paligemma": OF_LLAVA,
    "gemma3": OF_LLAVA,
    "internvl": {**OF_LLAVA, "model.vision_tower.": "vision_tower."},  # a tower of its own, without the level
    "qwen2_vl": OF_QWEN2,
    "qwen2_5_vl": OF_QWEN2,
    **{key: {} for key in ("qwen3_vl", "idefics3", "smolvlm", "minicpmv4_6", "minicpmv4_7")},
}
"""Beginnings of names in memory, and in the files that publishers wrote with transformers 4; elsewhere they are equal.

What transformers 4.51 and 4.57 themselves write was compared once for all but MiniCPM-V, which they do not have.
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def published(family: str, name: str) -> str:
    for start, theirs in PUBLISHED[family].items():
        if name.startswith(start):
            return theirs + name.removeprefix(start)
    return name


def stock(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder)


def renamed_base(family: str, folder: Path) -> Path:
    """A family's stand-in whose weights have the publisher's names."""
    FAMILIES[family](folder)
    tied = set(stock(folder).state_dict()) - {name for name, _ in stock(folder).named_parameters()}
    tensors = {name: value for name, value in stock(folder).state_dict().items() if name not in tied}
    save_file(
        {published(family, name): one for name, one in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def stored(folder: Path) -> dict[str, torch.dtype]:
    return {name: value.dtype for name, value in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize("family", MARKED)
def test_names_and_types_on_disk_are_the_publishers_and_the_weights_are_the_same(family: str, tmp_path: Path) -> None:
    base = renamed_base(family, tmp_path / "base")
    model = stock(base)
    weights = dict(model.state_dict())
    save_as_published(model, tmp_path / "again")
    assert stored(tmp_path / "again") == stored(base)

    model.save_pretrained(tmp_path / "in_memory", save_original_format=False)  # as trainers on transformers 5 may
    for name, other in (("from_memory", stock(tmp_path / "in_memory")), ("drawn", type(model)(model.config))):
        save_as_published(other, tmp_path / name)
        assert stored(tmp_path / name) == stored(base)
    for name in ("again", "from_memory"):
        back = stock(tmp_path / name).state_dict()
        assert back.keys() == weights.keys()
        assert [key for key in back if not torch.equal(back[key], weights[key])] == []


def test_an_export_loaded_as_a_base_has_the_digest_that_the_run_knows(world: World, tmp_path: Path) -> None:
    run = world.train("whole", "llava", parts=["vision", "projector", "language"], steps=1)
    export(run / "checkpoints/base", tmp_path / "base", adapter=False)
    assert load_model(ModelConfig(path=str(tmp_path / "base"))).digest == resolve(run).run().model_digest
    export(run, tmp_path / "last", adapter=False)
    assert "vision_tower.vision_model.pre_layrnorm.weight" in stored(tmp_path / "last")
    tuned = changed(
        load_model(base_of(run)), base_of(run), 0, ExternalCheckpoint(1, tmp_path / "last", is_adapter=False)
    )
    delta = resolve(run).saved().delta()
    assert tuned.delta.keys() == delta.keys()
    assert all(torch.equal(tuned.delta[name], delta[name]) for name in delta)


def test_a_base_with_drawn_weights_leaves_with_the_publishers_names(world: World, tmp_path: Path) -> None:
    config = world.config("drawn", "llava", steps=1)
    finetune(replace(config, model=replace(config.model, weights=Weights.random)), world.outputs / "drawn")
    export(world.outputs / "drawn", tmp_path / "model", adapter=False)
    assert stored(tmp_path / "model") == stored(renamed_base("llava", tmp_path / "base"))


@pytest.mark.parametrize(("family", "adapted"), [("llava", ["vision", "language"]), ("gemma3", ["language"])])
def test_an_adapter_on_a_vision_tower_has_the_level_that_publishers_have_and_a_whole_tower_beside_one_loads(
    world: World, tmp_path: Path, family: str, adapted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = world.train(f"tower_{family}", family, LoRA(rank=2, parts=adapted), parts=["vision", "language"], steps=1)
    capsys.readouterr()
    export(run, tmp_path / "adapter", adapter=True)
    assert "It also changes vision. vLLM applies" in capsys.readouterr().out
    towers = [name for name in load_file(tmp_path / "adapter/adapter_model.safetensors") if "vision_tower" in name]
    assert towers
    # peft does not know the level in the names of whole modules, and vLLM takes none.
    assert [name for name in towers if (".vision_model." in name) != ("vision" in adapted)] == []

    inputs = inputs_of(base_of(run))
    tuned = PeftModel.from_pretrained(stock(Path(base_of(run).path)), tmp_path / "adapter")
    torch.testing.assert_close(logits(tuned, inputs), own_logits(run, inputs), atol=1e-5, rtol=1e-5)
    changed(load_model(base_of(run)), base_of(run), 0, ExternalCheckpoint(1, tmp_path / "adapter", is_adapter=True))


def test_an_adapter_with_the_names_of_transformers_4_is_brought_in_as_the_same(world: World, tmp_path: Path) -> None:
    run = world.train("old_names", "llava", LoRA(rank=2, parts=["vision", "language"]), parts=["vision", "language"])
    export(run, tmp_path / "new", adapter=True)
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    tensors = load_file(tmp_path / "new/adapter_model.safetensors")
    start = "base_model.model."
    old = {
        start + published("llava", name.removeprefix(start).replace(".vision_model", "")): one
        for name, one in tensors.items()
    }
    assert not old.keys() & tensors.keys()
    save_file(old, tmp_path / "old/adapter_model.safetensors", {"format": "pt"})
    found = [
        changed(
            load_model(base_of(run)), base_of(run), 0, ExternalCheckpoint(1, tmp_path / name, is_adapter=True)
        ).delta
        for name in ("new", "old")
    ]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_configuration_and_processor_are_the_files_of_the_base_with_the_weights_type(
    world: World, tmp_path: Path
) -> None:
    base = Path(world.model("qwen2_vl").path)
    described = json.loads((base / "config.json").read_text())
    text = described.pop("text_config")
    rope = text.pop("rope_parameters")
    described |= {key: value for key, value in text.items() if key != "model_type"}
    described |= {"rope_theta": rope["rope_theta"], "torch_dtype": "bfloat16", "transformers_version": "4.41.2"}
    described["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    del described["dtype"]
    (base / "config.json").write_text(json.dumps(described))  # as the publisher's: one level, other keys

    run = world.train("old_layout", "qwen2_vl", steps=1)
    export(run, tmp_path / "model", adapter=False)
    assert json.loads((tmp_path / "model/config.json").read_text()) == {**described, "torch_dtype": "float32"}
    for name in ("preprocessor_config.json", "processor_config.json", "chat_template.json", "tokenizer_config.json"):
        assert (tmp_path / "model" / name).read_bytes() == (base / name).read_bytes()
    assert not (tmp_path / "model/chat_template.jinja").exists()
    inputs = inputs_of(base_of(run))
    assert torch.equal(logits(stock(tmp_path / "model"), inputs), own_logits(run, inputs))


def test_a_chat_template_of_the_runs_own_is_the_exports(world: World, tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text(CHATML.replace("You answer.", "You name colours."))
    config = world.config("own_template", "qwen2_vl", steps=1)
    finetune(replace(config, model=replace(config.model, chat_template=str(template))), world.outputs / config.name)
    export(world.outputs / config.name, tmp_path / "model", adapter=False)
    written = [path.read_text() for path in (tmp_path / "model").glob("chat_template*")]
    assert [one for one in written if "You name colours." not in one] == []
    assert written
