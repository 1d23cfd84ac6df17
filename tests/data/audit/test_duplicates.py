"""Near-duplicates of pictures and of texts: what is told apart, and what is not."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from forgetbench.core.records import AnswerKind, Sample
from forgetbench.data.audit import duplicates
from forgetbench.data.audit.duplicates import (
    Duplicates,
    Fingerprint,
    Pair,
    count_duplicates,
    image_fingerprint,
    nearest_pairs,
)
from forgetbench.data.audit.overlap import TextIndex, answer_words, count_overlap, question_words, questions_and_answers


@cache
def scene(seed: int, side: int = 96) -> Image.Image:
    """Coloured noise with most of its energy in low frequencies, as photographs have."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize((side, side)), np.float64
        )
        / cells
        for cells in (3, 6, 12, 24)
    ]
    summed = np.sum(layers, axis=0)
    return Image.fromarray(np.uint8(255 * (summed - summed.min()) / np.ptp(summed)))


def recompressed(picture: Image.Image) -> Image.Image:
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=40)
    return Image.open(held).convert("RGB")


def cropped(picture: Image.Image, margin: int) -> Image.Image:
    return picture.crop((margin, margin, picture.width - margin, picture.height - margin))


def pairs(evaluated: list[Image.Image], known: list[Image.Image]) -> list[Pair]:
    return list(nearest_pairs(map(image_fingerprint, evaluated), map(image_fingerprint, known)).values())


@pytest.mark.parametrize(
    "change",
    [
        recompressed,
        lambda picture: picture.resize((60, 60)),
        lambda picture: picture.resize((200, 190)),
        lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
        lambda picture: ImageEnhance.Contrast(picture).enhance(0.7),
        lambda picture: cropped(picture, 2),
    ],
)
def test_a_changed_copy_is_found_and_nothing_else(change: Callable[[Image.Image], Image.Image]) -> None:
    known = [scene(seed) for seed in range(40)]
    matches = pairs([change(original) for original in known[:15]], known)
    wanted = [
        (image_fingerprint(change(original)).pixels, image_fingerprint(original).pixels) for original in known[:15]
    ]
    assert [(pair.evaluated, pair.known) for pair in matches] == wanted


@pytest.mark.parametrize(
    "change", [ImageOps.mirror, ImageOps.flip, ImageOps.invert, lambda picture: cropped(picture, 24)]
)
def test_what_shows_something_else_is_no_copy(change: Callable[[Image.Image], Image.Image]) -> None:
    known = [scene(seed) for seed in range(15)]
    assert pairs([change(picture) for picture in known], known) == []


def test_the_same_shape_in_another_color_is_no_copy() -> None:
    red, blue = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64), "white")
    red.paste("red", (16, 16, 48, 40))
    blue.paste("blue", (16, 16, 48, 40))
    assert pairs([red], [blue]) == []


def test_flat_pictures_are_told_apart_by_their_brightness() -> None:
    white, black, nearly = (Image.new("RGB", (64, 64), color) for color in ("white", "black", (254, 254, 254)))
    assert pairs([black], [white]) == []
    assert len(pairs([nearly], [white])) == 1


def test_identical_pictures_are_told_by_their_pixels_and_counted_apart_from_near_ones() -> None:
    matches = pairs(
        [scene(1), scene(1), recompressed(scene(2)), scene(3)], [recompressed(scene(1)), scene(1), scene(2)]
    )
    assert [(pair.is_identical, pair.bits) for pair in matches][:1] == [(True, 0)]
    assert matches[0].rms == 0
    assert count_duplicates(matches) == Duplicates(identical=1, near=1)
    assert image_fingerprint(scene(1)).pixels != image_fingerprint(scene(1, 97)).pixels


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [scene(seed, 48) for seed in range(20)]
    shown = [recompressed(picture) for picture in known]
    whole = {(pair.evaluated, pair.known) for pair in pairs(shown, known)}
    monkeypatch.setattr(duplicates, "CHUNK", 3)
    monkeypatch.setattr(duplicates, "KNOWN_CHUNK", 7)
    assert {(pair.evaluated, pair.known) for pair in pairs(shown, known)} == whole
    assert len(whole) >= 20


@pytest.mark.parametrize("chunk", [2, 100])
def test_of_many_look_alikes_the_nearest_is_named(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "KNOWN_CHUNK", chunk)
    known = [cropped(scene(0), 2), ImageEnhance.Contrast(scene(0)).enhance(0.99), scene(0).resize((60, 60)), scene(1)]
    (pair,) = pairs([scene(0)], known)
    assert pair.known == image_fingerprint(known[1]).pixels


def test_a_distance_is_the_same_whatever_else_is_compared() -> None:
    asked, copy = scene(0), recompressed(scene(0))
    (single,) = pairs([asked], [copy])
    among = pairs([scene(seed) for seed in range(9)], [recompressed(scene(seed)) for seed in range(9)])
    assert among[0] == single


@pytest.mark.slow
def test_twenty_thousand_pictures_are_compared_with_as_many_in_seconds() -> None:
    rng = np.random.default_rng(0)
    known = [
        Fingerprint(rng.bytes(32), rng.random(64) < 0.5, rng.integers(0, 256, 768, dtype=np.uint8))
        for _ in range(20_000)
    ]
    copies = [Fingerprint(rng.bytes(32), fingerprint.bits_B, fingerprint.thumbnail_V) for fingerprint in known]
    assert len(nearest_pairs(copies, known)) == 20_000


# Texts.


def lettered(question: str, options: tuple[str, ...], answer: str) -> Sample:
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABC", options, strict=False))
    return Sample.question("0", f"{question}\n{listed}", answer, AnswerKind.letter, options=options)


def test_options_case_and_punctuation_are_no_part_of_a_question() -> None:
    first, second = lettered("What is it?", ("cat", "dog"), "A"), lettered("what is  it", ("owl", "Cat!"), "B")
    assert question_words(first) == question_words(second) == "what is it"
    assert answer_words(first) == answer_words(second) == "cat"


LONG = "which of the four people in the front row wears a hat made of straw"


@pytest.mark.parametrize(
    ("question", "answer", "counts"),
    [
        (LONG, "anna", (1, 1, 0)),
        (LONG, "bert", (1, 0, 0)),
        (LONG.replace("which", "tell me which"), "anna", (0, 0, 1)),
        (LONG.replace("row", "line"), "anna", (0, 0, 0)),
        ("who wears a hat", "anna", (0, 0, 0)),
        ("", "anna", (0, 0, 0)),
    ],
)
def test_questions_are_the_same_or_share_most_of_their_runs_of_words(
    question: str, answer: str, counts: tuple[int, int, int]
) -> None:
    known = TextIndex([(LONG, "anna"), ("who has a hat", "anna")])
    counted = count_overlap([(question, answer)], known)
    assert (counted.items, counted.questions, counted.answered, counted.near) == (1, *counts)


def test_a_training_set_without_items_shares_nothing() -> None:
    counted = count_overlap(
        [*questions_and_answers(lettered("What is it?", ("cat", "dog"), "A")), ("", "")], TextIndex([])
    )
    assert (counted.questions, counted.near) == (0, 0)
