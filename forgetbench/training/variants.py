"""Apply an operation to trained checkpoints: each result is stored beside its checkpoint, as a variant of it.

Adapters are merged first, so that every operation gets plain weights. In a variant the adapters have their initial
values and add nothing; the layers below them hold the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetbench.core.errors import UserError
from forgetbench.methods.base import Method, Passes
from forgetbench.methods.experts import expert_parts
from forgetbench.methods.operation import Operation, Trained
from forgetbench.models.checkpoint import Checkpoint, chosen_steps, list_checkpoints, save_checkpoint

_MAGNITUDE = ".lora_magnitude_vector."


@dataclass(frozen=True)
class MergedWeights:
    """A checkpoint as plain weights, adapters merged."""

    base: Mapping[str, Tensor]
    """w0 of every tensor that training changed, by live name."""
    tuned: Mapping[str, Tensor]
    """w of the same tensors."""


class OperationContext:
    """One loaded model, which turns checkpoints into plain weights and back."""

    passes: Passes
    """Of the same model, on the run's training data."""

    def __init__(self, model: Any, method: Method, stages: int, seed: int) -> None:
        """Attach the method's adapters to a model on its base weights.

        Args:
            model: on its base weights.
            method: with which the runs were trained.
            stages: number of stages of the runs.
            seed: of the runs; adapters are drawn from it.

        Raises:
            UserError: the weights that the method added cannot be merged.
        """
        torch.manual_seed(seed)
        known = set(map(id, model.parameters()))
        method.attach(model, stages)
        if expert_parts(model):
            raise UserError(
                f"method={method.name}: which expert counts depends on the input, so the run amounts to no plain "
                "weights, and operations after training need these; use a run of another method."
            )
        self.model = model
        self._live: dict[str, nn.Parameter] = dict(model.named_parameters())
        self._added = {name for name, parameter in self._live.items() if id(parameter) not in known}
        for _, layer in self._adapter_layers():
            layer.enable_adapters(False)  # DoRA would scale every weight that an operation tries
        model.requires_grad_(True)  # adding adapters has frozen the model
        self._untrained = {name: self._live[name].detach().clone() for name in self._added}

    @torch.no_grad()
    def merged_weights(self, delta: Mapping[str, Tensor]) -> MergedWeights:
        """A checkpoint's changed tensors, adapters merged; the model is on its base weights before and after.

        Raises:
            UserError: the checkpoint belongs to another model.
        """
        if wrong := [name for name, value in delta.items() if self._shape(name) != value.shape]:
            raise UserError(f"The checkpoint's tensor '{wrong[0]}' does not fit this model: was it made from another?")
        device = next(iter(self._live.values())).device
        plain = {name: value.to(device) for name, value in delta.items() if name not in self._added}
        base = {name: self._live[name].detach().clone() for name in plain}
        for name, value in delta.items():
            self._live[name].copy_(value)
        for name, layer in self._adapter_layers():
            weight = layer.get_base_layer().weight
            base.setdefault(name, weight.detach().clone())
            layer.merge()
            plain[name] = weight.detach().clone()
            layer.merged_adapters.clear()
        self.restore(base)
        return MergedWeights(base, plain)

    @torch.no_grad()
    def delta(self, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Plain weights as tensors of a checkpoint; DoRA's magnitudes are computed from the weights that they scale."""
        tensors = dict(changed)
        for name in self._added:
            layer, magnitude, _ = name.partition(_MAGNITUDE)
            weight = f"{layer}.base_layer.weight"
            if magnitude and weight in changed:
                tensors[name] = torch.linalg.norm(changed[weight], dim=1)
        return tensors

    @torch.no_grad()
    def restore(self, base: Mapping[str, Tensor]) -> None:
        """Put the model back on its base weights, adapters as before training."""
        for name, value in (*base.items(), *self._untrained.items()):
            self._live[name].copy_(value)

    def _shape(self, name: str) -> torch.Size | None:
        return self._live[name].shape if name in self._live else None

    def _adapter_layers(self) -> Iterator[tuple[str, Any]]:
        """(Name of its base weight, layer) of every layer with an adapter."""
        if self._added:
            from peft.tuners.tuners_utils import BaseTunerLayer

            for name, module in self.model.named_modules():
                if isinstance(module, BaseTunerLayer):
                    yield f"{name}.base_layer.weight", module


def trained_checkpoints(folder: Path, steps: Sequence[int]) -> list[Checkpoint]:
    """A run's trained checkpoints at the given steps; the last checkpoint if no step is given.

    Raises:
        UserError: there is no such checkpoint, or no step is given and training is not finished.
    """
    trained = [checkpoint for checkpoint in list_checkpoints(folder) if checkpoint.path and not checkpoint.variant]
    if not trained:
        raise UserError(f"{folder} has no checkpoint; train it first (`forgetbench finetune name={folder.name} ...`).")
    if not steps and (folder / "resume").exists():
        raise UserError(
            f"{folder} is not trained to its end: run its finetune command again, or name steps (method.checkpoints)."
        )
    return chosen_steps(trained, steps, "method.checkpoints", folder) if steps else trained[-1:]


def make_variants(
    folder: Path,
    checkpoints: Iterable[Checkpoint],
    operation: Operation,
    operation_context: OperationContext,
    others: Sequence[MergedWeights] = (),
    merged: Sequence[str] = (),
) -> None:
    """Write the variants of some checkpoints of a run.

    Args:
        folder: the run's folder.
        checkpoints: of the run.
        operation: to apply to each.
        operation_context: with the run's model.
        others: further runs of the same base, for operations that merge several.
        merged: digests of the checkpoints in `others`.
    """
    for checkpoint in checkpoints:
        origin = _provenance(operation, checkpoint, merged)
        merged_weights = operation_context.merged_weights(checkpoint.delta())
        trained = Trained(
            model=operation_context.model,
            base=merged_weights.base,
            tuned=merged_weights.tuned,
            others=[weights.tuned for weights in others],
            others_base={name: value for weights in others for name, value in weights.base.items()},
            passes=operation_context.passes,
        )
        for setting, changed in operation.variants(trained):
            meta = {**checkpoint.meta, "variant": _variant(operation, setting), **origin}
            save_checkpoint(folder, checkpoint.step, operation_context.delta(changed), meta)
        operation_context.restore(merged_weights.base)


def has_variants(folder: Path, checkpoint: Checkpoint, operation: Operation, merged: Sequence[str] = ()) -> bool:
    """Whether all variants of a checkpoint by this operation are stored already."""
    origin = _provenance(operation, checkpoint, merged)
    done = {other.variant for other in list_checkpoints(folder) if origin.items() <= other.meta.items()}
    return {_variant(operation, setting) for setting in operation.settings()} <= done


def _variant(operation: Operation, setting: str) -> str:
    return f"{operation.name}:{setting}" if setting else operation.name


def _provenance(operation: Operation, checkpoint: Checkpoint, merged: Sequence[str]) -> dict[str, Any]:
    """Metadata that identifies a variant: operation, source and merged checkpoints."""
    settings = {**asdict(operation), "checkpoints": [checkpoint.step]}
    return {"operation": settings, "source_digest": checkpoint.digest, "merged_digests": list(merged)}
