"""The weights of a run beside those that it started from: what checkpoints hold, and what a resumed run takes back.

Tensors may be sliced over the processes. They are gathered one at a time, which every process takes part in; the main
process keeps them, whole and in main memory, so that files know nothing of slices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from forgetbench.models.tensors import fingerprint, placed_like, put, whole


class TrackedWeights:
    """Tensors that a run may change, by live name."""

    def __init__(self, model: Any, names: Iterable[str], added: Collection[str]) -> None:
        """Remember what the tensors are like, without a copy.

        Args:
            model: on its starting weights, whole.
            names: what may change, in the same order in every process.
            added: of these, what is not in the base: a checkpoint needs it even where training has not moved it.
        """
        live = dict(model.named_parameters())
        self._added = added
        self._initial_fingerprints = {name: fingerprint(live[name]) for name in names}
        self._live: Mapping[str, nn.Parameter] = live

    def rebind(self, model: Any) -> None:
        """Go on with the parameters that the model has now that it is spread over the processes."""
        self._live = dict(model.named_parameters())

    def delta(self, main: bool) -> dict[str, Tensor]:
        """Tensors that differ from the start in any bit, and all that was added; none outside the main process."""
        found = {}
        for name, starting in self._initial_fingerprints.items():
            value = whole(self._live[name].detach())
            if main and (name in self._added or fingerprint(value) != starting):
                found[name] = value.cpu()
        return found

    def copies(self, names: Iterable[str]) -> dict[str, Tensor]:
        """These tensors as they are now, sliced as they are."""
        return {name: self._live[name].detach().clone() for name in names}

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Overwrite some."""
        for name, value in values.items():
            put(self._live[name], value)


def gathered(tensors: Iterable[tuple[str, Tensor]], main: bool) -> dict[str, Tensor]:
    """Whole tensors in main memory; none outside the main process."""
    found = {}
    for name, tensor in tensors:
        value = whole(tensor)
        if main:
            found[name] = value.cpu()
    return found


def moments(optimiser: Any, optimised: Mapping[str, nn.Parameter]) -> Iterator[tuple[str, Tensor]]:
    """An optimiser's state as `<parameter>/<moment>`."""
    names = {parameter: name for name, parameter in optimised.items()}
    for parameter, state in optimiser.state.items():
        for key, value in state.items():
            yield f"{names[parameter]}/{key}", value


def put_moments(optimiser: Any, optimised: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    """Take back what `moments` gave, of parameters that are optimised."""
    for key, value in state.items():
        name, _, moment = key.rpartition("/")
        if name in optimised:
            parameter = optimised[name]
            sliced = value.shape == parameter.shape
            # A fused optimiser keeps its step count on the device, too.
            optimiser.state[parameter][moment] = placed_like(value, parameter) if sliced else value.to(parameter.device)
