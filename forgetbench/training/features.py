"""Encode a picture once in a run whose vision tower and projector are frozen; later questions on it get its features.

The same bits either way: kernels are chosen by shape, and in bf16 a picture's features differ with the number of
pictures encoded along with it. So pictures are encoded as many at a time, and of the same shape, as a micro-batch
shows; a micro-batch of other shapes is given pixels. Where micro-batches are composed by length, or hold conversations,
they are never alike: there the pictures of an item are encoded by themselves.

Shapes: N items of a micro-batch that show pictures, P picture tokens of one item, R of all of them, D hidden size.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef, Sample
from forgetbench.data.batching import join_pictures
from forgetbench.data.collate import PIXELS, Encoded, Encoder
from forgetbench.models.features import PictureEncoder
from forgetbench.models.parts import part_of

MAX_BYTES = 2 << 30
_NOISE_ROUNDS = 8
"""Of these, one in two or three showed the difference where there was one."""

Pictures = tuple[ImageRef, ...]
Shapes = Mapping[str, Any]
Move = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Puts tensors on the model's device."""


class FeatureReuse:
    """Features by the pictures of an item, for the length of one run."""

    def __init__(
        self, model: Any, pictures: PictureEncoder, encoder: Encoder, wanted: bool = True, max_bytes: int = MAX_BYTES
    ) -> None:
        """Start empty.

        Args:
            model: ready to train, adapters attached and parameters frozen.
            pictures: of the same model.
            encoder: of the same model.
            wanted: False gives the model pixels every time.
            max_bytes: memory for features; when it is used up, further pictures are encoded every time.
        """
        self._pictures, self._encoder, self._bytes_left = pictures, encoder, max_bytes
        self._held: dict[Pictures, Tensor] = {}
        self._upcoming: Iterator[Sample] = iter(())
        self._alone: dict[Pictures, Tensor] = {}
        self._shapes: list[Shapes] = []
        """Of a full encoding batch's pictures, all alike; none before the first."""
        self._wanted, self._may_stand_in = wanted, pictures.usable and is_fixed(model)
        self.active = wanted and self._may_stand_in
        """Whether features may stand in for the pixels of alike micro-batches; the first may yet switch it off."""

    @property
    def held(self) -> int:
        """Of how many items' pictures there are features."""
        return len(self._held) + len(self._alone)

    @property
    def held_bytes(self) -> int:
        """Memory that they take, with all that their tensors keep from being freed."""
        return sum(
            features_PD.untyped_storage().nbytes() for features_PD in (*self._held.values(), *self._alone.values())
        )

    def set_upcoming(self, upcoming: Iterable[Sample]) -> None:
        """Say what will be shown from now on, in order: those to come fill up the encoding batch."""
        self._upcoming = iter(upcoming)

    @torch.no_grad()
    def inputs(self, samples: Sequence[Sample], encoded: Sequence[Encoded], move: Move) -> dict[str, Any]:
        """Inputs that replace the pixels of one micro-batch; empty where pixels are to be given.

        Called in training mode and under the autocast of the forward pass, so that the features are that pass's own.
        """
        shown = [(sample.images, one) for sample, one in zip(samples, encoded, strict=True) if sample.images]
        if not self.active or not shown:
            return {}
        shapes = [_shapes(one) for _, one in shown]
        if not self._shapes and all(one == shapes[0] for one in shapes):
            self._shapes = shapes
            self.active = self._is_position_independent([one for _, one in shown], move)
        if not self.active or shapes != self._shapes:
            return {}
        fresh: dict[Pictures, Tensor] = {}
        missing = {images: one for images, one in shown if images not in self._held}
        if missing:
            self._fill_batch(missing)
            encoding_batch = list(islice(cycle(missing.values()), len(shown)))
            fresh = dict(zip(missing, self._encode(encoding_batch, move), strict=False))
        known = ChainMap(fresh, self._held)
        features_RD = torch.cat([known[images] for images, _ in shown])
        self._keep(self._held, fresh)
        return self._pictures.inputs(move({"": features_RD})[""])

    @torch.no_grad()
    def inputs_alone(self, samples: Sequence[Sample], encoded: Sequence[Encoded], move: Move) -> dict[str, Any]:
        """As `inputs`, for micro-batches that are never alike, such as those of conversations.

        The pictures of an item are encoded by themselves, so that their bits depend on nothing that is shown beside
        them, in this step or before; nor on whether features are kept, which they are if reuse is wanted.
        """
        shown = [(sample.images, one) for sample, one in zip(samples, encoded, strict=True) if sample.images]
        if not self._may_stand_in or not shown:
            return {}
        found: dict[Pictures, Tensor] = {}
        for images, one in shown:
            if images not in found and (images not in self._alone or not self._wanted):
                found[images] = self._encode([one], move)[0]
                if self._wanted:
                    self._keep(self._alone, {images: found[images]})
        known = ChainMap(found, self._alone)
        features_RD = torch.cat([known[images] for images, _ in shown])
        return self._pictures.inputs(move({"": features_RD})[""])

    def _fill_batch(self, missing: dict[Pictures, Encoded]) -> None:
        """Add pictures that are still to come, until there are as many as a micro-batch shows."""
        while len(missing) < len(self._shapes) and self._bytes_left > 0:
            sample = next(self._upcoming, None)
            if sample is None:
                return
            if sample.images and sample.images not in self._held and sample.images not in missing:
                one = self._encoder.prompt(sample)
                if _shapes(one) == self._shapes[0]:
                    missing[sample.images] = one

    def _encode(self, encoding_batch: Sequence[Encoded], move: Move) -> Tensor:
        """Features (N, P, D)."""
        features_RD = self._pictures.encode(move(join_pictures(encoding_batch))).cpu()
        return features_RD.reshape(len(encoding_batch), -1, features_RD.shape[-1])

    def _keep(self, held: dict[Pictures, Tensor], fresh: Mapping[Pictures, Tensor]) -> None:
        for images, features_PD in fresh.items():
            if features_PD.nbytes > self._bytes_left:
                self._bytes_left = 0  # those to come would not fit either
                return
            # A slice would hold the memory of all that was encoded with it.
            held[images] = features_PD.clone()
            self._bytes_left -= features_PD.nbytes

    def _is_position_independent(self, encoding_batch: Sequence[Encoded], move: Move) -> bool:
        """Whether this machine's kernels give a picture the same bits wherever in its batch it stands.

        Asked of noise: a sum in another order changes the last bit of some values only, so that a few pictures may well
        show nothing, and a run that is taken up again, at other pictures, must come to the same answer.
        """
        places = list(range(len(encoding_batch)))
        orders = places[::-1], places[::2] + places[1::2]
        cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        # An encoder that draws at random must not move the generator, or being off would not be off.
        with torch.random.fork_rng(cuda):
            for seed in range(_NOISE_ROUNDS):
                noise = _noise_like(encoding_batch, seed)
                in_place = _bits(self._encode(noise, move))
                if not all(
                    torch.equal(_bits(self._encode([noise[place] for place in order], move)), in_place[order])
                    for order in orders
                ):
                    return False
        return True


def is_fixed(model: Any) -> bool:
    """Whether vision tower and projector neither train, nor draw at random, nor remember what they saw."""
    if any(parameter.requires_grad and part_of(name) != "language" for name, parameter in model.named_parameters()):
        return False
    if getattr(getattr(model.config, "vision_config", None), "attention_dropout", 0):
        return False
    return not any(
        isinstance(module, _BatchNorm) or (isinstance(module, _DropoutNd) and module.p > 0)
        for module in _picture_modules(model)
    )


def _picture_modules(model: nn.Module) -> Iterator[nn.Module]:
    for name, module in model.named_modules():
        with suppress(UserError):  # what holds all parts belongs to none
            if part_of(f"{name}.") != "language":
                yield module


def _shapes(encoded: Encoded) -> Shapes:
    """All that decides the shapes inside the vision tower: those of the pixels, and sizes in full."""
    return {key: tuple(tensor.shape) if key in PIXELS else tensor.tolist() for key, tensor in encoded.pictures.items()}


def _noise_like(encoding_batch: Sequence[Encoded], seed: int) -> list[Encoded]:
    """The same prompts with other values of their pixels."""
    generator = torch.Generator().manual_seed(seed)
    return [
        replace(
            one,
            pictures={
                key: torch.randn(value.shape, generator=generator).to(value.dtype) if key == "pixel_values" else value
                for key, value in one.pictures.items()
            },
        )
        for one in encoding_batch
    ]


def _bits(tensor: Tensor) -> Tensor:
    """What `torch.equal` compares to the bit: it takes -0 for 0."""
    return tensor.contiguous().view(torch.uint8)
