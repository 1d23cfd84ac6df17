"""A checkpoint as a folder that transformers loads: whole weights, tokenizer, processor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forgetbench.config import ModelConfig, Quantisation
from forgetbench.core.errors import UserError
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.exchange.published_names import save_as_published
from forgetbench.exchange.settings_files import copy_settings
from forgetbench.methods.experts import expert_parts
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.load import LoadedModel
from forgetbench.runs.run import Run


def save_model(run: Run, checkpoint: Checkpoint, to: Path) -> None:
    """Weights (fp32, adapters merged), configuration, generation settings, tokenizer and processor.

    Args:
        run: the checkpoint's.
        checkpoint: of the run; step 0 is its base.
        to: a folder that is there.

    Raises:
        UserError: the run amounts to no plain weights.
    """
    if run.model.quantisation is not Quantisation.none:
        raise UserError(
            f"{run.folder}: its base is compressed (model.quantisation={run.model.quantisation}), and "
            "merging into the weights as they were before would give another model. Export with --adapter, and load "
            "it on the base compressed alike."
        )
    loaded = run.load_base()
    if checkpoint.path:
        loaded.model.float()  # what was trained is fp32, and bf16 values are exact in it
        _put(loaded.model, run, checkpoint)
    save_base(loaded, run.model, to)


def save_base(loaded: LoadedModel, model: ModelConfig, to: Path) -> None:
    """The same of a model as it is.

    Args:
        loaded: the model.
        model: what it was loaded by.
        to: a folder that is there.
    """
    save_as_published(loaded.model.float(), to)
    copy_settings(loaded, model, to)


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
