"""The training loop: one for every recipe, method and number of stages.

Every step is a pure function of the seed, the step's number and the weights; a run that was killed goes on from its
newest checkpoint and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetbench.config import RecipeConfig
from forgetbench.data.collate import Encoder
from forgetbench.errors import UserError
from forgetbench.methods.base import Batch, Method, Trainee
from forgetbench.models.checkpoint import ResumePoint
from forgetbench.models.load import LoadedModel
from forgetbench.models.parts import part_of
from forgetbench.models.tensors import tensor_bytes
from forgetbench.processes import start_processes
from forgetbench.records import Sample
from forgetbench.training.passes import TrainingPasses
from forgetbench.training.plan import Stage
from forgetbench.training.schedule import lr_factor


@dataclass(frozen=True)
class StepReport:
    """What one optimiser step measured; a row of train.csv."""

    step: int
    stage: int
    loss: float
    lr: Mapping[str, float]
    """Per part."""
    grad_norm: float
    samples: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Resume:
    """What an earlier process of a run left."""

    delta: Mapping[str, Tensor]
    point: ResumePoint


class Trainer:
    """Holds the live state of a run: model, optimiser, method."""

    def __init__(
        self,
        loaded: LoadedModel,
        encoder: Encoder,
        method: Method,
        recipe: RecipeConfig,
        seed: int,
        read: Mapping[str, Sequence[Sample]] | None = None,
    ) -> None:
        """Prepare a model.

        Args:
            loaded: the model on its starting weights, trainable parameters chosen already.
            encoder: of the same model.
            method: already attached to the model.
            recipe: how to train.
            seed: of dropout and of what the method draws.
            read: training items of the sets that the method reads.
        """
        self.accelerator = start_processes(recipe.batch_size // recipe.gradient_accumulation)
        self._recipe, self._method, self._seed = recipe, method, seed
        self.trainable: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in loaded.model.named_parameters() if parameter.requires_grad
        }
        self._starting = {name: _fingerprint(parameter) for name, parameter in self.trainable.items()}
        # What the method added is not in the base, so a checkpoint needs it even where training has not moved it.
        self._added = {name for name in self.trainable if part_of(name) in method.adapted_parts()}
        self._model = self.accelerator.prepare(loaded.model)
        self._passes = TrainingPasses(self.accelerator, loaded, encoder, recipe, seed, method.forward_precision())
        self._trainee = Trainee(loaded.model, self.trainable, self._passes, read or {})
        self._optimised: Mapping[str, nn.Parameter] = {}
        self._optimiser: Any = None

    @property
    def parts(self) -> list[str]:
        """Trained parts, sorted."""
        return sorted({part_of(name) for name in self.trainable})

    def run(self, stages: Sequence[Stage], resume: Resume | None = None) -> Iterator[StepReport]:
        """Train to the end, yielding after every optimiser step.

        Args:
            stages: what to train on, in order.
            resume: what an earlier process left; training goes on from there.
        """
        self._begin(stages)
        if resume:
            self._restore(resume)
        after, before = resume.point.step if resume else 0, 0
        for number, stage in enumerate(stages, start=1):
            steps = range(max(1, after - before + 1), stage.steps + 1)
            self._passes.expect(stage, steps)
            for step in steps:
                self._trainee.step, self._trainee.stage = before + step - 1, number
                yield self._step(stage, number, before + step, step)
            before += stage.steps

    def delta(self) -> dict[str, Tensor]:
        """Tensors that differ from the base in any bit, and all that the method added to it."""
        return {
            name: parameter.detach()
            for name, parameter in self.trainable.items()
            if name in self._added or _fingerprint(parameter) != self._starting[name]
        }

    def resume_point(self, step: int) -> ResumePoint:
        """Optimiser and method state after `step`."""
        names = {parameter: name for name, parameter in self._optimised.items()}
        tensors = {
            f"optimiser/{names[parameter]}/{key}": value
            for parameter, state in self._optimiser.state.items()
            for key, value in state.items()
        }
        return ResumePoint(step, tensors | {f"method/{key}": value for key, value in self._method.state().items()})

    def _begin(self, stages: Sequence[Stage]) -> None:
        """Let the method look at the starting weights, then make the optimiser."""
        self._passes.plan(stages)
        self._seed_generator(0)
        self._model.train()
        self._method.begin(self._trainee)
        self._optimised = self._method.optimised(self._trainee)
        groups = _groups(self._optimised, self.trainable, self._recipe)
        self._optimiser = self.accelerator.prepare(torch.optim.AdamW(groups, foreach=False, fused=True))

    @torch.no_grad()
    def _restore(self, resume: Resume) -> None:
        """Take back weights, optimiser and method state of an earlier process."""
        for name, value in resume.delta.items():
            self.trainable[name].copy_(value)
        method_state = {}
        for key, value in resume.point.tensors.items():
            owner, _, rest = key.partition("/")
            if owner == "method":
                method_state[rest] = value.to(self.accelerator.device)
                continue
            name, _, moment = rest.rpartition("/")
            parameter = self._optimised[name]
            # A fused optimiser keeps its step count on the device, too.
            self._optimiser.state[parameter][moment] = value.to(parameter.device)
        self._method.load_state(self._trainee, method_state)

    def _seed_generator(self, step: int) -> None:
        """Each step and process has its own generator seed, so that resuming needs no generator state."""
        torch.manual_seed((self._seed * 1_000_003 + step + 7919 * self.accelerator.process_index) % 2**31)

    def _step(self, stage: Stage, number: int, step: int, step_in_stage: int) -> StepReport:
        started = time.perf_counter()
        self._seed_generator(step)
        self._model.train()
        factor = lr_factor(step_in_stage, stage.steps, self._recipe.warmup, self._recipe.schedule)
        for group in self._optimiser.param_groups:
            group["lr"] = group["peak_lr"] * factor
        batches = self._passes.step(stage, step_in_stage)
        loss = sum((self._forward_backward(batch) for batch in batches), torch.zeros(()))
        if not torch.isfinite(loss):
            raise UserError(f"The loss is {float(loss)} at step {step}: lower recipe.lr, or check the data.")
        self._method.edit_gradients(self._trainee)
        norm = self.accelerator.clip_grad_norm_(self._optimised.values(), self._recipe.max_grad_norm)
        self._optimiser.step()
        self._method.edit_weights(self._trainee)
        self._optimiser.zero_grad(set_to_none=True)
        return StepReport(
            step=step,
            stage=number,
            loss=float(loss),
            lr={group["part"]: group["lr"] for group in self._optimiser.param_groups},
            grad_norm=float(norm),
            samples=self._recipe.batch_size,
            tokens=sum(int(batch.inputs["attention_mask"].sum()) for batch in batches),
            seconds=time.perf_counter() - started,
        )

    def _forward_backward(self, batch: Batch) -> Tensor:
        outputs = self._passes.forward(batch, self._model)
        return self._passes.backward(batch, outputs, self._method.penalty(self._trainee, batch, outputs))


def _groups(
    optimised: Mapping[str, nn.Parameter], trainable: Mapping[str, nn.Parameter], recipe: RecipeConfig
) -> list[dict[str, Any]]:
    """One optimiser group per part; norms and biases (one axis) are not decayed."""
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in optimised.items():
        part, decays = part_of(name), trainable[name].ndim > 1
        peak = float(recipe.lr[part] if isinstance(recipe.lr, Mapping) else recipe.lr)
        decay = recipe.weight_decay if decays else 0.0
        fresh = {"params": [], "part": part, "lr": peak, "peak_lr": peak, "weight_decay": decay}
        groups.setdefault((part, decays), fresh)["params"].append(parameter)
    return list(groups.values())


def _fingerprint(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor_bytes(tensor)).digest()
