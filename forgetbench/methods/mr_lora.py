"""A variant of MR-LoRA (Zhao et al. 2025, arXiv:2506.05453): an expert per stage, and a router over the experts."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from forgetbench.core.errors import UserError
from forgetbench.methods.base import TrainingContext
from forgetbench.methods.lora import LoRA
from forgetbench.models.parts import part_of

if TYPE_CHECKING:
    from torch import Tensor

    from forgetbench.methods.task_router import TaskRouter


@dataclass
class MRLoRA(LoRA):
    """Every stage trains a separate LoRA expert on the base; at evaluation the router picks an expert for each item.

    While a stage trains, the experts of other stages are off and do not change. The router reads picture and question
    once per item, with all experts off, and picks among the stages begun so far. Before the first stage, the model is
    the base.

    The authors' router is a LoRA-tuned model that names the expert, tuned on 20 items per task. Ours is reconstructed:
    a linear classifier in closed form (discriminant analysis) on the base's hidden states, averaged over the prompt's
    tokens. It is fitted at the start of a stage, on `router_samples` random training items of every task so far. So
    that many items of each task are kept, as in the authors' method. In the authors' LLaVA experts, each expert also
    has a projector. Here the projector stays that of the base, because a fully trained projector would be shared by
    all experts and change the router's inputs.
    """

    name: str = "mr_lora"
    router_samples: int = 20
    """Training items per task for fitting the router."""
    layer: int | None = None
    """Layer whose hidden states the router reads: 0 is the first language layer's input, k the k-th layer's output;
    null is the last.
    """

    def problems(self) -> Mapping[str, str]:
        """LoRA's problems, and settings that cannot differ per item."""
        problems = dict(super().problems())
        if self.router_samples < 1:
            problems["router_samples"] = f"{self.router_samples} items fit no router; give 1 or more."
        if self.parts != ["language"]:
            problems["parts"] = (
                f"{self.parts}: pictures are encoded before an item's expert is known, and each expert is of the whole "
                "language part; give [language]."
            )
        if self.weight_decomposed:
            problems["weight_decomposed"] = "each expert would rescale the whole matrix; set it to false."
        return problems

    def against_sharding(self) -> str:
        """Not tested."""
        return "its experts and router were not tried on slices of tensors"

    def attach(self, model: Any, stages: int) -> None:
        """Insert an expert per stage, all off, and a router without tasks.

        Raises:
            UserError: there is no such layer.
        """
        from forgetbench.methods.experts import ItemRoutedLinear, insert_experts
        from forgetbench.methods.task_router import TaskRouter
        from forgetbench.models.hidden import resolve_layer

        layer = resolve_layer(model, self.layer, "method.layer")
        insert_experts(model, self, stages, ItemRoutedLinear)
        router = TaskRouter(stages, model.config.get_text_config().hidden_size, layer)
        for module in model.modules():
            if isinstance(module, ItemRoutedLinear):
                module.selection = router.selection
        _language_model(model).task_router = router

    def frozen(self, model: Any, trainable: Collection[str], seed: int) -> Collection[str]:
        """The router's parameters, which are fitted and not trained.

        Raises:
            UserError: a part would train in full.
        """
        shared = sorted({part_of(name) for name in trainable} - set(self.parts))
        if shared:
            raise UserError(
                f"recipe.parts: {', '.join(shared)} would train in full, shared by the experts of all stages, and move "
                f"what the router looks at; method={self.name} needs recipe.parts=[language]."
            )
        return self.changed(model)

    def changed(self, model: Any) -> Collection[str]:
        """The router's parameters, so that a checkpoint's router knows the tasks up to its stage."""
        return [name for name, _ in model.named_parameters() if ".task_router." in name]

    def begin_stage(self, context: TrainingContext) -> None:
        """Fit the router on all tasks so far and switch to the stage's expert."""
        router = _router(context.model)
        router.fit([self._states(context, router, task) for task in range(context.stage)])
        router.set_expert(context.stage - 1)

    def edit_gradients(self, context: TrainingContext) -> None:
        """Remove the gradients of other stages' experts, so that the optimiser skips them."""
        current = f".{context.stage - 1}"
        for name, weight in context.trainable.items():
            if ".lora_" in name and not name.endswith(current):
                weight.grad = None

    def _states(self, context: TrainingContext, router: TaskRouter, task: int) -> Tensor:
        """The base's mean hidden states (n, D) of the prompts of a task's items.

        Items are processed one at a time, so that no item depends on the others.
        """
        import torch

        model, passes, items = context.model, context.passes, context.targets[task]
        draw = random.Random(f"{passes.seed} {task}")
        states, training = [], model.training
        model.eval()
        with torch.no_grad():
            for item in draw.sample(list(items), min(self.router_samples, len(items))):
                batch = passes.batch([item])
                prompt_BT = batch.inputs["attention_mask"][:, : batch.prompt_tokens[0]]
                states.append(router.states(model, partial(passes.forward, batch), prompt_BT))
        model.train(training)
        return torch.cat(states)


def _router(model: Any) -> TaskRouter:
    from forgetbench.methods.task_router import task_router

    router = task_router(model)
    assert router is not None
    return router


def _language_model(model: Any) -> Any:
    """The language model, whose name depends on the model family."""
    return next(
        module for name, module in model.named_modules() if name in ("model.language_model", "model.text_model")
    )
