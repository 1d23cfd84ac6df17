"""A model in the middle of somebody else's training: its weights read, and the model asked, without a trace."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from forgetbench.core.errors import UserError
from forgetbench.models.load import LoadedModel
from forgetbench.models.precision import is_packed
from forgetbench.models.tensors import fingerprint, whole

_FORWARD = "_original_forward"
"""Where accelerate keeps a model's own forward when it puts autocast around it."""
_AROUND = ("_checkpoint_wrapped_module", "_orig_mod")
"""What activation checkpointing and compilation call a module that they are around; part of its parameters' names."""


@dataclass(frozen=True)
class Base:
    """What is known of the untouched base of a training, without its weights."""

    digest: str
    inputs_digest: str
    reuses_prefix: bool
    keeps_logits: bool
    config: Any
    generation_config: Any
    fingerprints: Mapping[str, bytes]
    """Of every parameter in fp32, by live name."""


def base_of(loaded: LoadedModel) -> Base:
    """What a base that was loaded is known by."""
    return Base(
        digest=loaded.digest,
        inputs_digest=loaded.inputs_digest,
        reuses_prefix=loaded.reuses_prefix,
        keeps_logits=loaded.keeps_logits,
        config=loaded.model.config,
        generation_config=loaded.model.generation_config,
        fingerprints={name: fingerprint(value.float()) for name, value in loaded.model.named_parameters()},
    )


def inner_model(model: Any) -> Any:
    """The transformers model inside peft's, or the model itself.

    Raises:
        UserError: its adapter changes prompts and not weights, or its weights are packed.
    """
    model = _inside(model)
    if hasattr(model, "peft_config"):
        if any(adapter.is_prompt_learning for adapter in model.peft_config.values()):
            raise UserError(
                "ForgettingCallback: the adapter changes the prompt and not the weights, so no checkpoint can hold "
                "what it is. Train LoRA or another adapter that can be merged."
            )
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
    if any(is_packed(parameter) for parameter in model.parameters()):
        raise UserError(
            "ForgettingCallback: the model's weights are packed (4 or 8 bits), so they cannot be held against those of "
            "the base. Load it in bf16."
        )
    return model


def is_sliced(model: Any) -> bool:
    """Whether each process holds slices of the model's tensors (FSDP2)."""
    return any(isinstance(module, FSDPModule) for module in model.modules()) or any(
        isinstance(parameter, DTensor) for parameter in model.parameters()
    )


def plain_name(name: str) -> str:
    """A parameter's or module's name without what is around modules."""
    for wrapper in _AROUND:
        name = name.replace(f"{wrapper}.", "")
    return name


def trained_names(model: Any, names: Collection[str]) -> frozenset[str]:
    """Which parameters of the base may change in training: those with gradients, and those below an adapter.

    Args:
        model: as it is trained.
        names: of the base's parameters.
    """
    free = {name for name, parameter in _base_parameters(inner_model(model), "") if parameter.requires_grad}
    return frozenset((free | {name for name, _ in _adapted(inner_model(model))}) & set(names))


def check_base(model: Any, base: Base, path: str) -> None:
    """Refuse a model that is not the one its base is read from, adapters aside; of slices all processes must ask.

    Raises:
        UserError: names a tensor.
    """
    _slice_again(model)
    live = {
        name: parameter for name, parameter in _base_parameters(inner_model(model), "") if name in base.fingerprints
    }
    wrong = sorted(base.fingerprints.keys() - live.keys()) or [
        name
        for name, parameter in live.items()
        if fingerprint(whole(parameter.detach()).float()) != base.fingerprints[name]
    ]
    if wrong:
        raise UserError(
            f"ForgettingCallback: the model that trains is not the one in {path}: {wrong[0]} differs, and what was "
            "trained is told by what differs from the base. Save the untouched model and its processor into one folder "
            "(save_pretrained), load it from there, or name it: ForgettingCallback(model='folder')."
        )


def changed_weights(model: Any, base: Base, names: Collection[str], keeps: bool = True) -> dict[str, Tensor]:
    """fp32 values of the tensors that differ from the base in a bit, adapters merged; by live name of the base.

    Args:
        model: as it is trained; it stays as it is. If it is sliced, all processes must ask.
        base: what it was.
        names: that may differ (`trained_names`).
        keeps: whether the values are wanted; otherwise this process only helps to gather them, and gets none.

    Raises:
        UserError: an adapter's layer shares its tensor with another layer.
    """
    _slice_again(model)
    inner = inner_model(model)
    adapted = {name for name, _ in _adapted(inner)}
    if unknown := sorted(adapted - base.fingerprints.keys()):
        raise UserError(
            f"ForgettingCallback: the adapter trains {unknown[0]}, which the base has no tensor of its own for (head "
            "and embeddings are one). Leave lm_head and embed_tokens out of the adapter's modules."
        )
    untouched = ((name, value) for name, value in _base_parameters(inner, "") if name in names and name not in adapted)
    changed = {}
    for name, value in chain(
        untouched, _adapted(inner, merge=True)
    ):  # one after the other: a GPU may not hold them all
        gathered = whole(value.detach())
        if keeps and fingerprint(gathered := gathered.float().cpu()) != base.fingerprints[name]:
            changed[name] = gathered
    return changed


def _slice_again(model: Any) -> None:
    """Let go of layers that a pass without a backward one left whole, perhaps in bf16."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _inside(module: Any) -> Any:
    """A module without what activation checkpointing and compilation put around it."""
    while name := next((wrapper for wrapper in _AROUND if wrapper in module._modules), None):
        module = module._modules[name]
    return module


def _base_parameters(module: Any, prefix: str) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of the model without its adapters, by the names that they have in the base."""
    module = _unwrapped(module)
    for name, parameter in module.named_parameters(recurse=False):
        yield f"{prefix}{name}", parameter
    for name, child in module.named_children():
        yield from _base_parameters(child, f"{prefix}{name}.")


def _unwrapped(module: Any) -> Any:
    """What an adapter is around."""
    module = _inside(module)
    if _is_adapter(module):
        return module.get_base_layer()
    return module.original_module if _is_replaced(module) else module


def _adapted(model: Any, merge: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Parameters that adapters stand for, by their names in the base; their values with adapters if merged."""
    for name, module in model.named_modules():
        if _is_adapter(module):
            values = _merged(module) if merge else dict(module.get_base_layer().named_parameters())
        elif _is_replaced(module):
            values = dict(module.modules_to_save[module.active_adapters[0]].named_parameters())
        else:
            continue
        yield from ((f"{plain_name(name)}.{suffix}", value) for suffix, value in values.items())


def _is_adapter(module: nn.Module) -> bool:
    return hasattr(module, "get_base_layer") and hasattr(module, "merged_adapters")


def _is_replaced(module: nn.Module) -> bool:
    return hasattr(module, "modules_to_save") and hasattr(module, "original_module")


@torch.no_grad()
def _merged(layer: Any) -> dict[str, Tensor]:
    """A layer's weights with its adapters merged in fp32; the layer stays as it is."""
    owners = [(module, dict(module._parameters)) for module in layer.modules()]
    merged_before = list(layer.merged_adapters)
    try:
        for module, parameters in owners:
            for name, parameter in parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(
                        whole(parameter.detach()).float().clone(), requires_grad=False
                    )
        layer.merge()
        return {name: parameter.data for name, parameter in layer.get_base_layer().named_parameters()}
    finally:
        for module, parameters in owners:
            module._parameters.update(parameters)
        layer.merged_adapters[:] = merged_before


@contextmanager
def asked(model: Any, base: Base, with_adapters: bool = True) -> Iterator[Any]:
    """The transformers model inside one that trains, to be asked; all is as it was afterwards.

    What is kept: modes, flags and attributes of every module, which parameters have gradients, buffers, configuration,
    and the state of every generator of random numbers.

    Args:
        model: as it is trained.
        base: whose configuration is asked with, as trainers change theirs.
        with_adapters: otherwise the base below them is asked.
    """
    inner = inner_model(model)
    with same_random_numbers(), _same_modules(model), ExitStack() as open_:
        if not with_adapters and hasattr(model, "disable_adapter"):
            open_.enter_context(model.disable_adapter())
        for module in inner.modules():
            if _FORWARD in vars(module):
                vars(module)["forward"] = vars(module)[_FORWARD]
        inner.config, inner.generation_config = base.config, base.generation_config
        yield inner


@contextmanager
def _same_modules(model: nn.Module) -> Iterator[None]:
    modules = list(dict.fromkeys(model.modules()))
    kept = [(module, dict(vars(module)), _copies(module)) for module in modules]
    free = [(tensor, tensor.requires_grad) for tensor in model.parameters()]
    buffers = [(tensor, tensor.clone()) for tensor in model.buffers()]
    try:
        yield
    finally:
        for module, attributes, copies in kept:
            vars(module).clear()
            vars(module).update(attributes)
            for name, entries in copies.items():
                attributes[name].clear()
                attributes[name].update(entries)
        for parameter, has_gradient in free:
            parameter.requires_grad_(has_gradient)
        for buffer, value in buffers:
            if not torch.equal(buffer, value):
                buffer.copy_(value)


def _copies(module: nn.Module) -> dict[str, Any]:
    """A module's own registers: buffers, hooks, children."""
    return {name: register.copy() for name, register in vars(module).items() if isinstance(register, dict)}


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Leave every generator of random numbers as it was."""
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    others = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_state)
        if others:
            torch.cuda.set_rng_state_all(others)
