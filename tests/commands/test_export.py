from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from forgetbench.commands.export import export
from forgetbench.commands.finetune import finetune, operate
from forgetbench.config import Dtype
from forgetbench.core.errors import UserError
from forgetbench.core.records import Precision
from forgetbench.methods.inc_lora import IncLoRA
from forgetbench.methods.lora import LoRA
from forgetbench.methods.moe_lora import MoELoRA
from forgetbench.methods.mr_lora import MRLoRA
from forgetbench.methods.o_lora import OLoRA
from forgetbench.methods.wise_ft import WiseFT
from forgetbench.runs.address import resolve
from tests.support.toys import World, base_of, inputs_of, logits, own_logits

LANGUAGE = ["language"]
# peft 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def plain(world: World) -> Path:
    run = world.train("plain", "llava")
    operate(WiseFT(name="wise_ft", alphas=[0.5]), run, threads=1)
    return run


def stock(folder: Path) -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForImageTextToText.from_pretrained(folder)
    return model


@pytest.mark.parametrize("checkpoint", ["", "checkpoints/step_000002@wise_ft-0.5"])
def test_a_stock_load_of_an_exported_model_gives_the_bits_of_the_checkpoint(
    plain: Path, tmp_path: Path, checkpoint: str
) -> None:
    export(plain / checkpoint, tmp_path / "model", adapter=False)
    inputs = inputs_of(base_of(plain))
    assert torch.equal(logits(stock(tmp_path / "model"), inputs), own_logits(plain / checkpoint, inputs))
    assert not torch.equal(own_logits(plain / checkpoint, inputs), own_logits(plain / "checkpoints/base", inputs))


@pytest.mark.parametrize("family", ["qwen2_5_vl", pytest.param("idefics3", marks=pytest.mark.slow)])
def test_other_families_are_the_same_after_their_names_on_disk_were_written_and_read(
    world: World, tmp_path: Path, family: str
) -> None:
    run = world.train(family, family, parts=["vision", "projector", "language"], steps=1)
    export(run, tmp_path / "model", adapter=False)
    inputs = inputs_of(base_of(run))
    assert torch.equal(logits(stock(tmp_path / "model"), inputs), own_logits(run, inputs))


def test_the_processor_and_generation_settings_come_along(plain: Path, tmp_path: Path) -> None:
    export(plain, tmp_path / "model", adapter=False)
    ours, theirs = (AutoProcessor.from_pretrained(folder) for folder in (tmp_path / "model", base_of(plain).path))
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}]
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True) for processor in (ours, theirs)]
    assert texts[0] == texts[1]
    assert ours.tokenizer(texts[0])["input_ids"] == theirs.tokenizer(texts[0])["input_ids"]
    assert (tmp_path / "model/generation_config.json").is_file()
    assert [path for path in (tmp_path / "model").rglob("*") if path.suffix in (".bin", ".pt")] == []


@pytest.mark.parametrize(
    ("method", "stages", "parts"),
    [
        (LoRA(rank=2), 1, ["projector", "language"]),
        pytest.param(LoRA(rank=4, rank_stabilised=True), 1, LANGUAGE, marks=pytest.mark.slow),
        pytest.param(LoRA(rank=2, weight_decomposed=True), 1, LANGUAGE, marks=pytest.mark.slow),
        (OLoRA(rank=2), 2, LANGUAGE),
        pytest.param(IncLoRA(rank=2), 1, LANGUAGE, marks=pytest.mark.slow),
    ],
    ids=["lora_and_projector", "rslora", "dora", "o_lora", "inc_lora"],
)
def test_adapters_give_the_checkpoints_logits_merged_and_as_a_peft_adapter(
    world: World, tmp_path: Path, method: LoRA, stages: int, parts: list[str]
) -> None:
    name = f"{method.name}{method.rank_stabilised}{method.weight_decomposed}"
    run = world.train(name, "llava", method, stages, parts=parts, steps=1)
    inputs = inputs_of(base_of(run))
    wanted = own_logits(run, inputs)
    base = stock(Path(base_of(run).path))
    assert (wanted - logits(base, inputs)).abs().max() > 1e-2

    export(run, tmp_path / "merged", adapter=False)
    torch.testing.assert_close(logits(stock(tmp_path / "merged"), inputs), wanted, atol=1e-5, rtol=1e-5)
    export(run, tmp_path / "adapter", adapter=True)
    tuned = PeftModel.from_pretrained(base, tmp_path / "adapter")
    torch.testing.assert_close(logits(tuned, inputs), wanted, atol=1e-5, rtol=1e-5)
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"]


def test_what_trained_in_full_beside_an_adapter_keeps_its_bits_on_a_bf16_base(world: World, tmp_path: Path) -> None:
    config = world.config("on_bf16", "llava", LoRA(rank=2), precision=Precision.bf16, steps=1)
    run = world.outputs / config.name
    finetune(replace(config, model=replace(config.model, dtype=Dtype.bf16)), run)
    export(run, tmp_path / "adapter", adapter=True)
    stored = load_file(tmp_path / "adapter/adapter_model.safetensors")
    trained = {name: tensor for name, tensor in resolve(run).saved().delta().items() if "projector" in name}
    assert trained
    assert all(torch.equal(stored[f"base_model.model.{name}"], tensor) for name, tensor in trained.items())


def test_an_adapter_merged_in_a_later_stage_is_exported_whole_and_refused_as_an_adapter(
    world: World, tmp_path: Path
) -> None:
    run = world.train("merged_stages", "llava", IncLoRA(rank=2), stages=2, parts=LANGUAGE, steps=1)
    inputs = inputs_of(base_of(run))
    export(run, tmp_path / "whole", adapter=False)
    torch.testing.assert_close(logits(stock(tmp_path / "whole"), inputs), own_logits(run, inputs), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match=r"merged the adapters of earlier stages.*without --adapter"):
        export(run, tmp_path / "adapter", adapter=True)
    export(run / "checkpoints/step_000001", tmp_path / "first_stage", adapter=True)


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("method", [MoELoRA(rank=1), MRLoRA(rank=1)], ids=["moe_lora", "mr_lora"])
def test_experts_chosen_by_the_input_are_refused_by_name(
    world: World, tmp_path: Path, method: LoRA, adapter: bool
) -> None:
    run = world.outputs / method.name
    if not run.exists():
        world.train(method.name, "llava", method, parts=LANGUAGE, steps=1)
    with pytest.raises(UserError, match=f"method={method.name} chooses among experts"):
        export(run, tmp_path / "model", adapter)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_adapter_is_refused_as_one(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plain weights and no adapter \(method=plain\)"):
        export(plain, tmp_path / "adapter", adapter=True)


def test_an_existing_target_and_a_wrong_address_are_refused(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export(plain, tmp_path / "there", adapter=False)
    with pytest.raises(UserError, match="no checkpoint step_000007; it has base, step_000001"):
        export(plain / "checkpoints/step_000007", tmp_path / "model", adapter=False)
    with pytest.raises(UserError, match="is not a folder"):
        export(tmp_path / "nothing", tmp_path / "model", adapter=False)


def test_the_card_says_what_is_known_and_no_more(world: World, plain: Path, tmp_path: Path) -> None:
    run = plain
    export(run, tmp_path / "unscored", adapter=False)
    text = (tmp_path / "unscored/README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["library_name"] == "transformers"
    assert not {"base_model", "license"} & head.keys()  # a folder of this machine, and nothing declared
    assert "was not scored" in text
    assert 'from_pretrained("unscored")' in text

    world.score(run)
    (Path(base_of(run).path) / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    export(run, tmp_path / "scored", adapter=False)
    text = (tmp_path / "scored/README.md").read_text()
    assert "was not scored" not in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "apache-2.0"
    cells = re.findall(r"^\| \*\*(.*?)\*\* \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert [name for name, *_ in cells] == ["ID text", "OOD text"]
    for _, here, elsewhere in cells:
        assert re.fullmatch(r"[\d.]+ \[.*\]<br>[+-][\d.]+ \[.*\]", here)
        assert elsewhere == "-"
