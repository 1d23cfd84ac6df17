"""Small copies of the pictures that the flip explorer shows, as data URIs."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from forgetbench.core.errors import UserError
from forgetbench.core.records import PROBE_SUFFIX, ImageRef
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.pictures import decode_image
from forgetbench.data.sources import load_samples
from forgetbench.reporting.contents import Flip
from forgetbench.terminal.console import say

SIDE = 144
"""Longest side in pixels; smaller pictures are kept as they are."""
BUDGET = 2_500_000
"""Characters of all data URIs: a page of 5 MB holds them beside its scripts."""
_QUALITY = 70


def thumbnails(flips: Sequence[Flip], catalogue: Catalogue) -> tuple[dict[str, str], list[Flip]]:
    """Data URIs by key, and the flips with the key of their picture, which is empty if it cannot be shown."""
    wanted = defaultdict(set)
    for flip in flips:
        wanted[flip.dataset.removesuffix(PROBE_SUFFIX)].add(flip.sample_id)
    images = {name: _images(name, ids, catalogue) for name, ids in sorted(wanted.items())}
    uris: dict[str, str] = {}
    shown, spent, dropped = [], 0, 0
    for flip in flips:
        image = images[flip.dataset.removesuffix(PROBE_SUFFIX)].get(flip.sample_id)
        key = flip.image or f"{flip.dataset}/{flip.sample_id}"
        if image is not None and key not in uris and spent < BUDGET:
            uris[key] = _uri(image) or ""
            spent += len(uris[key])
        dropped += image is not None and key not in uris
        shown.append(replace(flip, image=key if uris.get(key) else ""))
    if dropped:
        say(f"{dropped} flips show no picture: those before them fill the {BUDGET / 1e6:g} MB for pictures (--flips).")
    return {key: uri for key, uri in uris.items() if uri}, shown


def _images(name: str, ids: set[str], catalogue: Catalogue) -> Mapping[str, ImageRef]:
    """The first picture of each item."""
    try:
        manifest = catalogue.load(name)
        if not manifest.eval_split:
            return {}
        samples = load_samples(manifest, manifest.eval_split)
    except (UserError, OSError) as error:
        say(f"No pictures of {name}: {error}")
        return {}
    return {sample.id: sample.images[0] for sample in samples if sample.id in ids and sample.images}


def _uri(image: ImageRef) -> str | None:
    try:
        picture = decode_image(image)
    except UserError as error:
        say(f"Without a picture: {error}")
        return None
    small = max(picture.size) <= SIDE
    picture.thumbnail((SIDE, SIDE))
    png, webp = io.BytesIO(), io.BytesIO()
    picture.save(webp, "webp", quality=_QUALITY)
    if small:
        picture.save(png, "png", optimize=True)
    kind, content = "webp", webp.getvalue()
    if small and len(png.getvalue()) <= len(content):
        kind, content = "png", png.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
