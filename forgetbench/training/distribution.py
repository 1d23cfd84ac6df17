"""A model that trains in one process or several: all of it in each (DDP), or a slice of every tensor (FSDP2).

In both cases the gradient of a step is the sum over processes, and a parameter that no process used has no gradient,
as in a single process.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from forgetbench.config import Sharding
from forgetbench.core.errors import UserError
from forgetbench.core.records import Precision
from forgetbench.models.parts import part_of

if TYPE_CHECKING:
    from accelerate import Accelerator

_DECODER_LAYER = re.compile(r"model\.(?:language_model|text_model)\.layers\.\d+$")


class Replicated:
    """Every process holds the whole model."""

    def __init__(self, accelerator: Accelerator, model: Any) -> None:
        """Move the model to its device and, if there are several processes, wrap it."""
        self._accelerator, self._unwrapped = accelerator, model
        self.model = accelerator.prepare(model)
        """The model that the loop calls."""

    def after_forward(self) -> None:
        """Called between a forward pass that trains and its backward pass."""

    def finish_backward(self) -> None:
        """Called when all gradients of a step are complete."""

    def trainable_changed(self) -> None:
        """Called after parameters were freed or frozen: wraps again, as the wrapper remembers what gets gradients."""
        if self._accelerator.num_processes > 1:
            del self.model
            self._accelerator.free_memory()
            self.model = self._accelerator.prepare(self._unwrapped)


class Sharded:
    """Every process holds some rows of every tensor, and gathers the whole tensors layer by layer.

    Each decoder layer is gathered separately. The rest is gathered once per pass: embeddings, head and, if they train,
    vision tower and projector. So every process takes part in the same exchanges, whether its items show pictures or
    not. A frozen vision tower and projector stay whole in every process.
    """

    def __init__(self, accelerator: Accelerator, model: Any, precision: Precision) -> None:
        """Slice a model in place; its parameters are new objects afterwards.

        Args:
            accelerator: the processes of the run.
            model: in main memory, whole in every process, trainable parameters chosen already.
            precision: of the forward pass.

        Raises:
            UserError: there is only one process, torch is too old, or a parameter cannot be sliced.
        """
        if accelerator.num_processes == 1:
            raise UserError(
                "sharding=fsdp2 needs several processes, and this is the only one: start it with torchrun "
                "--nproc_per_node N -m forgetbench, or use sharding=none."
            )
        self._accelerator, self.model = accelerator, model
        device = accelerator.device
        by_name: dict[str, nn.Parameter] = dict(model.named_parameters())
        pictures = {name: parameter for name, parameter in by_name.items() if part_of(name) != "language"}
        trains_pictures = any(parameter.requires_grad for parameter in pictures.values())
        replicated = set() if trains_pictures else set(pictures.values())
        for parameter in replicated:
            parameter.data = parameter.data.to(device)
        _check_shardable(by_name, replicated)
        mesh = init_device_mesh(device.type, (accelerator.num_processes,))
        # Under autocast alone a bf16 copy of every weight would be held for the backward pass.
        half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        policy = half if precision is Precision.bf16 else MixedPrecisionPolicy()
        layers = {name: module for name, module in model.named_modules() if _DECODER_LAYER.match(name)}
        for layer in layers.values():
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, reshard_after_forward=False, ignored_params=replicated)
        model.set_reduce_scatter_unused_params(True)
        if trains_pictures:  # so that text takes the same backward path as pictures
            model.get_input_embeddings().register_forward_hook(_require_grad)
        layer_prefixes = tuple(f"{name}." for name in layers)
        self._outside_layers = [
            name
            for name, parameter in by_name.items()
            if parameter.requires_grad and not name.startswith(layer_prefixes)
        ]
        """Trained parameters outside the decoder layers: a pass may leave them out."""
        self._unhooked, self._used = list(self._outside_layers), set[str]()
        self._sharded: dict[str, nn.Parameter] = dict(model.named_parameters())

    def after_forward(self) -> None:
        """Hook the parameters that get gradients; the gathered ones exist only after a first pass."""
        for name in self._unhooked:
            self.model.get_parameter(name).register_post_accumulate_grad_hook(partial(self._note_gradient, name))
        self._unhooked = []

    def finish_backward(self) -> None:
        """Remove the zero gradients of parameters that no process used."""
        if not self._outside_layers:
            return
        used_N = torch.tensor(
            [name in self._used for name in self._outside_layers], device=self._accelerator.device
        ).int()
        n_with_gradient_N = self._accelerator.reduce(used_N, "sum")
        for name, n_with_gradient in zip(self._outside_layers, n_with_gradient_N.tolist(), strict=True):
            if not n_with_gradient:
                self._sharded[name].grad = None
        self._used.clear()

    def trainable_changed(self) -> None:
        """Refuse: the slicing depends on which parameters train.

        Raises:
            UserError: always.
        """
        raise UserError("sharding=fsdp2: all stages must train the same parameters; use sharding=none.")

    def _note_gradient(self, name: str, _: Tensor) -> None:
        self._used.add(name)


def distribute(accelerator: Accelerator, model: Any, sharding: Sharding, precision: Precision) -> Replicated | Sharded:
    """Give every process its share of a model."""
    if sharding is Sharding.fsdp2:
        return Sharded(accelerator, model, precision)
    return Replicated(accelerator, model)


def _check_shardable(by_name: dict[str, nn.Parameter], replicated: set[nn.Parameter]) -> None:
    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise UserError(
            f"sharding=fsdp2 needs torch 2.13; this is {torch.__version__}. Update it, or use sharding=none."
        )
    for name, parameter in by_name.items():
        if parameter.ndim == 0 and parameter not in replicated:
            raise UserError(f"sharding=fsdp2: '{name}' is a single number, which cannot be sliced; use sharding=none.")


def _require_grad(_: nn.Module, __: Any, embedded: Tensor) -> Tensor:
    """The embeddings with a gradient; a copy, as some model families write pictures into them."""
    return embedded if embedded.requires_grad or not torch.is_grad_enabled() else embedded.requires_grad_().clone()
