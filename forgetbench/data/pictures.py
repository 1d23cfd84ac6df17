"""Read a picture from a folder, a ZIP, a table or memory, and decode it to RGB as a viewer would show it.

Pictures other than plain 8-bit RGB are converted by fixed rules. The camera's orientation (EXIF) is applied.
Transparent pixels are laid over `BACKGROUND`. 16-bit grey is scaled from 0..65535 to 0..255, and 32-bit and float grey
from the picture's least to its greatest value. Of several frames the first is used. Unreadable pictures raise an error
that names them.
"""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from forgetbench.core.errors import UserError, reason
from forgetbench.core.records import ImageRef
from forgetbench.data.item_texts import printable
from forgetbench.data.picture_files import read_file
from forgetbench.data.tables import is_cell, read_cell

MAX_PIXELS = 100_000_000
"""Larger pictures are refused: one file of a public clip-art set has 169 million pixels."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Other formats are refused: Pillow runs other programs for some of them (EPS)."""
BACKGROUND = (255, 255, 255)
"""Colour behind transparent pixels: white, as on web pages."""
_PNG = b"\x89PNG\r\n\x1a\n"
_METADATA_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Chunks of a PNG with texts and colour profiles, which do not change the decoded pixels."""


def read_image(image: ImageRef) -> bytes:
    """The encoded bytes of a picture.

    Raises:
        UserError: it does not exist or cannot be read.
    """
    if image.data is not None:
        return image.data
    if is_cell(image.container):
        return read_cell(image.container, image.name)
    try:
        return read_file(image.container, image.name)
    # RuntimeError: a ZIP with a password or an unknown compression; ValueError: a name with a zero byte.
    except (UserError, OSError, LookupError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"Picture '{image.name}' cannot be read from {image.container} ({error}). "
            "Names are looked up in the manifest's `source.images`."
        ) from error


def count_pixels(image: ImageRef) -> int:
    """Width times height of a picture, from its header; 0 if it cannot be read (decoding will report why)."""
    with suppress(UserError):
        for encoded in _decodable_versions(read_image(image)):
            with suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
                    return opened.width * opened.height
    return 0


def decode_image(image: ImageRef, max_pixels: int | None = None) -> Image.Image:
    """Decode a picture to RGB, shrunk to at most `max_pixels`.

    Raises:
        UserError: it does not exist, is broken, has a format other than `FORMATS`, or is larger than `MAX_PIXELS`.
    """
    encoded = read_image(image)
    message = f"Picture '{image.name}' of {image.container}"
    if not encoded:
        raise UserError(f"{message} is broken: the file is empty.")
    errors: list[Exception] = []
    for candidate in _decodable_versions(encoded):
        try:
            picture = _decode(candidate)
            break
        except Exception as error:  # Pillow raises any of Python's exceptions, also AssertionError
            errors.append(error)
    else:
        raise UserError(f"{message} {_decoding_problem(errors[0])}") from errors[0]
    if max_pixels and picture.width * picture.height > max_pixels:
        factor = (max_pixels / (picture.width * picture.height)) ** 0.5
        picture = picture.resize((max(1, int(picture.width * factor)), max(1, int(picture.height * factor))))
    return picture


def _decodable_versions(encoded: bytes) -> Iterator[bytes]:
    """The picture's bytes, then (for a PNG) the bytes without metadata: Pillow refuses long texts."""
    yield encoded
    if encoded.startswith(_PNG):
        yield b"".join(_without_metadata(encoded))


def _without_metadata(encoded: bytes) -> Iterator[bytes]:
    yield _PNG
    start = len(_PNG)
    while start < len(encoded):
        end = start + 12 + int.from_bytes(encoded[start : start + 4], "big")
        if encoded[start + 4 : start + 8] not in _METADATA_CHUNKS:
            yield encoded[start:end]
        start = end


def _decode(encoded: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures (MAX_PIXELS is the limit here) and of odd metadata
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return _to_rgb(opened)


def _decoding_problem(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"has over {MAX_PIXELS:,} pixels; shrink it first."
    if isinstance(error, UnidentifiedImageError):
        return f"is broken, or of a kind that is not read ({', '.join(FORMATS)} are); convert it first."
    return f"is broken: {printable(reason(error))}."


def _to_rgb(opened: Image.Image) -> Image.Image:
    opened.load()
    with suppress(Exception):  # the pixels may be intact even if the EXIF data are broken
        ImageOps.exif_transpose(opened, in_place=True)
    mode = opened.mode
    if mode.startswith("I;16") or (mode == "I" and opened.format == "PNG"):  # older Pillows: 16-bit PNGs as I
        return _grey_to_rgb(np.asarray(opened, dtype=np.float64) / 65535)
    if mode in ("I", "F"):
        return _grey_to_rgb(_rescale(np.asarray(opened, dtype=np.float64)))
    if opened.has_transparency_data:
        whole = opened.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", whole.size, (*BACKGROUND, 255)), whole).convert("RGB")
    return opened.convert("RGB")


def _rescale(values_HW: np.ndarray) -> np.ndarray:
    """Scale the least to the greatest finite value to 0..1; a constant picture becomes black."""
    finite = np.nan_to_num(values_HW, nan=np.nan, posinf=np.nan, neginf=np.nan)
    if np.isnan(finite).all():
        raise ValueError("it holds no finite value")
    low, high = np.nanmin(finite), np.nanmax(finite)
    return np.asarray(np.nan_to_num((finite - low) / ((high - low) or 1.0)))


def _grey_to_rgb(values_HW: np.ndarray) -> Image.Image:
    """Grey values from 0 to 1 as RGB."""
    return Image.fromarray(np.rint(values_HW * 255).astype(np.uint8)).convert("RGB")
