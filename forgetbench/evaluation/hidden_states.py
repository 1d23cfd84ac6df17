"""Compare hidden states at picture tokens between the base and a checkpoint.

Shapes: B items, T tokens, P picture tokens of one item, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from forgetbench.config import MatrixConfig
from forgetbench.core.errors import UserError
from forgetbench.data.batching import batch_prompts
from forgetbench.data.collate import Encoded
from forgetbench.evaluation.batches import BatchedSet
from forgetbench.evaluation.representation import LayerMeasure
from forgetbench.evaluation.spectra import LinearCKA, MeanDrift, MeanEffectiveRank
from forgetbench.methods.task_router import task_router
from forgetbench.models.hidden import hidden_states, image_token, resolve_layer, visible_tokens
from forgetbench.models.load import LoadedModel
from forgetbench.models.precision import is_narrow

_DEFAULT_LAYERS = 5
"""Number of layers that are measured if the config names none."""


class _LayerSums:
    """Running sums of one layer; their size does not grow with the number of pictures."""

    def __init__(self, centred: bool) -> None:
        self._n, self._rank, self._drift, self._cka = 0, MeanEffectiveRank(centred), MeanDrift(), LinearCKA()

    def add(self, base: Sequence[Tensor], tuned: Sequence[Tensor]) -> None:
        """Add pictures (P, D) as base and checkpoint see them."""
        self._n += len(tuned)
        self._rank.add(tuned)
        self._drift.add(base, tuned)
        # Sums of D x D in fp64 belong in main memory.
        before_ND, after_ND = (
            torch.stack([states_PD.double().mean(0) for states_PD in side]).cpu() for side in (base, tuned)
        )
        self._cka.add(before_ND, after_ND)

    def layer_measure(self, dataset: str, layer: int) -> LayerMeasure:
        return LayerMeasure(dataset, layer, self._n, self._rank.value, self._drift.value, self._cka.value)


class LayerMeasurer:
    """Measures one loaded model, whose weights may be swapped between calls."""

    def __init__(self, loaded: LoadedModel, pad_id: int, config: MatrixConfig) -> None:
        """Choose the layers.

        Args:
            loaded: the model, on its device.
            pad_id: token id of the padding.
            config: layers, centring and batch size.

        Raises:
            UserError: there is no such layer.
        """
        self._model, self._pad_id, self._config = loaded.model, pad_id, config
        self._extra = {"use_cache": False, **({"logits_to_keep": 1} if loaded.keeps_logits else {})}
        self._token, self._narrow = image_token(loaded.model), is_narrow(loaded.model)
        self._router = task_router(loaded.model)
        self._layers = chosen_layers(loaded.model, config.representation.layers)

    @torch.no_grad()
    def measure(
        self, name: str, dataset: BatchedSet, items: Sequence[int], base: Mapping[str, Tensor]
    ) -> list[LayerMeasure]:
        """Run base and checkpoint over the same batches; a row per layer, none without picture tokens.

        In fp32, or in bf16 where the model is held in less than fp32.

        Prompts are cut after the last token that their picture tokens attend to. If the model routes each item to an
        expert, the whole prompt decides.

        Args:
            name: of the dataset, for the rows.
            dataset: the encoded prompts.
            items: item numbers, one per picture.
            base: base values of what the checkpoint changed, by live name; empty at the base itself.
        """
        sums = {layer: _LayerSums(self._config.representation.centred) for layer in self._layers}
        n_visible = {item: visible_tokens(self._model, dataset.prompts.tokens(item)["input_ids"]) for item in items}
        order = sorted((item for item in items if n_visible[item]), key=lambda item: (n_visible[item], item))
        for start in range(0, len(order), self._config.batch_size):
            chosen = order[start : start + self._config.batch_size]
            batch = [_cut(dataset.prompts.prompt(item), n_visible[item]) for item in chosen]
            inputs = self._inputs(batch)
            if self._router:
                whole = self._inputs([dataset.prompts.prompt(item) for item in chosen])
                self._model.eval()
                run = partial(self._model, **whole, **self._extra)
                self._router.decide(self._model, run, whole["attention_mask"])
            tuned = self._states(inputs, {})
            before = self._states(inputs, base) if base else tuned
            for layer in self._layers:
                sums[layer].add(before[layer], tuned[layer])
        return [layer_sums.layer_measure(name, layer) for layer, layer_sums in sums.items()] if order else []

    def _inputs(self, batch: Sequence[Encoded]) -> dict[str, Tensor]:
        return {key: value.to(self._model.device) for key, value in batch_prompts(batch, self._pad_id).items()}

    def _states(self, inputs: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[int, list[Tensor]]:
        """Layer -> hidden states (P, D) at each item's picture tokens; `weights` replace those of the model."""
        is_picture_BT = inputs["input_ids"] == self._token
        self._model.eval()  # adapters are created in training mode, with dropout
        bf16 = torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._narrow)
        with bf16, hidden_states(self._model, self._layers) as captured_BTD:
            torch.func.functional_call(self._model, dict(weights), (), {**inputs, **self._extra})
        # One layer at a time, to free the states of all tokens early.
        states = {
            layer: [
                row_TD[is_picture_T].float()
                for row_TD, is_picture_T in zip(captured_BTD.pop(layer), is_picture_BT, strict=True)
            ]
            for layer in self._layers
        }
        if not all(torch.isfinite(states_PD).all() for rows in states.values() for states_PD in rows):
            raise UserError(
                "The model's hidden states are not finite; are its weights whole? "
                "matrix.representation.enabled=false leaves them out."
            )
        return states


def _cut(encoded: Encoded, length: int) -> Encoded:
    return replace(encoded, tokens={key: value[:length] for key, value in encoded.tokens.items()})


def chosen_layers(model: Any, layers: Sequence[int] | None) -> list[int]:
    """The layers to measure, in order: the named ones, or five spread evenly from the first to the last.

    Raises:
        UserError: there is no such layer.
    """
    key = "matrix.representation.layers"
    if layers is not None:
        return sorted({resolve_layer(model, layer, key) for layer in layers})
    last = resolve_layer(model, None, key)
    return sorted({round(last * k / (_DEFAULT_LAYERS - 1)) for k in range(_DEFAULT_LAYERS)})
