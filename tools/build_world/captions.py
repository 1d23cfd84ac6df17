"""Captions with several references, as CIDEr-D wants them: people who describe one picture say different things."""

from __future__ import annotations

import numpy as np

from tools.build_world import phrases
from tools.build_world.images import Picture
from tools.build_world.items import Row, Writer, brightness
from tools.build_world.text import article

QUESTIONS = phrases.CAPTION[:2]
"""Those of emoji_caption that ask for nothing in particular."""
REFERENCES = 5
"""Of a test item, as in COCO."""

_ANY = (
    "{thing} on a {background} background.",
    "a picture of {thing} on a {background} background.",
    "{thing} in front of a {background} background.",
    "the picture shows {thing} on {background}.",
    "{background} background, with {thing} in the middle.",
)
_GARMENT = (
    *_ANY,
    "a photo of {thing}, seen from the {side}.",
    "{thing} {use}.",
    "{plain} in a {shade} shade, {use}.",
)
_USES = {
    **dict.fromkeys(("t-shirt", "pullover", "shirt", "coat"), "worn on the upper body"),
    **dict.fromkeys(("sandal", "sneaker", "boot"), "worn on the feet"),
    "trousers": "worn on the legs", "dress": "worn on the whole body", "bag": "made to hold things",
}  # fmt: skip
_SHOES = ("sandal", "sneaker", "boot")
"""Fashion-MNIST shows them from the side, all else from the front; its backgrounds are black."""
_SHADES = ("dark", "gray", "bright")


def _shade(writer: Writer, picture: Picture, bounds: np.ndarray) -> str:
    """Dark, gray or bright; between two of them either, as two people might see it."""
    place = int(np.searchsorted(bounds, brightness(picture)))
    return writer.choice(_SHADES[place // 2 : place // 2 + 1 + place % 2])  # type: ignore[no-any-return]


def _garment(writer: Writer, picture: Picture, bounds: np.ndarray, template: str) -> str:
    name, shade = picture.class_name, _shade(writer, picture, bounds)
    thing = f"{shade} {name}" if article(name) == name else f"a {shade} {name}"
    side = "side" if name in _SHOES else "front"
    return template.format(
        thing=thing, plain=article(name), shade=shade, use=_USES[name], side=side, background="black"
    )


def garments(writer: Writer, pictures: list[Picture], bounds: np.ndarray) -> list[Row]:
    """A caption of each garment to train on, or `REFERENCES` of them to test with.

    Args:
        writer: the split's writer.
        pictures: one item is written for each.
        bounds: gray values between dark, unclear, gray, unclear and bright.
    """
    n = 1 if writer.split == "train" else REFERENCES
    for picture in pictures:
        captions = [_garment(writer, picture, bounds, template) for template in writer.sample(list(_GARMENT), n)]
        fields = {"class_name": picture.class_name, "concept": picture.class_name}
        writer.add(picture.name, writer.choice(QUESTIONS), captions, **fields)
    return writer.finish()


def with_references(name: str, rows: list[Row], backgrounds: dict[str, str]) -> list[Row]:
    """emoji_caption's items, each with a reference of every kind.

    Args:
        name: the new set.
        rows: the items.
        backgrounds: picture -> color of its background.
    """
    return [
        {
            **row,
            "id": row["id"].replace("emoji_caption", name),
            "answer": [
                template.format(thing=article(row["class_name"]), background=backgrounds[row["image"]])
                for template in _ANY
            ],
        }
        for row in rows
    ]
