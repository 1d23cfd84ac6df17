"""Encode a picture once if vision tower and projector are frozen; later questions on it reuse its features.

Features and pixels must give the same bits. But kernels are chosen by shape, and in bf16 the features of a picture
depend on the number of pictures that are encoded with it. So pictures are encoded in batches of the shape of a
micro-batch, and a micro-batch of another shape gets pixels. Micro-batches that are composed by length, or that hold
conversations, differ in shape: there the pictures of each item are encoded separately.

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
"""Rounds of the test; if kernels do depend on the position, every second or third round shows it."""

Pictures = tuple[ImageRef, ...]
Shapes = Mapping[str, Any]
Move = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Puts tensors on the model's device."""


class FeatureReuse:
    """Cache of features during one run, by the pictures of an item."""

    def __init__(
        self,
        model: Any,
        pictures: PictureEncoder,
        encoder: Encoder,
        is_enabled: bool = True,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Start empty.

        Args:
            model: ready to train, adapters attached and parameters frozen.
            pictures: of the same model.
            encoder: of the same model.
            is_enabled: False: the model always gets pixels.
            max_bytes: memory for features; when it is full, further pictures are encoded every time.
        """
        self._pictures, self._encoder, self._bytes_left = pictures, encoder, max_bytes
        self._cached: dict[Pictures, Tensor] = {}
        self._upcoming: Iterator[Sample] = iter(())
        self._per_item: dict[Pictures, Tensor] = {}
        self._shapes: list[Shapes] = []
        """Shapes of the pictures of a full encoding batch, all equal; empty before the first batch."""
        self._is_enabled, self._can_replace_pixels = is_enabled, pictures.usable and is_fixed(model)
        self.active = is_enabled and self._can_replace_pixels
        """Whether features replace the pixels of micro-batches of equal shapes; the test on the first may clear it."""

    @property
    def n_cached(self) -> int:
        """Number of cached entries; an entry holds the features of one item's pictures."""
        return len(self._cached) + len(self._per_item)

    @property
    def cached_bytes(self) -> int:
        """Memory of the cached features, including storage that their tensors keep alive."""
        return sum(
            features_PD.untyped_storage().nbytes() for features_PD in (*self._cached.values(), *self._per_item.values())
        )

    def set_upcoming(self, upcoming: Iterable[Sample]) -> None:
        """Set the items that come next, in order: their pictures fill up the encoding batch."""
        self._upcoming = iter(upcoming)

    @torch.no_grad()
    def inputs(self, samples: Sequence[Sample], encoded: Sequence[Encoded], move: Move) -> dict[str, Any]:
        """Model inputs that replace the pixels of one micro-batch; empty if it needs pixels.

        Call it in training mode and under the autocast of the forward pass, so that the features have the same bits.
        """
        shown = [(sample.images, prompt) for sample, prompt in zip(samples, encoded, strict=True) if sample.images]
        if not self.active or not shown:
            return {}
        shapes = [_shapes(prompt) for _, prompt in shown]
        if not self._shapes and all(shape == shapes[0] for shape in shapes):
            self._shapes = shapes
            self.active = self._is_position_independent([prompt for _, prompt in shown], move)
        if not self.active or shapes != self._shapes:
            return {}
        fresh: dict[Pictures, Tensor] = {}
        missing = {images: prompt for images, prompt in shown if images not in self._cached}
        if missing:
            self._fill_batch(missing)
            encoding_batch = list(islice(cycle(missing.values()), len(shown)))
            fresh = dict(zip(missing, self._encode(encoding_batch, move), strict=False))
        known = ChainMap(fresh, self._cached)
        features_RD = torch.cat([known[images] for images, _ in shown])
        self._store(self._cached, fresh)
        return self._pictures.inputs(move({"": features_RD})[""])

    @torch.no_grad()
    def inputs_per_item(self, samples: Sequence[Sample], encoded: Sequence[Encoded], move: Move) -> dict[str, Any]:
        """As `inputs`, for micro-batches that differ in shape, as those of conversations do.

        The pictures of an item are encoded separately, so that their bits do not depend on other items, nor on
        whether the features are cached. They are cached if reuse is enabled.
        """
        shown = [(sample.images, prompt) for sample, prompt in zip(samples, encoded, strict=True) if sample.images]
        if not self._can_replace_pixels or not shown:
            return {}
        fresh: dict[Pictures, Tensor] = {}
        for images, prompt in shown:
            if images not in fresh and (images not in self._per_item or not self._is_enabled):
                fresh[images] = self._encode([prompt], move)[0]
                if self._is_enabled:
                    self._store(self._per_item, {images: fresh[images]})
        known = ChainMap(fresh, self._per_item)
        features_RD = torch.cat([known[images] for images, _ in shown])
        return self._pictures.inputs(move({"": features_RD})[""])

    def _fill_batch(self, missing: dict[Pictures, Encoded]) -> None:
        """Add upcoming pictures until there are as many as in a micro-batch."""
        while len(missing) < len(self._shapes) and self._bytes_left > 0:
            sample = next(self._upcoming, None)
            if sample is None:
                return
            if sample.images and sample.images not in self._cached and sample.images not in missing:
                prompt = self._encoder.prompt(sample)
                if _shapes(prompt) == self._shapes[0]:
                    missing[sample.images] = prompt

    def _encode(self, encoding_batch: Sequence[Encoded], move: Move) -> Tensor:
        """Features (N, P, D)."""
        features_RD = self._pictures.encode(move(join_pictures(encoding_batch))).cpu()
        return features_RD.reshape(len(encoding_batch), -1, features_RD.shape[-1])

    def _store(self, cache: dict[Pictures, Tensor], fresh: Mapping[Pictures, Tensor]) -> None:
        for images, features_PD in fresh.items():
            if features_PD.nbytes > self._bytes_left:
                self._bytes_left = 0  # later pictures would not fit either
                return
            # A slice would keep the memory of the whole encoding batch alive.
            cache[images] = features_PD.clone()
            self._bytes_left -= features_PD.nbytes

    def _is_position_independent(self, encoding_batch: Sequence[Encoded], move: Move) -> bool:
        """Whether this machine's kernels give a picture the same bits at every position in its batch.

        Tested with noise: another order of sums changes only the last bit of some values, which a few real pictures may
        not show. And a resumed run, which begins with other pictures, must get the same answer.
        """
        places = list(range(len(encoding_batch)))
        orders = places[::-1], places[::2] + places[1::2]
        cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        # An encoder that draws random numbers must not advance the generator of the run.
        with torch.random.fork_rng(cuda):
            for seed in range(_NOISE_ROUNDS):
                noise = _noise_like(encoding_batch, seed)
                in_place = _as_bytes(self._encode(noise, move))
                if not all(
                    torch.equal(_as_bytes(self._encode([noise[place] for place in order], move)), in_place[order])
                    for order in orders
                ):
                    return False
        return True


def is_fixed(model: Any) -> bool:
    """Whether vision tower and projector are frozen, deterministic and stateless."""
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
        with suppress(UserError):  # a module that contains all parts belongs to none
            if part_of(f"{name}.") != "language":
                yield module


def _shapes(encoded: Encoded) -> Shapes:
    """Everything that decides the shapes inside the vision tower: shapes of pixels, values of sizes."""
    return {key: tuple(tensor.shape) if key in PIXELS else tensor.tolist() for key, tensor in encoded.pictures.items()}


def _noise_like(encoding_batch: Sequence[Encoded], seed: int) -> list[Encoded]:
    """The same prompts with noise as pixels."""
    generator = torch.Generator().manual_seed(seed)
    return [
        replace(
            prompt,
            pictures={
                key: torch.randn(value.shape, generator=generator).to(value.dtype) if key == "pixel_values" else value
                for key, value in prompt.pictures.items()
            },
        )
        for prompt in encoding_batch
    ]


def _as_bytes(tensor: Tensor) -> Tensor:
    """A tensor as bytes: `torch.equal` on floats takes -0 for 0."""
    return tensor.contiguous().view(torch.uint8)
