"""Hard distractors: wrong classes that the picture might be taken for."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression

from tools.build_world.images import Picture
from tools.build_world.text import Concept

TOP = 5
"""Distractors are sampled from this many of the likeliest wrong classes."""
NEIGHBORS = 8
FOLDS = 3


def _model(x: np.ndarray, y: np.ndarray) -> LogisticRegression:
    return LogisticRegression(C=0.05, tol=0.01, max_iter=500).fit(x, y)


def _features(pictures: list[Picture]) -> np.ndarray:
    return np.stack([p.pixels.reshape(-1) for p in pictures]).astype(np.float64) / 255


def ranked(
    train: list[Picture], others: list[Picture], classes: tuple[str, ...]
) -> tuple[dict[str, list[str]], np.ndarray, float]:
    """Rank the wrong classes of every picture by a linear classifier's probability.

    Train pictures are scored by a classifier that has not seen them; the others by one fitted to
    all train pictures. (The paper ranks by CLIP similarity.)

    Returns:
        Picture name -> its `TOP` likeliest wrong classes; mean probability of each class given
        the true class (rows) on train pictures; the out-of-fold accuracy.
    """
    x = _features(train)
    y = np.array([classes.index(p.class_name) for p in train])
    scores = np.zeros((len(train), len(classes)))
    fold = np.arange(len(train)) // len(classes) % FOLDS
    for k in range(FOLDS):
        scores[fold == k] = _model(x[fold != k], y[fold != k]).predict_proba(x[fold == k])
    confusion = np.stack([scores[y == k].mean(0) for k in range(len(classes))])
    accuracy = float((scores.argmax(1) == y).mean())
    scores = np.concatenate([scores, _model(x, y).predict_proba(_features(others))])
    tops = {
        p.name: [classes[k] for k in np.argsort(-s) if classes[k] != p.class_name][:TOP]
        for p, s in zip([*train, *others], scores, strict=True)
    }
    return tops, confusion, accuracy


def _signature(art: Image.Image) -> np.ndarray:
    """Coarse layout and color histogram of an emoji on gray."""
    canvas = Image.new("RGB", art.size, (128, 128, 128))
    canvas.paste(art, (0, 0), art)
    small = np.asarray(canvas.resize((8, 8), Image.Resampling.BOX), np.float64) / 255
    full = np.asarray(canvas.resize((32, 32), Image.Resampling.BOX)).reshape(-1, 3) // 64
    histogram = np.bincount(full @ np.array([16, 4, 1]), minlength=64) / len(full)
    return np.concatenate([small.reshape(-1) / 4, np.sqrt(histogram)])


def neighbors(arts: dict[str, Image.Image], concepts: list[Concept]) -> dict[str, list[str]]:
    """Concept -> the most similar concepts of its category."""
    signatures = np.stack([_signature(arts[c.name]) for c in concepts])
    distance = np.square(signatures[:, None] - signatures[None]).sum(-1)
    category = np.array([c.category for c in concepts])
    distance[category[:, None] != category[None]] = np.inf
    np.fill_diagonal(distance, np.inf)
    rank = distance.argsort(1, kind="stable").argsort(1, kind="stable")
    # Both directions count, so that no concept is everyone's neighbor or nobody's.
    mutual = np.where(np.isinf(distance), np.inf, rank + rank.T)
    nearest = {}
    for i, concept in enumerate(concepts):
        order = [k for k in mutual[i].argsort(kind="stable") if np.isfinite(mutual[i, k])]
        nearest[concept.name] = [concepts[k].name for k in order[:NEIGHBORS]]
        assert len(nearest[concept.name]) >= 3
    return nearest
