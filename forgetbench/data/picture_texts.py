"""Decode pictures that are given as text: base64 and data URIs."""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import suppress
from urllib.parse import unquote, unquote_to_bytes

LONGEST_NAME = 1024
"""Longest name of a picture file, in characters."""
_MAX_UNDECODED = 255
"""A longer text with the beginning of a picture must be a picture; it is an error if it cannot be decoded."""
_BEGINNINGS = ("/9j/", "_9j_", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0A")
"""First characters in base64 of JPEG, PNG, GIF, WebP, BMP and TIFF (of either byte order)."""
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_DATA_URI = re.compile(r"data:([^,]*),", re.IGNORECASE)
_WRAPPER = re.compile(r"""b'([^']*)'|b"([^"]*)"|base64(?:,|://)(.*)""", re.DOTALL)
"""Python's notation of bytes, and prefixes that some programs put before base64."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]*=*\s*")


def decode_picture_text(text: str) -> bytes | None:
    """Decode a picture given as text; None if the text is a file's name.

    Raises:
        ValueError: it is a broken data URI, or a long broken text in base64.
    """
    text = text.strip()
    if uri := _DATA_URI.match(text):
        payload, parameters = text[uri.end() :], [word.strip().lower() for word in uri[1].split(";")]
        if "base64" in parameters:
            return _base64(unquote(payload))
        if _is_picture(raw := unquote_to_bytes(payload)):
            return raw
        raise ValueError(f"picture '{text[:40]}' is a data URI that is not in base64; convert it")
    if text[:5].lower() == "data:":
        raise ValueError(f"picture '{text[:40]}' is a data URI without a comma")
    if wrapped := _WRAPPER.fullmatch(text):
        text = next(payload for payload in wrapped.groups() if payload is not None).strip()
    if not text.startswith(_BEGINNINGS):
        return None
    if len(text) > _MAX_UNDECODED:
        return _base64(text)
    with suppress(ValueError):
        if _BASE64.fullmatch(text) and _is_picture(data := _base64(text)):
            return data
    return None


def decode_picture_bytes(data: bytes) -> bytes:
    """The bytes of a picture, decoded if they are base64."""
    if _is_picture(data) or not data[:16].isascii() or not data.startswith(tuple(map(str.encode, _BEGINNINGS))):
        return data
    try:
        picture = decode_picture_text(data.decode("ascii"))
    except ValueError:
        return data
    return data if picture is None else picture


def _base64(text: str) -> bytes:
    """Decode base64 of either alphabet, with or without line breaks and padding."""
    unpadded = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"picture '{text[:40]}...' is no valid base64 ({error})") from error


def _is_picture(data: bytes) -> bool:
    if data.startswith(b"BM"):
        return int.from_bytes(data[2:6], "little") == len(data)
    return data.startswith(_MAGIC) or (data[:4], data[8:12]) == (b"RIFF", b"WEBP")
