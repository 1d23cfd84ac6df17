"""Write a checkpoint as a folder that transformers or peft loads, with a model card that holds its matrix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forgetbench.config import Quantisation
from forgetbench.core.errors import UserError
from forgetbench.core.files import replacing
from forgetbench.core.locks import only_command
from forgetbench.core.processes import require_single_process
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.exchange.adapter import save_adapter
from forgetbench.exchange.model_card import write_card
from forgetbench.exchange.published_names import save_as_published
from forgetbench.exchange.settings_files import copy_settings
from forgetbench.methods.experts import expert_parts
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.runs.address import resolve
from forgetbench.runs.run import Run
from forgetbench.terminal.console import say


def export(path: Path, to: Path, adapter: bool, base: str = "") -> None:
    """Write one checkpoint; the folder is there whole or not at all.

    Args:
        path: a run's folder (its last checkpoint), or a checkpoint in it.
        to: the new folder.
        adapter: write what was added to the base, instead of the whole model.
        base: where the run's base is now, if it has moved.

    Raises:
        UserError: there is something at `to`, no such checkpoint, or the method's result has no such form.
    """
    require_single_process("export")
    with only_command(to):
        if to.exists() or to.is_symlink():
            raise UserError(f"{to} exists already; name a new folder, or delete that one.")
        _export(path, to, adapter, base)


def _export(path: Path, to: Path, adapter: bool, base: str) -> None:
    address = resolve(path)
    run, checkpoint = address.run(), address.saved()
    based = run.with_base_at(base)
    beyond_language: list[str] = []
    with replacing(to) as temporary:
        temporary.mkdir()
        if adapter:
            beyond_language = save_adapter(based, checkpoint, temporary)
        else:
            _save_model(based, checkpoint, temporary)
        write_card(run, checkpoint, temporary, to.resolve().name, adapter)
    kind = "PEFT adapter" if adapter else "model"
    say(f"{to}: {kind} of {run.name}, {checkpoint.name}; README.md says how to load it.")
    if beyond_language:
        parts = " and ".join(beyond_language)
        say(
            f"It also changes {parts}. vLLM applies what adapters add to the language part, passes over the rest "
            "without a word unless it is started with --enable-tower-connector-lora, and refuses modules that trained "
            "in full: docs/interoperability.md."
        )


def _save_model(run: Run, checkpoint: Checkpoint, to: Path) -> None:
    """Weights (fp32, adapters merged), configuration, generation settings, tokenizer and processor."""
    if run.model.quantisation is not Quantisation.none:
        raise UserError(
            f"{run.folder}: its base is compressed (model.quantisation={run.model.quantisation}), and "
            "merging into the weights as they were before would give another model. Export with --adapter, and load "
            "it on the base compressed alike."
        )
    loaded = run.load_base()
    model = loaded.model.float()  # what was trained is fp32, and bf16 values are exact in it
    if checkpoint.path:
        _put(model, run, checkpoint)
    save_as_published(model, to)
    copy_settings(loaded, run.model, to)


@torch.no_grad()
def _put(model: Any, run: Run, checkpoint: Checkpoint) -> None:
    """Put a checkpoint into a model on its base weights, and leave nothing of the method but plain weights."""
    run.attach_method(model)
    if expert_parts(model):
        raise UserError(
            f"{run.folder}: method={run.config.method.name} chooses among experts by the input, so the run amounts to "
            "no plain weights that transformers or peft could load. Score it here, or export a run of another method."
        )
    WeightSwap(model).to(checkpoint.delta())
    for parent, name, layer in list(_adapted(model)):
        layer.merge()
        setattr(parent, name, layer.get_base_layer())


def _adapted(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Every layer with adapters: the module that holds it, its name there, itself."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            parent, _, last = name.rpartition(".")
            yield model.get_submodule(parent), last, module
