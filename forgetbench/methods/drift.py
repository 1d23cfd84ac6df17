"""Visual drift: the distance of hidden states at picture tokens from those of the base model.

Reconstructed from the descriptions of MDGD (arXiv:2502.11740); no formula was published.

    L_v = mean over items and picture-token positions of || h_w(x) - h_w0(x) ||_1

h_w0 of a picture depends on the tokens that its picture tokens attend to: the picture and the text before it. It is
computed from these tokens only, one item at a time, so that it depends neither on the batch nor on the cache.

Shapes: B items, T tokens, A answer tokens, P picture tokens of an item, R of all items, D hidden size.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forgetbench.core.errors import UserError
from forgetbench.methods.base import Batch, TrainingContext
from forgetbench.models.hidden import first_tokens, hidden_states, image_token, resolve_layer, visible_tokens

if TYPE_CHECKING:
    from torch import Tensor

NOISE_MARGIN = 2.0


class VisualDrift:
    """Measures the visual drift of a training run as a differentiable loss."""

    def __init__(self, context: TrainingContext, layer: int | None, max_bytes: int) -> None:
        """Store the starting weights, and measure the rounding differences without drift.

        Args:
            context: the run, with its starting weights.
            layer: the layer whose hidden states are compared; None for the last.
            max_bytes: memory for the base's hidden states; states that do not fit are computed every time.

        Raises:
            UserError: drift cannot be measured: there are no picture tokens, or no trained parameter affects the layer.
        """
        self._model, self._passes = context.model, context.passes
        self._token = image_token(context.model)
        if self._token < 0:
            raise UserError("method=mdgd: this model family marks no picture tokens, so there is no drift to see.")
        self._layer = resolve_layer(context.model, layer, "method.layer")
        self._trained = list(context.trainable.values())
        self._base = {name: parameter.detach().clone() for name, parameter in context.trainable.items()}
        self._cache: dict[Any, Tensor] = {}
        self._bytes_left = max_bytes
        self._hooks = ExitStack()
        self._states: dict[int, Tensor] = self._hooks.enter_context(hidden_states(context.model, [self._layer]))
        self.noise = self._measure_noise()
        """Differences up to this size are rounding errors of kernels that ran with other shapes."""

    def loss(self, batch: Batch) -> Tensor | None:
        """A micro-batch's share of L_v, from the last forward pass; None if no item has a picture.

        An item without a picture counts as having no drift.
        """
        difference_RD, counts = self._difference(batch)
        if not counts:
            return None
        difference_RD = difference_RD.where(difference_RD.abs() > self.noise, 0.0)
        weights_R = difference_RD.new_tensor([1 / count for count in counts for _ in range(count)])
        summed: Tensor = difference_RD.abs().sum(-1) @ weights_R
        return summed * (batch.share / len(batch.samples))

    def close(self) -> None:
        """Remove the hooks, and free the base's weights and states."""
        self._hooks.close()
        self._states.clear()  # they would keep the last pass's graph alive
        self._trained.clear()
        self._base.clear()
        self._cache.clear()

    def _difference(self, batch: Batch) -> tuple[Tensor, list[int]]:
        """h_w - h_w0 (R, D), and the number of picture tokens of each item that has any."""
        import torch

        h_BTD = self._states[self._layer]
        places_BT = batch.inputs["input_ids"] == self._token
        counts = [count for count in places_BT.sum(1).tolist() if count]
        h_RD = h_BTD[places_BT].float()
        if not counts:
            return h_RD, []
        rows = places_BT.any(1).nonzero()[:, 0].tolist()
        return h_RD - torch.cat([self._reference(batch, row) for row in rows]), counts

    def _reference(self, batch: Batch, row: int) -> Tensor:
        """The base's hidden states (P, D) of an item."""
        sample = batch.samples[row]
        unpadded = batch.inputs["attention_mask"][row] == 1
        prompt_T = batch.inputs["input_ids"][row][unpadded][: batch.prompt_tokens[row]]
        n_visible = visible_tokens(self._model, prompt_T)
        key = (sample.images, tuple(prompt_T[:n_visible].tolist()))
        if key in self._cache:
            return self._cache[key].to(prompt_T.device)
        single = self._passes.batch([sample])
        prompt_batch = replace(single, inputs=first_tokens(single.inputs, n_visible), labels=single.labels[:, :0])
        self._passes.reference(prompt_batch, self._base)
        h_PD = self._states[self._layer][prompt_batch.inputs["input_ids"] == self._token].float()
        if h_PD.nbytes <= self._bytes_left:
            self._bytes_left -= h_PD.nbytes
            self._cache[key] = h_PD.cpu()
        return h_PD

    def _can_drift(self, batch: Batch) -> bool:
        """Whether the trained parameters affect the hidden states of the last forward pass."""
        import torch

        h_BTD = self._states[self._layer]
        h_RD = h_BTD[batch.inputs["input_ids"] == self._token]
        if not h_RD.requires_grad:
            return False
        gradients = torch.autograd.grad(h_RD.square().sum(), self._trained, retain_graph=True, allow_unused=True)
        return any(gradient is not None and bool(gradient.any()) for gradient in gradients)

    def _measure_noise(self) -> float:
        """Twice the largest difference on the first step's items, before any drift; 0 without a picture."""
        import torch

        largest = torch.zeros((), device=next(iter(self._base.values())).device)
        training = self._model.training
        self._model.eval()  # dropout would add to the rounding differences
        for batch in (batch for batches in self._passes.upcoming(1) for batch in batches):
            self._passes.forward(batch)
            has_pictures = bool((batch.inputs["input_ids"] == self._token).any())
            if has_pictures and not self._can_drift(batch):
                raise UserError(
                    f"method.layer: nothing that trains reaches layer {self._layer}, so that it cannot drift; "
                    "choose a later layer, or train more."
                )
            difference_RD, counts = self._difference(batch)
            if counts:
                largest = torch.maximum(largest, difference_RD.detach().abs().max())
        self._model.train(training)
        return NOISE_MARGIN * float(self._passes.largest(largest))
