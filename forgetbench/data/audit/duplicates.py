"""Find identical and nearly identical pictures among tens of thousands.

Two pictures are identical if their sizes and RGB values are equal. They are near-duplicates if their perceptual hashes
differ in at most `MAX_BITS` of 64 bits and their thumbnails, standardised in brightness and contrast, differ by less
than `MAX_RMS`. The hash is the DCT hash of Zauner (2010), "Implementation and benchmarking of perceptual image hash
functions": each bit says whether one of the 8x8 lowest frequencies of the 32x32 grey picture, without the constant
frequencies, is above their median. It tolerates recompression, rescaling and changes of brightness, but not mirroring,
rotation, or cropping by more than a few per cent.

All pairs of hashes are compared: 20,000 with 20,000 take 2 s on one core, and 20 s if all hashes are close.
Shapes: C pictures of a chunk, K known pictures, B = 64 bits, V = 16 x 16 x 3 values of a thumbnail.
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
"""Standard deviation of values in 0..1 below which contrast is not amplified, because it would be noise."""
CHUNK, KNOWN_CHUNK = 256, 8192
"""Pictures compared at a time, which bounds memory."""
_HASHED, _THUMBNAIL = (32, 32), (16, 16)


@dataclass(frozen=True)
class Fingerprint:
    """The features of a picture that are compared."""

    pixels: bytes
    """Digest of size and RGB values."""
    bits_B: np.ndarray
    """Perceptual hash, bool."""
    thumbnail_V: np.ndarray
    """RGB values, uint8."""


@dataclass(frozen=True)
class Pair:
    """An evaluation picture and a training picture that are identical or nearly identical."""

    evaluated: bytes
    """`Fingerprint.pixels` of the evaluation picture."""
    known: bytes
    """`Fingerprint.pixels` of the training picture."""
    bits: int
    """Number of differing bits of 64."""
    rms: float
    """Root mean square difference of the standardised thumbnails."""

    @property
    def is_identical(self) -> bool:
        """Whether every pixel is the same."""
        return self.evaluated == self.known


@dataclass(frozen=True)
class Duplicates:
    """Number of evaluation pictures that are among training pictures."""

    identical: int
    near: int
    """Near-duplicates, identical ones not counted."""


class Fingerprints:
    """Caches fingerprints, so that a picture in several datasets is decoded once."""

    def __init__(self) -> None:
        """Start empty."""
        self._seen: dict[tuple[str, str], Fingerprint] = {}

    def by_digest(self) -> dict[bytes, Fingerprint]:
        """All cached fingerprints, by `Fingerprint.pixels`."""
        return {fingerprint.pixels: fingerprint for fingerprint in self._seen.values()}

    def get(self, image: ImageRef) -> Fingerprint:
        """The fingerprint of a picture.

        Raises:
            UserError: it cannot be read.
        """
        key = (image.container, image.name)
        if key not in self._seen:
            self._seen[key] = image_fingerprint(decode_image(image))
        return self._seen[key]


def image_fingerprint(picture: Image.Image) -> Fingerprint:
    """Compute the fingerprint of an RGB picture."""
    grey = np.asarray(picture.convert("L").resize(_HASHED, Image.Resampling.BILINEAR), dtype=np.float64)
    low_B = dctn(grey, norm="ortho")[1:9, 1:9].ravel()
    thumbnail = np.asarray(picture.resize(_THUMBNAIL, Image.Resampling.BILINEAR))
    pixels = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).digest()
    return Fingerprint(pixels, low_B > np.median(low_B), thumbnail.ravel())


def nearest_pairs(evaluated: Iterable[Fingerprint], known: Iterable[Fingerprint]) -> dict[bytes, Pair]:
    """Find the nearest known picture of each evaluation picture that has an identical or near-duplicate known picture.

    Returns:
        `Fingerprint.pixels` of the evaluation picture -> pair; identical pictures have distance 0.
    """
    evaluated_by_pixels = {fingerprint.pixels: fingerprint for fingerprint in evaluated}
    known_by_pixels = {fingerprint.pixels: fingerprint for fingerprint in known}
    pairs = {pixels: Pair(pixels, pixels, 0, 0.0) for pixels in evaluated_by_pixels if pixels in known_by_pixels}
    others, candidates = (
        [fingerprint for fingerprint in evaluated_by_pixels.values() if fingerprint.pixels not in known_by_pixels],
        list(known_by_pixels.values()),
    )
    for first in range(0, len(candidates), KNOWN_CHUNK):
        for start in range(0, len(others), CHUNK):
            for pair in _near_pairs(others[start : start + CHUNK], candidates[first : first + KNOWN_CHUNK]):
                if pair.evaluated not in pairs or pair.rms < pairs[pair.evaluated].rms:
                    pairs[pair.evaluated] = pair
    return pairs


def count_duplicates(pairs: Iterable[Pair]) -> Duplicates:
    """Count identical pairs and near-duplicates."""
    are_identical = [pair.is_identical for pair in pairs]
    return Duplicates(sum(are_identical), len(are_identical) - sum(are_identical))


def _near_pairs(evaluated: Sequence[Fingerprint], known: Sequence[Fingerprint]) -> Iterator[Pair]:
    """Pair each evaluation picture that has near-duplicates with the nearest one."""
    agreeing_CK = _signs(evaluated) @ _signs(known).T  # equal bits minus differing bits
    is_close_CK = agreeing_CK >= BITS - 2 * MAX_BITS
    # Few hashes are close to another hash; only their thumbnails are compared.
    rows, columns = np.flatnonzero(is_close_CK.any(1)).tolist(), np.flatnonzero(is_close_CK.any(0)).tolist()
    if not rows:
        return
    values_CV = _standardised([evaluated[row].thumbnail_V for row in rows])
    values_KV = _standardised([known[column].thumbnail_V for column in columns])
    # Squared distances, without the term that is the same for all known pictures.
    squares_CK = (values_KV**2).sum(1)[None] - 2 * values_CV @ values_KV.T
    squares_CK[~is_close_CK[np.ix_(rows, columns)]] = np.inf
    for row, value_V, place in zip(rows, values_CV, squares_CK.argmin(1).tolist(), strict=True):
        rms = float(np.sqrt(((value_V - values_KV[place]) ** 2).mean()))
        if rms < MAX_RMS:
            bits = int(BITS - agreeing_CK[row, columns[place]]) // 2
            yield Pair(evaluated[row].pixels, known[columns[place]].pixels, bits, rms)


def _signs(fingerprints: Sequence[Fingerprint]) -> np.ndarray:
    """(C, B) bits as -1 and 1."""
    return np.stack([fingerprint.bits_B for fingerprint in fingerprints]).astype(np.float32) * 2 - 1


def _standardised(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """(C, V) values of mean 0 and standard deviation 1."""
    values_CV = np.stack(thumbnails).astype(np.float32) / 255
    means, spreads = values_CV.mean(1, keepdims=True), values_CV.std(1, keepdims=True)
    # Keep the brightness of flat pictures, so that black and white ones differ.
    return np.asarray((values_CV - means) / np.maximum(spreads, FLAT) + np.where(spreads < FLAT, means, 0))
