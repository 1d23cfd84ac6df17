"""The changed weights of a run, for checkpoints and resume points.

Tensors may be sliced over the processes. All processes gather them, one tensor at a time; only the main process keeps
them, whole and in main memory, so that files never contain slices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from forgetbench.models.tensors import fingerprint, placed_like, put, whole


class TrackedWeights:
    """Tensors that a run may change, by live name."""

    def __init__(self, model: Any, names: Iterable[str], added: Collection[str]) -> None:
        """Remember fingerprints of the tensors, without a copy.

        Args:
            model: on its starting weights, whole.
            names: of the tensors that may change, in the same order in every process.
            added: names of tensors that the base lacks: a checkpoint needs them even if training has not changed them.
        """
        live = dict(model.named_parameters())
        self._added = added
        self._initial_fingerprints = {name: fingerprint(live[name]) for name in names}
        self._live: Mapping[str, nn.Parameter] = live

    def rebind(self, model: Any) -> None:
        """Use the parameters that the model has after it was distributed over the processes."""
        self._live = dict(model.named_parameters())

    def delta(self, on_main: bool) -> dict[str, Tensor]:
        """Tensors that differ from the start in any bit, and all added tensors; empty outside the main process."""
        changed = {}
        for name, starting in self._initial_fingerprints.items():
            value = whole(self._live[name].detach())
            if on_main and (name in self._added or fingerprint(value) != starting):
                changed[name] = value.cpu()
        return changed

    def copies(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Copies of these tensors as they are now, sliced or whole."""
        return {name: self._live[name].detach().clone() for name in names}

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Overwrite some tensors."""
        for name, value in values.items():
            put(self._live[name], value)


def gather_whole(tensors: Iterable[tuple[str, Tensor]], on_main: bool) -> dict[str, Tensor]:
    """Whole tensors in main memory; empty outside the main process."""
    collected = {}
    for name, tensor in tensors:
        value = whole(tensor)
        if on_main:
            collected[name] = value.cpu()
    return collected


def moments(optimiser: Any, optimised: Mapping[str, nn.Parameter]) -> Iterator[tuple[str, Tensor]]:
    """An optimiser's state as `<parameter>/<moment>`."""
    names = {parameter: name for name, parameter in optimised.items()}
    for parameter, state in optimiser.state.items():
        for key, value in state.items():
            yield f"{names[parameter]}/{key}", value


def put_moments(optimiser: Any, optimised: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    """Restore the output of `moments`, for the parameters that are optimised."""
    for key, value in state.items():
        name, _, moment = key.rpartition("/")
        if name in optimised:
            parameter = optimised[name]
            sliced = value.shape == parameter.shape
            # A fused optimiser keeps its step count on the device, too.
            optimiser.state[parameter][moment] = placed_like(value, parameter) if sliced else value.to(parameter.device)
