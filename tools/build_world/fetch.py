"""Fetch the raw packages, by name and version, into a cache folder and unpack them."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np

DEB = ("dataset-fashion-mnist", "0.0~git20200523.55506a9-1", "all")
NPM = (
    ("emoji-datasource-google", "16.0.0"),
    ("@lobehub/fluent-emoji-3d", "1.1.0"),
    ("emojibase-data", "17.0.0"),
)
NOTO, FLUENT, EMOJIBASE = (name for name, _ in NPM)
GROUPS = (3, 4, 5, 6, 7, 9)
"""Emojibase's groups of objects: animals and nature, food, travel, activities, objects, flags."""


def _run(command: list[str], cache: Path) -> None:
    subprocess.run(command, cwd=cache, check=True, stdout=subprocess.DEVNULL)


def _deb(cache: Path) -> Path:
    name, version, architecture = DEB
    package = cache / f"{name}_{version}_{architecture}.deb"
    if not package.exists():
        _run(["apt-get", "download", f"{name}={version}"], cache)
    folder = cache / "unpacked" / name
    if not folder.exists():
        _run(["dpkg-deb", "-x", package.name, str(folder.relative_to(cache))], cache)
    return folder


def _npm(cache: Path, name: str, version: str) -> Path:
    stem = name.removeprefix("@").replace("/", "-")
    package = cache / f"{stem}-{version}.tgz"
    if not package.exists():
        _run(["npm", "pack", "--silent", f"{name}@{version}"], cache)
    folder = cache / "unpacked" / stem
    if not folder.exists():
        with tarfile.open(package) as archive:
            archive.extractall(folder, filter="data")
    return folder / "package"


def fetch(cache: Path) -> dict[str, Path]:
    """Download what the cache lacks.

    Args:
        cache: folder of the packages as downloaded; they are unpacked below it.

    Returns:
        Package name -> its unpacked folder.
    """
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "unpacked").mkdir(exist_ok=True)
    return {DEB[0]: _deb(cache), **{name: _npm(cache, name, version) for name, version in NPM}}


def fashion_mnist(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 28, 28) and class numbers of `train` or `t10k`."""
    data = folder / "usr/share/datasets/fashion-mnist"
    with gzip.open(data / f"{split}-images-idx3-ubyte.gz") as handle:
        pictures = np.frombuffer(handle.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(data / f"{split}-labels-idx1-ubyte.gz") as handle:
        labels = np.frombuffer(handle.read(), np.uint8, offset=8)
    return pictures, labels


def emoji_codes(folder: Path) -> dict[str, str]:
    """Emojibase's English label -> lower-case code points, for emoji of objects and flags."""
    rows = json.loads((folder / "en/data.json").read_text(encoding="utf-8"))
    return {row["label"]: row["hexcode"].lower() for row in rows if row.get("group") in GROUPS}


def picture_file(folder: Path, package: str, code: str) -> Path:
    """The picture of a code point in Noto's or Fluent's package."""
    pattern = "img/google/64/{}.png" if package == NOTO else "assets/{}.webp"
    for candidate in (code, f"{code}-fe0f"):
        path = folder / pattern.format(candidate)
        if path.exists():
            return path
    raise FileNotFoundError(f"{package}: no picture of {code}")


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
