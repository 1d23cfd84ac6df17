"""A second model beside the training model, with the base's weights, separate modules and shared frozen tensors.

Training does not change the second model. Changes to its modes, gradients, dtypes or adapters do not affect training.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from torch import nn

from forgetbench.models.load import LoadedModel
from forgetbench.models.precision import is_packed


class SharedCopy:
    """A copy of the base model that shares the frozen tensors' memory with the training model."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Copy the modules of an unmodified model.

        Args:
            loaded: the model with its base weights.
        """
        memo: dict[int, Any] = {
            id(parameter): parameter if is_packed(parameter) else nn.Parameter(parameter.data, requires_grad=False)
            for parameter in loaded.model.parameters()
        }
        self.loaded = replace(loaded, model=copy.deepcopy(loaded.model, memo))

    def separate(self, names: Collection[str]) -> None:
        """Give the copy separate tensors for the parameters that will train; call it before training starts."""
        for name, parameter in self.loaded.model.named_parameters():
            if name in names:
                parameter.data = parameter.data.clone()

    def share(self, model: Any, without: Collection[str]) -> None:
        """Share frozen tensors again after the training model was moved to its device; sharded tensors stay separate.

        Args:
            model: the training model.
            without: names of the separated parameters.
        """
        trained: dict[str, nn.Parameter] = dict(model.named_parameters())
        for name, parameter in self.loaded.model.named_parameters():
            source = trained.get(name)
            if (
                name in without
                or source is None
                or is_packed(parameter)
                or type(source.data) is not type(parameter.data)
            ):
                continue
            if (source.shape, source.dtype) == (parameter.shape, parameter.dtype):
                parameter.data = source.data
