"""Adapters made elsewhere: settings of other versions, damaged files, heads that are tied to the embeddings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

from forgetbench.config import ModelConfig
from forgetbench.core import limits
from forgetbench.core.errors import UserError
from forgetbench.exchange.adapter_settings import FILE, read_settings
from forgetbench.exchange.layouts import ExternalCheckpoint, read_layout
from forgetbench.exchange.other_trainers import Changed, changed, remarks
from forgetbench.models.load import LoadedModel, load_model
from tests.support.families import FAMILIES
from tests.support.toys import inputs_of, logits

# peft 0.21 reads a property that transformers 5.23 has renamed, and warns of what the tests make on purpose.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]
Q_PROJ = r".*language_model.*\.q_proj"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    """One whose head is the embeddings, and one with a head of its own."""
    folder = tmp_path_factory.mktemp("bases")
    return {name: load_model(ModelConfig(path=str(FAMILIES[name](folder / name)))) for name in ("qwen2_vl", "gemma3")}


@pytest.fixture(scope="module")
def paths(bases: dict[str, LoadedModel]) -> dict[str, str]:
    return {name: str(one.model.config._name_or_path) for name, one in bases.items()}


def adapter(base: str, to: Path, save_embedding_layers: Any = "auto", **settings: Any) -> Any:
    """Write an adapter with peft, and give the model that it makes."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    tuned = get_peft_model(model, LoraConfig(r=2, lora_alpha=6, init_lora_weights=False, **settings)).eval()
    with torch.no_grad():  # modules that train in full start as they are
        for name, parameter in tuned.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(0.1)
    tuned.save_pretrained(str(to), save_embedding_layers=save_embedding_layers)
    return tuned


def bring_in(loaded: LoadedModel, path: str, folder: Path) -> Changed:
    return changed(loaded, ModelConfig(path=path), 0, ExternalCheckpoint(1, folder, is_adapter=True))


def rewrite(folder: Path, **changes: Any) -> None:
    """Change keys of an adapter's settings; None takes one away."""
    path = folder / FILE
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.fixture(scope="module")
def sound(paths: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "checkpoint-5"
    adapter(paths["gemma3"], folder, target_modules=Q_PROJ)
    return folder


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "checkpoint-5"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": ["LORA"]}, "says no peft_type"),
        ({"r": "8"}, "r is '8'"),
        ({"r": -1}, "r is -1"),
        ({"r": 10**9}, "a whole number from 1 to 65536"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"layer_replication": [[0, 10**9]]}, "layer_replication repeats layers"),
    ],
)
def test_a_setting_that_no_adapter_has_is_refused_by_its_key(copy: Path, changes: dict[str, Any], said: str) -> None:
    rewrite(copy, **changes)
    with pytest.raises(UserError, match=rf"adapter_config\.json:? .*{said}"):
        read_settings(copy)


@pytest.mark.parametrize("pattern", ["(((.*)*)*)*x!", "(q_proj"])
def test_a_pattern_of_modules_that_never_ends_or_is_none_is_refused(
    bases: dict[str, LoadedModel], paths: dict[str, str], copy: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.1)
    rewrite(copy, target_modules=pattern)
    with pytest.raises(UserError, match=r"adapter_config\.json: target_modules cannot be read"):
        bring_in(bases["gemma3"], paths["gemma3"], copy)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": Q_PROJ, "modules_to_save": ["lm_head"]},
        {"target_modules": Q_PROJ, "modules_to_save": ["embed_tokens"]},
        {"target_modules": Q_PROJ, "trainable_token_indices": [5, 6]},
    ],
    ids=["head", "embeddings", "head in full", "embeddings in full", "some tokens"],
)
@pytest.mark.parametrize("along", [True, False])
def test_an_adapter_on_a_tied_head_or_its_embeddings_is_refused(
    bases: dict[str, LoadedModel], paths: dict[str, str], tmp_path: Path, settings: dict[str, Any], along: bool
) -> None:
    adapter(paths["qwen2_vl"], tmp_path, save_embedding_layers=along, **settings)
    with pytest.raises(
        UserError, match=r"the adapter trained .*(lm_head|embed_tokens), but head and embeddings .* tied"
    ):
        bring_in(bases["qwen2_vl"], paths["qwen2_vl"], tmp_path)


@pytest.mark.parametrize("along", ["auto", False])
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["lm_head", "q_proj"]},
        {"target_modules": Q_PROJ, "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "o_proj"], "rank_pattern": {"o_proj": 3}, "alpha_pattern": {"o_proj": 1}},
        {"target_modules": Q_PROJ, "use_rslora": True},
    ],
    ids=["head", "head in full", "patterns", "rslora"],
)
def test_an_adapter_on_an_untied_base_is_the_model_that_peft_makes(
    bases: dict[str, LoadedModel], paths: dict[str, str], tmp_path: Path, settings: dict[str, Any], along: Any
) -> None:
    tuned = adapter(paths["gemma3"], tmp_path, save_embedding_layers=along, **settings)
    found = bring_in(bases["gemma3"], paths["gemma3"], tmp_path)
    merged = AutoModelForImageTextToText.from_pretrained(paths["gemma3"], dtype=torch.float32)
    live = dict(merged.named_parameters())
    with torch.no_grad():
        for name, value in found.delta.items():
            live[name].copy_(value)
    inputs = inputs_of(ModelConfig(path=paths["gemma3"]))
    assert torch.allclose(logits(merged, inputs), logits(tuned, inputs), atol=1e-4)
    assert not torch.allclose(logits(merged, inputs), logits(bases["gemma3"].model, inputs), atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": None}, "says no peft_type"),
        ({"peft_type": "NEXTLORA"}, "knows no adapter of peft_type=NEXTLORA"),
        ({"peft_type": "lora"}, "knows no adapter of peft_type=lora"),
        ({"r": None}, "lacks r, which its tensors do not tell"),
        ({"r": None, "lora_alpha": None}, "lacks r and lora_alpha"),
        ({"layers_to_transform": [0], "target_modules": Q_PROJ}, "peft does not take these settings"),
    ],
)
def test_settings_that_cannot_be_read_are_refused_by_file(copy: Path, changes: dict[str, Any], words: str) -> None:
    rewrite(copy, **changes)
    with pytest.raises(UserError, match=rf"{FILE}.*{words}"):
        read_settings(copy)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("{", "cannot be read"),
        ("[1]", "holds a list"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
    ],
)
def test_a_damaged_file_of_settings_is_refused(copy: Path, text: str, words: str) -> None:
    (copy / FILE).write_text(text)
    with pytest.raises(UserError, match=f"{FILE}.*{words}"):
        read_settings(copy)


@pytest.mark.parametrize(
    "changes",
    [{"r": 3}, {"rank_pattern": {"q_proj": 7}}, {"target_modules": ["no_such_layer"]}],
    ids=str,
)
def test_settings_that_do_not_fit_the_tensors_are_one_message(
    bases: dict[str, LoadedModel], paths: dict[str, str], copy: Path, changes: dict[str, Any]
) -> None:
    rewrite(copy, **changes)
    with pytest.raises(UserError, match=r"adapter does not fit the base|does not take these settings"):
        bring_in(bases["gemma3"], paths["gemma3"], copy)


def test_keys_of_a_later_peft_are_left_out_and_named(
    bases: dict[str, LoadedModel], paths: dict[str, str], copy: Path
) -> None:
    rewrite(copy, a_key_of_next_year=1, another_that_is_off=False)
    assert bring_in(bases["gemma3"], paths["gemma3"], copy).delta
    said = remarks(bases["gemma3"], ModelConfig(path=paths["gemma3"]), ExternalCheckpoint(5, copy, is_adapter=True))
    assert any("a_key_of_next_year=1" in one and "another_that" not in one for one in said)


@pytest.mark.parametrize("left", [0, 5, 400])
def test_an_adapter_that_was_cut_short_is_refused_when_its_folder_is_read(copy: Path, left: int) -> None:
    weights = copy / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:left])
    with pytest.raises(UserError, match=r"adapter_model\.safetensors (is empty|cannot be read as safetensors)"):
        read_layout(copy.parent)
