"""Find pictures that are the same or nearly so, among tens of thousands.

Two pictures are identical if their size and RGB values are. They are near-duplicates if their perceptual hashes differ
in at most `MAX_BITS` of 64 bits and their thumbnails, brightness and contrast evened out, by less than `MAX_RMS`. The
hash is the DCT hash of Zauner (2010), "Implementation and benchmarking of perceptual image hash functions": which of
the 8x8 lowest frequencies of the 32x32 grey picture, the constant ones left out, are above their median. It stands
recompression, rescaling and another brightness; not mirroring, turning, or cropping by more than a few per cent.

Every pair of hashes is compared: 20,000 with 20,000 take 2 s on one core, and 20 s if all of them are close.
Shapes: C pictures of a chunk, K known ones, B = 64 bits, V = 16 x 16 x 3 values of a thumbnail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
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
_HASHED, _THUMBNAIL = (32, 32), (16, 16)


@dataclass(frozen=True)
class Fingerprint:
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
    """`Fingerprint.pixels` of the evaluation picture."""
    known: bytes
    """`Fingerprint.pixels` of the training picture."""
    bits: int
    """How many of 64 differ."""
    rms: float
    """Root mean square difference of the evened thumbnails."""

    @property
    def is_identical(self) -> bool:
        """Whether every pixel is the same."""
        return self.evaluated == self.known


@dataclass(frozen=True)
class Duplicates:
    """How many evaluation pictures are among training pictures."""

    identical: int
    near: int
    """Near-duplicates, identical ones not counted."""


class Fingerprints:
    """Decodes every picture once, however many datasets show it."""

    def __init__(self) -> None:
        """Start empty."""
        self._seen: dict[tuple[str, str], Fingerprint] = {}

    def by_digest(self) -> dict[bytes, Fingerprint]:
        """All so far, by `Fingerprint.pixels`."""
        return {one.pixels: one for one in self._seen.values()}

    def get(self, image: ImageRef) -> Fingerprint:
        """What is compared of a picture.

        Raises:
            UserError: it cannot be read.
        """
        key = (image.container, image.name)
        if key not in self._seen:
            self._seen[key] = image_fingerprint(decode_image(image))
        return self._seen[key]


def image_fingerprint(picture: Image.Image) -> Fingerprint:
    """What is compared of an RGB picture."""
    grey = np.asarray(picture.convert("L").resize(_HASHED, Image.Resampling.BILINEAR), dtype=np.float64)
    low_B = dctn(grey, norm="ortho")[1:9, 1:9].ravel()
    thumbnail = np.asarray(picture.resize(_THUMBNAIL, Image.Resampling.BILINEAR))
    pixels = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).digest()
    return Fingerprint(pixels, low_B > np.median(low_B), thumbnail.ravel())


def nearest_pairs(evaluated: Iterable[Fingerprint], known: Iterable[Fingerprint]) -> dict[bytes, Pair]:
    """Each evaluation picture that is among the known ones, exactly or nearly, with the nearest of them.

    Returns:
        By `Fingerprint.pixels` of the evaluation picture; an identical one is at distance 0.
    """
    asked = {one.pixels: one for one in evaluated}
    held = {one.pixels: one for one in known}
    found = {pixels: Pair(pixels, pixels, 0, 0.0) for pixels in asked if pixels in held}
    others, candidates = [one for one in asked.values() if one.pixels not in held], list(held.values())
    for first in range(0, len(candidates), KNOWN_CHUNK):
        for start in range(0, len(others), CHUNK):
            for pair in _near_pairs(others[start : start + CHUNK], candidates[first : first + KNOWN_CHUNK]):
                if pair.evaluated not in found or pair.rms < found[pair.evaluated].rms:
                    found[pair.evaluated] = pair
    return found


def count_duplicates(pairs: Iterable[Pair]) -> Duplicates:
    """Identical pairs, and the others."""
    are_identical = [pair.is_identical for pair in pairs]
    return Duplicates(sum(are_identical), len(are_identical) - sum(are_identical))


def _near_pairs(evaluated: Sequence[Fingerprint], known: Sequence[Fingerprint]) -> Iterator[Pair]:
    """Each evaluation picture with its nearest near-duplicate, if it has one."""
    agreeing_CK = _signs(evaluated) @ _signs(known).T  # bits that agree less those that differ
    is_close_CK = agreeing_CK >= BITS - 2 * MAX_BITS
    # Few hashes are close to any, and the thumbnails of these alone are compared.
    rows, columns = np.flatnonzero(is_close_CK.any(1)).tolist(), np.flatnonzero(is_close_CK.any(0)).tolist()
    if not rows:
        return
    values_CV = _evened([evaluated[row].thumbnail_V for row in rows])
    values_KV = _evened([known[column].thumbnail_V for column in columns])
    # Squared distances, less what is the same for all known pictures.
    squares_CK = (values_KV**2).sum(1)[None] - 2 * values_CV @ values_KV.T
    squares_CK[~is_close_CK[np.ix_(rows, columns)]] = np.inf
    for row, value_V, place in zip(rows, values_CV, squares_CK.argmin(1).tolist(), strict=True):
        rms = float(np.sqrt(((value_V - values_KV[place]) ** 2).mean()))
        if rms < MAX_RMS:
            bits = int(BITS - agreeing_CK[row, columns[place]]) // 2
            yield Pair(evaluated[row].pixels, known[columns[place]].pixels, bits, rms)


def _signs(fingerprints: Sequence[Fingerprint]) -> np.ndarray:
    """(C, B) bits as -1 and 1."""
    return np.stack([one.bits_B for one in fingerprints]).astype(np.float32) * 2 - 1


def _evened(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """(C, V) values of mean 0 and standard deviation 1."""
    values_CV = np.stack(thumbnails).astype(np.float32) / 255
    means, spreads = values_CV.mean(1, keepdims=True), values_CV.std(1, keepdims=True)
    # Of a flat picture brightness is all there is: black is not nearly white.
    return np.asarray((values_CV - means) / np.maximum(spreads, FLAT) + np.where(spreads < FLAT, means, 0))
