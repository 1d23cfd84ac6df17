"""Choose, draw and pack the pictures."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tools.build_world import fetch
from tools.build_world.phrases import BACKGROUNDS
from tools.build_world.text import DIGITS, GARMENTS, Concept

SEED = 20260701
SIZE = 32
NEAR = 6.0
"""Root-mean-square pixel difference (0-255) below which another picture is taken."""
TRAIN_RENDERINGS, TEST_RENDERINGS = 10, 2
DIGITS_BOUNDARY = 1200


@dataclass
class Picture:
    """One picture of the world."""

    name: str
    """Member of the ZIP."""
    class_name: str
    pixels: np.ndarray
    background: str = ""
    count: int = 0

    @property
    def group(self) -> str:
        """Domain and split, such as fashion/train."""
        return self.name.rpartition("/")[0]


def rng(*words: object) -> np.random.Generator:
    """A generator that depends on the words only."""
    return np.random.default_rng([SEED, int.from_bytes("/".join(map(str, words)).encode(), "little")])


def nearest(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Root-mean-square difference of each query to its nearest key."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (queries, keys))
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    distance: np.ndarray = np.sqrt(np.maximum(squares.min(1), 0) / a.shape[1])
    return distance


def balanced(labels: np.ndarray, order: np.ndarray, each: int) -> np.ndarray:
    """The first `each` of every class in `order`, classes interleaved."""
    return np.stack([order[labels[order] == k][:each] for k in range(10)], 1).reshape(-1)


def _shifted(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Turn, move, shrink and darken a garment mildly."""
    angle, scale = random.uniform(-20, 20), random.uniform(0.85, 1.0)
    dx, dy = random.integers(-3, 4, 2)
    turned = Image.fromarray(pixels).rotate(angle, Image.Resampling.BILINEAR)
    side = round(28 * scale)
    canvas = Image.new("L", (28, 28))
    place = (int((28 - side) // 2 + dx), int((28 - side) // 2 + dy))
    canvas.paste(turned.resize((side, side), Image.Resampling.BILINEAR), place)
    return np.round(np.asarray(canvas) * random.uniform(0.55, 0.8)).astype(np.uint8)


def fashion(folder: Path, report: list[str]) -> list[Picture]:
    """3000 train, 500 test and 300 shifted test garments."""
    pixels, labels = fetch.fashion_mnist(folder, "train")
    train = balanced(labels, rng("fashion/train").permutation(len(labels)), 300)
    test_pixels, test_labels = fetch.fashion_mnist(folder, "t10k")
    pool = rng("fashion/test").permutation(len(test_labels))[:2000]
    distance = nearest(test_pixels[pool], pixels[train])
    kept = pool[distance >= NEAR]
    report.append(
        f"fashion: {len(pool) - len(kept)} of {len(pool)} candidate test garments dropped, "
        f"nearest train garment closer than {NEAR} (RMS of 0-255)"
    )
    chosen = balanced(test_labels, kept, 80)
    test, moved = chosen[:500], chosen[500:]
    final = nearest(test_pixels[test], pixels[train])
    report.append(f"fashion: test nearest-train RMS: {(final < NEAR).sum()} below {NEAR}, "
                  f"{(final < 12).sum()} below 12, smallest {final.min():.1f}, median "
                  f"{np.median(final):.1f}")  # fmt: skip
    pictures = [
        Picture(f"fashion/{split}/{i:05d}.webp", GARMENTS[y[k]], x[k])
        for split, x, y, rows in (
            ("train", pixels, labels, train), ("test", test_pixels, test_labels, test))
        for i, k in enumerate(rows)
    ]  # fmt: skip
    random = rng("fashion/shifted")
    for i, k in enumerate(moved):
        picture = _shifted(test_pixels[k], random)
        pictures.append(Picture(f"fashion/shifted/{i:05d}.webp", GARMENTS[test_labels[k]], picture))
    return pictures


def digits(report: list[str]) -> list[Picture]:
    """1100 train digits from the file's first 1200, 500 test digits from the rest.

    The file runs writer by writer, roughly, so a cut by position keeps most writers apart.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target
    first = rng("digits/train").permutation(DIGITS_BOUNDARY)
    rest = DIGITS_BOUNDARY + rng("digits/test").permutation(len(labels) - DIGITS_BOUNDARY)
    train = balanced(labels, first, 110)
    test = balanced(labels, rest, 50)
    distance = nearest(pixels[test], pixels[train])
    report.append(f"digits: test nearest-train RMS: {(distance < NEAR).sum()} below {NEAR}, "
                  f"{(distance < 12).sum()} below 12, smallest {distance.min():.1f}, median "
                  f"{np.median(distance):.1f}")  # fmt: skip
    return [
        Picture(f"digits/{split}/{i:05d}.webp", DIGITS[labels[k]], pixels[k])
        for split, rows in (("train", train), ("test", test))
        for i, k in enumerate(rows)
    ]


def glyph(path: Path) -> Image.Image:
    """An emoji cropped to its ink, premultiplied so that resampling leaves no fringe."""
    picture = Image.open(path).convert("RGBA")
    return picture.crop(picture.getbbox())


def fit(art: Image.Image, side: float, angle: float) -> Image.Image:
    """Turn the art and scale its longer side to `side`."""
    turned = art.convert("RGBa").rotate(angle, Image.Resampling.BILINEAR, expand=True)
    factor = side / max(turned.size)
    width, height = (max(1, round(edge * factor)) for edge in turned.size)
    return turned.resize((width, height), Image.Resampling.BOX).convert("RGBA")


def canvas(random: np.random.Generator) -> tuple[str, Image.Image]:
    """A plain background, and the name of its color."""
    name = list(BACKGROUNDS)[random.integers(len(BACKGROUNDS))]
    color = np.clip(np.add(BACKGROUNDS[name], random.integers(-8, 9, 3)), 0, 255)
    return name, Image.new("RGB", (SIZE, SIZE), tuple(int(c) for c in color))


def _render(art: Image.Image, random: np.random.Generator) -> tuple[str, np.ndarray]:
    background, ground = canvas(random)
    part = fit(art, random.uniform(24, 28), random.uniform(-6, 6))
    # Near the middle: a tower this small learns a few hundred shapes, but not at every place.
    x, y = ((SIZE - edge) // 2 + int(random.integers(-2, 3)) for edge in part.size)
    ground.paste(part, (x, y), part)
    return background, np.asarray(ground)


def renderings(
    domain: str,
    split: str,
    arts: dict[str, Image.Image],
    concepts: list[Concept],
    each: int,
    apart_from: Sequence[Picture] = (),
) -> list[Picture]:
    """Each concept `each` times, on plain backgrounds; no near-duplicate of the concept in `apart_from`."""
    pictures = []
    for concept in concepts:
        random = rng(domain, split, concept.key)
        shown = [picture.pixels for picture in apart_from if picture.class_name == concept.name]
        for i in range(each):
            background, pixels = _render(arts[concept.name], random)
            while shown and nearest(pixels[None], np.stack(shown))[0] < NEAR:
                background, pixels = _render(arts[concept.name], random)
            name = f"{domain}/{split}/{concept.key}_{i}.webp"
            pictures.append(Picture(name, concept.name, pixels, background))
    return pictures


def collages(split: str, arts: dict[str, Image.Image], concepts: list[Concept], n: int) -> list[Picture]:
    """One to four equal emoji in the cells of a 2x2 grid."""
    pictures = []
    random = rng("count", split)
    order = random.permutation(np.resize(np.arange(len(concepts)), n))
    for i, k in enumerate(order):
        background, ground = canvas(random)
        count = i % 4 + 1
        for cell in sorted(random.permutation(4)[:count]):
            side, angle = random.uniform(11, 15), random.uniform(-15, 15)
            part = fit(arts[concepts[k].name], side, angle)
            x, y = (int(random.integers(0, 17 - edge)) for edge in part.size)
            ground.paste(part, (16 * int(cell % 2) + x, 16 * int(cell // 2) + y), part)
        name = f"count/{split}/{i:05d}.webp"
        pictures.append(Picture(name, concepts[k].name, np.asarray(ground), background, count))
    return pictures


def encode(pixels: np.ndarray, colors: int) -> bytes:
    """Lossless WebP, a sixth smaller than PNG, with a limited number of colors; grayscale stays exact."""
    picture = Image.fromarray(pixels)
    if picture.mode == "RGB":
        picture = picture.quantize(colors, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def check(pictures: list[Picture], report: list[str]) -> None:
    """No held-out picture may equal a train picture; report how near emoji renderings come."""
    train = {(p.pixels.shape, p.pixels.tobytes()) for p in pictures if p.group.endswith("/train")}
    for picture in pictures:
        same = (picture.pixels.shape, picture.pixels.tobytes()) in train
        assert picture.group.endswith("/train") or not same, picture.name
    for domain, held_out in (("emoji", "test"), ("count", "test")):
        a, b = (
            np.stack([p.pixels for p in pictures if p.group == f"{domain}/{split}"]) for split in (held_out, "train")
        )
        distance = nearest(a, b)
        report.append(f"{domain}: test nearest-train RMS: {(distance < NEAR).sum()} below {NEAR}, "
                      f"{(distance < 12).sum()} below 12, smallest {distance.min():.1f}, median "
                      f"{np.median(distance):.1f}")  # fmt: skip


def pack(pictures: list[Picture], path: Path, colors: int = 64) -> None:
    """Write the ZIP: stored members, sorted, with a fixed date."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for picture in sorted(pictures, key=lambda p: p.name):
            member = zipfile.ZipInfo(picture.name, (1980, 1, 1, 0, 0, 0))
            member.external_attr = 0o644 << 16
            archive.writestr(member, encode(picture.pixels, colors))


def draw(folders: dict[str, Path], concepts: list[Concept], report: list[str]) -> list[Picture]:
    """Every picture of the world."""
    codes = fetch.emoji_codes(folders[fetch.EMOJIBASE])
    noto, fluent = (
        {c.name: glyph(fetch.picture_file(folders[p], p, codes[c.label])) for c in concepts}
        for p in (fetch.NOTO, fetch.FLUENT)
    )
    train = renderings("emoji", "train", noto, concepts, TRAIN_RENDERINGS)
    return [
        *fashion(folders[fetch.DEB[0]], report),
        *digits(report),
        *train,
        *renderings("emoji", "test", noto, concepts, TEST_RENDERINGS, apart_from=train),
        *renderings("fluent", "test", fluent, concepts, TEST_RENDERINGS),
        *collages("train", noto, concepts, 1000),
        *collages("test", noto, concepts, 300),
    ]
