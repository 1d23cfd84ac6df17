"""A checkpoint as a PEFT adapter: adapter_config.json and adapter_model.safetensors.

peft itself writes both, from its own model on the same base, so that names and settings are those it reads.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from forgetbench.config import Weights
from forgetbench.core.errors import UserError, reading
from forgetbench.core.records import SEEING_PARTS
from forgetbench.exchange.published_names import with_tower_levels
from forgetbench.methods.lora import LoRA
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.parts import part_of
from forgetbench.models.precision import widen
from forgetbench.runs.run import Run

_ADDED = re.compile(r"(?P<layer>.+)\.lora_(?P<kind>A|B|magnitude_vector)\.(?P<adapter>\w+)\.weight")
_NAME = "default"
TENSORS = "adapter_model.safetensors"


def save_adapter(run: Run, checkpoint: Checkpoint, to: Path) -> list[str]:
    """Write what training added to the base; parts that trained in full beside it go along as whole modules.

    Several adapters that are active together (O-LoRA's stages) become one of their added rank:
    sum_k s B_k A_k = s [B_1 B_2 ...] [A_1; A_2; ...].

    Returns:
        The parts besides the language model that it changes.

    Raises:
        UserError: the checkpoint is no adapter on its base.
    """
    from peft import get_peft_model

    delta = checkpoint.delta()
    method = _method(run, checkpoint, delta)
    layers = sorted({match["layer"] for name in delta if (match := _ADDED.fullmatch(name))})
    adapters = list(dict.fromkeys(match["adapter"] for name in delta if (match := _ADDED.fullmatch(name))))
    loaded = run.load_base()
    full = [name for name in delta if not _ADDED.fullmatch(name)]
    config = method.peft_config(layers)
    config.modules_to_save = _modules(loaded.model, full) or None
    config.lora_alpha = config.lora_alpha * len(adapters) ** (0.5 if method.rank_stabilised else 1)
    config.r *= len(adapters)
    config.revision = run.model.revision  # peft itself names the base, and warns of any other name
    with quiet_peft():
        model = get_peft_model(loaded.model, config, _NAME)
    live: dict[str, nn.Parameter] = dict(model.get_base_model().named_parameters())
    widen(live[_saved(name)] for name in full)  # peft's copies are as wide as the base, training was in fp32
    what = f"{run.folder}, {checkpoint.name}: its tensors"
    with reading(what, "restore its run.json, or train it again"), torch.no_grad():
        for name, value in _joined(delta, adapters).items():
            live[_saved(name) if name in full else name].copy_(value)
    model.save_pretrained(str(to), save_embedding_layers=False)
    _rename(to / TENSORS, loaded.model)
    changed = {part_of(name) for name in (*(f"{layer}.weight" for layer in layers), *full)}
    return [part for part in SEEING_PARTS if part in changed]


def _rename(path: Path, base: Any) -> None:
    """Give a tower's tensors the names that peft knows from published files, and that vLLM looks for."""
    tensors = load_file(path)
    names = with_tower_levels(base, list(tensors))
    save_file({names[name]: value for name, value in tensors.items()}, path, {"format": "pt"})


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silence peft on a property that transformers 5.23 has renamed, and on tied heads, which are refused in full."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)
        yield


def _method(run: Run, checkpoint: Checkpoint, delta: Mapping[str, Tensor]) -> LoRA:
    """The method of a checkpoint that is an adapter.

    Raises:
        UserError: why it is none, and what to do.
    """
    method, model, whole = run.config.method, run.model, "export it without --adapter."
    what = f"{run.folder}, {checkpoint.name}"
    if not isinstance(method, LoRA):
        raise UserError(f"{what}: it holds plain weights and no adapter (method={method.name}); {whole}")
    if model.weights is Weights.random:
        raise UserError(f"{what}: its base was drawn at random, so there is nothing to load an adapter on; {whole}")
    if not delta:
        raise UserError(f"{what} is the untouched base, without an adapter; {whole}")
    if checkpoint.variant:
        raise UserError(f"{what}: a variant made after training holds plain weights; {whole}")
    if not any(map(_ADDED.fullmatch, delta)):
        raise UserError(
            f"{what}: method={method.name} chooses among experts by the input, which peft has no adapter for; score it "
            "here, or export a run of another method."
        )
    if any(name.endswith(".base_layer.weight") for name in delta):
        raise UserError(
            f"{what}: method={method.name} has merged the adapters of earlier stages into the weights below them; "
            f"{whole} Checkpoints of the first stage are adapters."
        )
    return method


def _joined(delta: Mapping[str, Tensor], adapters: list[str]) -> dict[str, Tensor]:
    """A checkpoint's tensors with those of several adapters joined along the rank, under one adapter's name."""
    parts_by_name: dict[str, list[Tensor]] = {}
    # By adapter first: A and B of a layer must be joined in the same order.
    for adapter in [None, *adapters]:
        for name, value in delta.items():
            match = _ADDED.fullmatch(name)
            if (match and match["adapter"]) == adapter:
                key = f"{match['layer']}.lora_{match['kind']}.{_NAME}.weight" if match else name
                parts_by_name.setdefault(key, []).append(value)
    return {name: torch.cat(parts, dim=int(".lora_B." in name)) for name, parts in parts_by_name.items()}


def _modules(model: Any, names: list[str]) -> list[str]:
    """Full names of the modules that hold these parameters and nothing else.

    Raises:
        UserError: a parameter belongs to a module that peft could not save alone.
    """
    shared = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    tied = set(shared) - {name for name, _ in model.named_parameters()}
    holders = sorted({name.rpartition(".")[0] for name in names})
    for holder in holders:
        module = model.get_submodule(holder)
        held = {f"{holder}.{name}" for name, _ in module.named_parameters()}
        is_tied = any(
            model.get_parameter(parameter) is model.get_parameter(other) for parameter in held for other in tied
        )
        if not holder or list(module.children()) or is_tied:
            raise UserError(
                f"'{holder}' trained in full beside the adapters, and peft cannot keep it apart from the rest of the "
                "model; export without --adapter."
            )
    return holders


def _saved(name: str) -> str:
    """Where peft keeps its copy of a module that trains in full."""
    holder, _, last = name.rpartition(".")
    return f"{holder}.modules_to_save.{_NAME}.{last}"
