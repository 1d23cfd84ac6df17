"""Pictures that are texts: base64 as programs write it, and data URIs."""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import suppress
from urllib.parse import unquote, unquote_to_bytes

LONGEST_NAME = 1024
"""Characters of a picture's name; a longer text is no name."""
_LONG = 255
"""Longer texts that begin as pictures do are pictures, and broken ones if they cannot be decoded."""
_BEGINNINGS = ("/9j/", "_9j_", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0A")
"""How JPEG, PNG, GIF, WebP, BMP and TIFF (of either byte order) begin in base64."""
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_DATA_URI = re.compile(r"data:([^,]*),", re.IGNORECASE)
_WRAPPED = re.compile(r"""b'([^']*)'|b"([^"]*)"|base64(?:,|://)(.*)""", re.DOTALL)
"""Python's way of writing bytes, and prefixes that some programs put before base64."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]*=*\s*")


def decoded(text: str) -> bytes | None:
    """The bytes of a picture that a text holds; None of a file's name.

    Raises:
        ValueError: it is a data URI or a long text in base64, and broken.
    """
    text = text.strip()
    if uri := _DATA_URI.match(text):
        held, words = text[uri.end() :], [word.strip().lower() for word in uri[1].split(";")]
        if "base64" in words:
            return _base64(unquote(held))
        if _is_picture(plain := unquote_to_bytes(held)):
            return plain
        raise ValueError(f"picture '{text[:40]}' is a data URI that is not in base64; convert it")
    if text[:5].lower() == "data:":
        raise ValueError(f"picture '{text[:40]}' is a data URI without a comma")
    if wrapped := _WRAPPED.fullmatch(text):
        text = next(held for held in wrapped.groups() if held is not None).strip()
    if not text.startswith(_BEGINNINGS):
        return None
    if len(text) > _LONG:
        return _base64(text)
    with suppress(ValueError):
        if _BASE64.fullmatch(text) and _is_picture(found := _base64(text)):
            return found
    return None


def decoded_bytes(data: bytes) -> bytes:
    """The bytes of a picture, from base64 where they are that."""
    if _is_picture(data) or not data[:16].isascii() or not data.startswith(tuple(map(str.encode, _BEGINNINGS))):
        return data
    try:
        found = decoded(data.decode("ascii"))
    except ValueError:
        return data
    return data if found is None else found


def _base64(text: str) -> bytes:
    """Bytes from base64 of either alphabet, with or without line breaks and padding."""
    held = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(held + "=" * (-len(held) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"picture '{text[:40]}...' is no valid base64 ({error})") from error


def _is_picture(data: bytes) -> bool:
    if data.startswith(b"BM"):
        return int.from_bytes(data[2:6], "little") == len(data)
    return data.startswith(_MAGIC) or (data[:4], data[8:12]) == (b"RIFF", b"WEBP")
