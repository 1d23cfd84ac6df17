"""A second model beside one that trains: on the base's weights, with modules of its own and the frozen tensors shared.

What trains never changes there, and nothing that is done to it (modes, gradients, widths, adapters) shows in training.
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
    """Another model of the same base; of the tensors that do not train there is one in memory for both."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Copy the modules of a model that nothing was done to yet.

        Args:
            loaded: on its base weights.
        """
        memo: dict[int, Any] = {
            id(one): one if is_packed(one) else nn.Parameter(one.data, requires_grad=False)
            for one in loaded.model.parameters()
        }
        self.loaded = replace(loaded, model=copy.deepcopy(loaded.model, memo))

    def separate(self, names: Collection[str]) -> None:
        """Give what will train tensors of its own here, before it is trained there."""
        for name, parameter in self.loaded.model.named_parameters():
            if name in names:
                parameter.data = parameter.data.clone()

    def share(self, model: Any, without: Collection[str]) -> None:
        """Share frozen tensors again with a model that was moved to its device since; slices stay apart.

        Args:
            model: that trains.
            without: names that were separated.
        """
        live: dict[str, nn.Parameter] = dict(model.named_parameters())
        for name, parameter in self.loaded.model.named_parameters():
            other = live.get(name)
            if name in without or other is None or is_packed(parameter) or type(other.data) is not type(parameter.data):
                continue
            if (other.shape, other.dtype) == (parameter.shape, parameter.dtype):
                parameter.data = other.data
