"""Find pictures that are the same or nearly so, among tens of thousands.

Two pictures are identical if their size and RGB values are. They are near-duplicates if their perceptual hashes differ
in at most `MAX_BITS` of 64 bits and their thumbnails, brightness and contrast evened out, by less than `MAX_RMS`. The
hash is the DCT hash of Zauner (2010), "Implementation and benchmarking of perceptual image hash functions": which of
the 8x8 lowest frequencies of the 32x32 grey picture, the constant ones left out, are above their median. It stands
recompression, rescaling and another brightness; not mirroring, turning, or cropping by more than a few per cent.

Every pair is compared: 20,000 with 20,000 pictures take some 7e11 operations, 20 s on one core.
Shapes: C pictures of a chunk, K known ones, B = 64 bits, V = 16 x 16 x 3 values of a thumbnail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import dctn  # type: ignore[import-untyped]

from forgetbench.core.records import ImageRef
from forgetbench.data.pictures import decode_image

BITS = 64
MAX_BITS = 10
MAX_RMS = 0.15
"""In standard deviations of a thumbnail's values: a correlation of 0.989."""
FLAT = 0.02
"""Standard deviation of values in 0..1 below which contrast is not evened out any further: it would be noise."""
CHUNK, KNOWN_CHUNK = 256, 8192
"""Pictures compared at a time, which bounds memory."""
MOST_NEIGHBOURS = 100
_HASHED, _THUMBNAIL = (32, 32), (16, 16)


@dataclass(frozen=True)
class Print:
    """What is compared of one picture."""

    pixels: bytes
    """Digest of size and RGB values."""
    bits_B: np.ndarray
    """Perceptual hash, bool."""
    thumbnail_V: np.ndarray
    """RGB values, uint8."""


@dataclass(frozen=True)
class Pair:
    """Two pictures that are the same or nearly so."""

    evaluated: bytes
    """`Print.pixels` of the evaluation picture."""
    known: bytes
    """`Print.pixels` of the training picture."""
    bits: int
    """How many of 64 differ."""
    rms: float
    """Root mean square difference of the evened thumbnails."""

    @property
    def is_identical(self) -> bool:
        """Whether every pixel is the same."""
        return self.evaluated == self.known


class Prints:
    """Decodes every picture once, however many datasets show it."""

    def __init__(self) -> None:
        """Start empty."""
        self._seen: dict[tuple[str, str], Print] = {}

    def by_digest(self) -> dict[bytes, Print]:
        """All so far, by `Print.pixels`."""
        return {one.pixels: one for one in self._seen.values()}

    def get(self, image: ImageRef) -> Print:
        """What is compared of a picture.

        Raises:
            UserError: it cannot be read.
        """
        key = (image.container, image.name)
        if key not in self._seen:
            self._seen[key] = print_of(decode_image(image))
        return self._seen[key]


def print_of(picture: Image.Image) -> Print:
    """What is compared of an RGB picture."""
    grey = np.asarray(picture.convert("L").resize(_HASHED, Image.Resampling.BILINEAR), dtype=np.float64)
    low_B = dctn(grey, norm="ortho")[1:9, 1:9].ravel()
    thumbnail = np.asarray(picture.resize(_THUMBNAIL, Image.Resampling.BILINEAR))
    return Print(pixel_digest(picture), low_B > np.median(low_B), thumbnail.ravel())


def pixel_digest(picture: Image.Image) -> bytes:
    """Digest of size and values."""
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).digest()


def near_pairs(evaluated: Sequence[Print], known: Sequence[Print]) -> list[Pair]:
    """Every evaluation picture with the known ones that nearly are it; identical ones are not compared.

    Of an evaluation picture's near-duplicates the nearest `MOST_NEIGHBOURS` of each chunk are kept.
    """
    found = []
    for first in range(0, len(known), KNOWN_CHUNK):
        others = known[first : first + KNOWN_CHUNK]
        bits_KB, values_KV = _stacked(others)
        lengths_K = (values_KV**2).sum(1)
        for start in range(0, len(evaluated), CHUNK):
            part = evaluated[start : start + CHUNK]
            bits_CB, values_CV = _stacked(part)
            differ_CK = (BITS - bits_CB @ bits_KB.T) / 2
            squares_CK = (values_CV**2).sum(1)[:, None] + lengths_K[None] - 2 * values_CV @ values_KV.T
            rms_CK = np.sqrt(np.maximum(squares_CK, 0) / values_KV.shape[1])
            is_near_CK = (differ_CK <= MAX_BITS) & (rms_CK < MAX_RMS)
            for row in np.flatnonzero(is_near_CK.any(1)).tolist():
                near = np.flatnonzero(is_near_CK[row])
                found += [
                    Pair(part[row].pixels, others[place].pixels, int(differ_CK[row, place]), float(rms_CK[row, place]))
                    for place in near[np.argsort(rms_CK[row, near])][:MOST_NEIGHBOURS].tolist()
                    if part[row].pixels != others[place].pixels
                ]
    return found


def _stacked(prints: Sequence[Print]) -> tuple[np.ndarray, np.ndarray]:
    """(C, B) bits as -1 and 1, whose products count agreements; (C, V) values of mean 0 and standard deviation 1."""
    bits_CB = np.stack([one.bits_B for one in prints]).astype(np.float32) * 2 - 1
    values_CV = np.stack([one.thumbnail_V for one in prints]).astype(np.float32) / 255
    means, spreads = values_CV.mean(1, keepdims=True), values_CV.std(1, keepdims=True)
    # Of a flat picture brightness is all there is: black is not nearly white.
    return bits_CB, (values_CV - means) / np.maximum(spreads, FLAT) + np.where(spreads < FLAT, means, 0)
