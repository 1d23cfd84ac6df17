"""The training loop, for every recipe, method and number of stages.

Every step is a pure function of the seed, the step's number and the weights. A killed run continues from its newest
resume point, at any step, and ends with the same bytes. Each stage has its recipe and optimiser, and starts from the
weights of the stage before.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor, nn

from forgetbench.config import RecipeConfig, Sharding
from forgetbench.core.errors import UserError
from forgetbench.core.processes import start_processes
from forgetbench.core.records import Sample
from forgetbench.data.collate import Encoder
from forgetbench.methods.base import Batch, Method, TrainingContext
from forgetbench.models.checkpoint import ResumePoint
from forgetbench.models.load import LoadedModel
from forgetbench.models.parts import part_of, word_of
from forgetbench.models.tensors import whole
from forgetbench.training.distribution import distribute
from forgetbench.training.optimiser import adamw
from forgetbench.training.passes import TrainingPasses
from forgetbench.training.plan import Stage
from forgetbench.training.schedule import lr_factor
from forgetbench.training.weights import TrackedWeights, gather_whole, moments, put_moments


@dataclass(frozen=True)
class StepReport:
    """Measurements of one optimiser step; a row of train.csv."""

    step: int
    stage: int
    loss: float
    lr: Mapping[str, float]
    """Learning rate by part, as the recipe names it."""
    grad_norm: float
    samples: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Resume:
    """State that an earlier process of a run left."""

    point: ResumePoint
    before: Mapping[str, Tensor] = field(default_factory=dict)
    """Starting weights of the stage that was interrupted, if they differ from the base."""


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
        trainable_by_stage: Sequence[Collection[str]] = (),
        carry_optimiser: bool = False,
        sharding: Sharding = Sharding.none,
    ) -> None:
        """Prepare a model.

        Args:
            loaded: the model on its starting weights, trainable parameters chosen already.
            encoder: of the same model.
            method: already attached to the model.
            recipe: how to train.
            seed: of dropout and of the random numbers of the method.
            read: training items of the datasets that the method reads.
            trainable_by_stage: names of the parameters that each stage trains; by default all that are free now.
            carry_optimiser: keep the moments from stage to stage.
            sharding: how several processes share the model.

        Raises:
            UserError: the model or the method does not support the sharding.
        """
        if sharding is not Sharding.none and (reason := method.against_sharding()):
            raise UserError(f"method={method.name}: {reason}; use sharding=none.")
        self.accelerator = start_processes()
        self._recipe, self._method, self._seed = recipe, method, seed
        self._trainable_by_stage, self._carry_optimiser = trainable_by_stage, carry_optimiser
        names = [name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad]
        added = {name for name in names if word_of(name, method.adapted_parts())}
        self._weights = TrackedWeights(
            loaded.model, [*names, *sorted(set(method.changed(loaded.model)) - set(names))], added
        )
        precision = method.forward_precision() or recipe.precision
        self._distributed = distribute(self.accelerator, loaded.model, sharding, precision)
        self._weights.rebind(loaded.model)
        live: dict[str, nn.Parameter] = dict(loaded.model.named_parameters())
        self.trainable = {name: live[name] for name in names}
        """Parameters that any stage trains, by name."""
        self.passes = TrainingPasses(self.accelerator, loaded, encoder, recipe, seed, precision)
        """Forward passes as the loop makes them, on the run's batches."""
        self.context = TrainingContext(loaded.model, self.trainable, self.passes, read or {})
        """The method's view: the model as it is now, and the position of the run."""
        self._optimised: Mapping[str, nn.Parameter] = {}
        self.optimiser: Any = None
        """Optimiser of the current stage, with its moments; None before the first stage."""

    def trained_parts(self, stages: Sequence[Stage]) -> list[str]:
        """The parts that the stages train, as their recipes name them, sorted."""
        trainable_by_stage = self._trainable_by_stage or [self.trainable.keys()] * len(stages)
        recipes = [stage.recipe or self._recipe for stage in stages]
        return sorted(
            {
                word_of(name, recipe.parts) or part_of(name)
                for recipe, names in zip(recipes, trainable_by_stage, strict=True)
                for name in names
            }
        )

    def run(self, stages: Sequence[Stage], resume: Resume | None = None) -> Iterator[StepReport]:
        """Train to the end, yielding after every optimiser step.

        Args:
            stages: what to train on, in order.
            resume: state of an earlier process, from which training continues.

        Raises:
            UserError: a stage's micro-batch cannot be shared by the processes, or the loss is not finite.
        """
        self._begin(stages)
        after, before = resume.point.step if resume else 0, 0
        is_mid_stage = after not in {0, *accumulate(stage.steps for stage in stages)}
        restored: Mapping[str, Tensor] = {}
        if resume:
            delta = self._tensors_of(resume.point, "weights")
            restored = self._weights.copies(resume.before.keys() - delta.keys()) | delta
            self._weights.put(resume.before if is_mid_stage else delta)
            if not is_mid_stage:
                self._method.load_state(self.context, self._tensors_of(resume.point, "method"))
        for number, stage in enumerate(stages, start=1):
            if after < before + stage.steps:
                self.context.step, self.context.stage = before, number
                self._begin_stage(stage)
                if resume and before <= after and (is_mid_stage or self._carry_optimiser):
                    self._restore(resume.point, restored, is_mid_stage)
                steps = range(max(1, after - before + 1), stage.steps + 1)
                self.passes.set_upcoming(stage, steps)
                for step in steps:
                    self.context.step = before + step - 1
                    yield self._step(stage, number, before + step, step)
            before += stage.steps

    def delta(self) -> dict[str, Tensor]:
        """Tensors that differ from the base in any bit, and all tensors that the method added.

        All processes must call it; only the main process gets tensors.
        """
        return self._weights.delta(self.accelerator.is_main_process)

    def resume_point(self, step: int) -> ResumePoint:
        """Weights, optimiser and method state after `step`; all processes must call it, the main one gets them."""
        weights = {f"weights/{name}": value for name, value in self.delta().items()}
        optimiser = ((f"optimiser/{key}", tensor) for key, tensor in moments(self.optimiser, self._optimised))
        method = ((f"method/{key}", tensor) for key, tensor in self._method.state().items())
        return ResumePoint(step, weights | gather_whole(chain(optimiser, method), self.accelerator.is_main_process))

    def _begin(self, stages: Sequence[Stage]) -> None:
        """Let the method look at the starting weights."""
        self.passes.plan(stages)
        self.context.targets = [stage.items for stage in stages]
        self._seed_generator(0)
        self.context.model.train()
        self._method.begin(self.context)

    def _begin_stage(self, stage: Stage) -> None:
        """Free the stage's parameters, let the method look at the weights, then create the optimiser."""
        recipe = stage.recipe or self._recipe
        carried = self.optimiser.state if self.optimiser and self._carry_optimiser else {}
        self.optimiser = None  # frees the moments before the method looks at the weights
        changed = self._set_trainable(
            self._trainable_by_stage[self.context.stage - 1] if self._trainable_by_stage else self.trainable.keys()
        )
        if changed or self.context.stage > 1:
            self.passes.begin_stage()
        self._seed_generator(self.context.step)
        self.context.model.train()
        self._method.begin_stage(self.context)
        self._optimised = self._method.optimised(self.context)
        # Not prepared by accelerate, which would keep every optimiser until the process ends.
        self.optimiser = adamw(self._optimised, self.context.trainable, recipe)
        current = set(self._optimised.values())
        self.optimiser.state.update({parameter: state for parameter, state in carried.items() if parameter in current})

    def _set_trainable(self, names: Collection[str]) -> bool:
        """Free exactly these trainable parameters; True if that changes anything."""
        self.context.trainable = {name: parameter for name, parameter in self.trainable.items() if name in names}
        if all(parameter.requires_grad is (name in names) for name, parameter in self.trainable.items()):
            return False
        for name, parameter in self.trainable.items():
            parameter.requires_grad_(name in names)
            parameter.grad = None
        self._distributed.trainable_changed()
        return True

    def _restore(self, point: ResumePoint, weights: Mapping[str, Tensor], is_mid_stage: bool) -> None:
        """Restore the moments; in the middle of a stage also weights and method state."""
        put_moments(self.optimiser, self._optimised, self._tensors_of(point, "optimiser"))
        if is_mid_stage:
            self._weights.put(weights)
            self._method.load_state(self.context, self._tensors_of(point, "method"))

    @staticmethod
    def _tensors_of(point: ResumePoint, owner: str) -> dict[str, Tensor]:
        """The tensors of one owner: `weights`, `optimiser` or `method`."""
        start = f"{owner}/"
        return {key.removeprefix(start): tensor for key, tensor in point.tensors.items() if key.startswith(start)}

    def _seed_generator(self, step: int, process: int = 0) -> None:
        """Seed the generator for one step, so that resuming needs no generator state.

        With `process`, dropout differs between processes; the random numbers of a method are the same in all.
        """
        torch.manual_seed((self._seed * 1_000_003 + step + 7919 * process) % 2**31)

    def _step(self, stage: Stage, number: int, step: int, step_in_stage: int) -> StepReport:
        started = time.perf_counter()
        self._seed_generator(step, self.accelerator.process_index)
        self.context.model.train()
        recipe = stage.recipe or self._recipe
        factor = lr_factor(step_in_stage, stage.steps, recipe.warmup, recipe.schedule)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak_lr"] * factor
        batches = self.passes.step(stage, step_in_stage)
        loss = sum((self._forward_backward(batch) for batch in batches), torch.zeros(()))
        if not torch.isfinite(loss):
            raise UserError(f"The loss is {float(loss)} at step {step}: lower recipe.lr, or check the data.")
        self._distributed.finish_backward()
        self._method.edit_gradients(self.context)
        norm = self.accelerator.clip_grad_norm_(self._optimised.values(), recipe.max_grad_norm)
        self.optimiser.step()
        self._method.edit_weights(self.context)
        self.optimiser.zero_grad(set_to_none=True)
        return StepReport(
            step=step,
            stage=number,
            loss=float(loss),
            lr={group["part"]: group["lr"] for group in self.optimiser.param_groups},
            grad_norm=float(whole(norm)),
            samples=recipe.batch_size,
            tokens=sum(int(batch.inputs["attention_mask"].sum()) for batch in batches),
            seconds=time.perf_counter() - started,
        )

    def _forward_backward(self, batch: Batch) -> Tensor:
        outputs = self.passes.forward(batch, self._distributed.model)
        self._distributed.after_forward()
        return self.passes.backward(batch, outputs, self._method.penalty(self.context, batch, outputs))
