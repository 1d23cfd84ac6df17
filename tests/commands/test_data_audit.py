"""`data audit`: planted copies, texts and false claims are found and shown; a clean world passes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageEnhance

from forgetbench.commands.data_audit import data_audit
from forgetbench.commands.data_check import data_check
from forgetbench.config import FinetuneConfig
from forgetbench.data.catalogue import Catalogue
from forgetbench.reporting.leaks import leak_rows

Items = list[tuple[str, str, str]]
"""Picture, question and answer of each."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write sets of the given splits, with pictures 0.png to 39.png of their own to choose from."""
    monkeypatch.chdir(tmp_path)
    for place in range(40):
        coarse = np.random.default_rng(place).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(tmp_path / f"{place}.png")

    def written(name: str, domain: str, task: str, **splits: Items) -> None:
        for split, items in splits.items():
            rows = [{"image": image or None, "question": asked, "answer": answer} for image, asked, answer in items]
            Path(f"{name}_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = {split: {"files": [f"{name}_{split}.jsonl"]} for split in splits}
        held = {"source": {}, "splits": files, "image_domains": [domain], "text_tasks": [task]}
        Path(f"{name}.yaml").write_text(yaml.safe_dump(held))

    return written


World = Callable[..., None]


@pytest.fixture
def audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[bool, list[dict[str, Any]]]]:
    """Whether the sets named pass, and the rows."""

    def audited(*names: str) -> tuple[bool, list[dict[str, Any]]]:
        sound = data_audit(FinetuneConfig(manifests=[str(tmp_path)]), names, as_json=True)
        return sound, json.loads(capsys.readouterr().out)

    return audited


Audit = Callable[..., tuple[bool, list[dict[str, Any]]]]


def items(first: int, last: int, question: str = "What is it?") -> Items:
    return [(f"{place}.png", question, f"thing {place}") for place in range(first, last)]


def test_sets_that_share_nothing_pass(world: World, audit: Audit) -> None:
    world("mine", "photos", "naming", train=items(0, 10), test=items(10, 20, "Which one?"))
    assert audit("mine") == (True, [])
    assert Path("outputs/audit/sets.csv").read_text().startswith("training,evaluation,pictures,identical,near,")
    assert not Path("outputs/audit/contact_sheet.png").exists()


def test_a_copied_picture_fails_and_stands_on_the_sheet_and_in_the_file(world: World, audit: Audit) -> None:
    world("mine", "photos", "naming", train=items(0, 10), test=items(10, 20, "Which one?"))
    Image.open("3.png").save("13.png", compress_level=0)
    sound, (row,) = audit("mine")
    assert not sound
    assert (row["pictures"], row["identical"], row["near"], row["same_item"]) == (10, 1, 0, 0)
    assert Path("outputs/audit/sets.csv").read_text().splitlines()[1] == "mine:train,mine:test,10,1,0,10,0,0,0,0,"
    with Path("outputs/audit/pictures.csv").open() as file:
        (pair,) = csv.DictReader(file)
    assert (pair["training_picture"], pair["evaluation_picture"], pair["identical"]) == ("3.png", "13.png", "True")
    sheet = Image.open("outputs/audit/contact_sheet.png").convert("RGB")
    assert sheet.getpixel((8 + 64, 8 + 64)) == sheet.getpixel((16 + 128 + 64, 8 + 64)) != (255, 255, 255)


def test_a_nearly_copied_picture_is_counted_and_does_not_fail(world: World, audit: Audit) -> None:
    world("mine", "photos", "naming", train=items(0, 10), test=items(10, 20, "Which one?"))
    Image.open("3.png").resize((96, 96)).save("13.png")
    sound, (row,) = audit("mine")
    assert sound
    assert (row["identical"], row["near"]) == (0, 1)


def test_audit_check_and_report_count_the_same_pictures(
    world: World, audit: Audit, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    world("mine", "photos", "naming", train=items(0, 10))
    world("other", "photos", "naming", test=[*items(10, 20, "Which one?"), ("copy.png", "And this?", "thing")])
    Image.open("3.png").save("13.png", compress_level=0)
    Image.open("3.png").save("copy.png")  # of one picture under two names, one is counted
    ImageEnhance.Brightness(Image.open("4.png")).enhance(0.6).save("14.png")
    same_grey = np.asarray(Image.open("5.png").convert("L"))
    Image.fromarray(np.stack([same_grey] * 3, 2)).save("15.png")  # the same but for its colours is another picture
    _, (row,) = audit("mine", "other")
    assert not data_check(FinetuneConfig(manifests=[str(tmp_path)]), ["mine", "other"], as_json=True)
    checked = json.loads(capsys.readouterr().out)[1]
    (leak,) = leak_rows(("mine",), ("other",), Catalogue([tmp_path]))
    assert (row["pictures"], row["identical"], row["near"]) == (10, 1, 1)
    assert checked["in_training"] == {"identical": 1, "near": 1}
    assert (leak.n_pictures, leak.identical, leak.near) == (10, 1, 1)


def test_a_copy_in_one_set_is_found_however_many_nearer_ones_another_set_has(world: World, audit: Audit) -> None:
    picture = Image.open("0.png")
    names = [f"copy{place}.png" for place in range(120)]
    for place, name in enumerate(names):
        pixels = np.asarray(picture).copy()
        pixels[0, place % 48, place % 3] ^= 1 + place // 48
        Image.fromarray(pixels).save(name)
    picture.resize((30, 30)).save("smaller.png")
    world("many", "photos", "naming", train=[(name, "What is it?", "thing") for name in names])
    world("one", "photos", "naming", train=[("smaller.png", "What is it?", "thing")])
    world("scored", "photos", "naming", test=items(0, 1, "Which one?"))
    _, rows = audit("many", "one", "scored")
    assert [(row["training"], row["near"]) for row in rows] == [("many:train", 1), ("one:train", 1)]


def test_a_text_only_item_that_is_trained_on_fails(world: World, audit: Audit) -> None:
    world(
        "mine", "text", "facts", train=[("", "One and one?", "two")], test=[("", "One AND one", "Two"), ("", "?", "x")]
    )
    sound, (row,) = audit("mine")
    assert not sound
    assert (row["pictures"], row["identical"], row["same_item"], row["same_question_and_answer"]) == (None, None, 1, 1)


def test_a_question_inside_a_conversation_that_is_trained_on_is_found(world: World, audit: Audit) -> None:
    world("mine", "photos", "naming", train=[], test=[("1.png", "What is it?", "thing 1"), ("2.png", "Why?", "so")])
    context = [("system", "Answer."), ("user", "WHAT is <image> it"), ("assistant", "Thing 1."), ("user", "Why not?")]
    turns = [{"role": role, "content": text} for role, text in [*context, ("assistant", "So.")]]
    Path("mine_train.jsonl").write_text(json.dumps({"messages": turns, "images": ["1.png"]}))
    sound, (row,) = audit("mine")
    assert not sound
    assert (row["items"], row["same_item"], row["same_question"]) == (2, 1, 1)


def test_the_same_question_of_other_pictures_is_no_leak(world: World, audit: Audit) -> None:
    world("mine", "photos", "naming", train=items(0, 10), test=items(10, 20))
    sound, (row,) = audit("mine")
    assert sound
    assert (row["same_question"], row["same_question_and_answer"], row["same_item"]) == (10, 0, 0)


def test_pictures_that_are_called_another_domain_contradict_the_claim(world: World, audit: Audit) -> None:
    world("target", "photos", "naming", train=items(0, 20))
    world("other", "paintings", "counting", test=items(30, 40, "How many?"))
    for place in (30, 31):
        Image.open(f"{place - 30}.png").resize((64, 64)).save(f"{place}.png")
    sound, (row,) = audit("target", "other")
    assert not sound
    assert row["contradictions"] == [
        "image is called OOD, but 20% of its pictures are training pictures, exactly or nearly"
    ]
    world("other", "photos", "counting", test=items(30, 40, "How many?"))
    assert audit("target", "other")[0]


def test_texts_that_are_called_another_task_contradict_the_claim(world: World, audit: Audit) -> None:
    asked = [(f"{place}.png", "Is it a star?", "yes" if place % 2 else "no") for place in range(30)]
    world("target", "photos", "stars", train=asked[:10])
    world("other", "photos", "moons", test=asked[20:])
    sound, (row,) = audit("target", "other")
    assert not sound
    assert row["contradictions"] == ["text is called OOD, but 100% of its questions and answers are in training"]


def test_a_mixture_is_compared_as_its_parts(world: World, audit: Audit) -> None:
    world("part", "photos", "naming", train=items(0, 10))
    world("scored", "photos", "naming", test=items(5, 15, "Which one?"))
    mixed = {"mixture": {"part": 1.0}, "image_domains": ["photos"], "text_tasks": ["naming"]}
    Path("blend.yaml").write_text(yaml.safe_dump(mixed))
    _, (row,) = audit("blend", "scored")
    assert (row["training"], row["evaluation"], row["identical"]) == ("part:train", "scored:test", 5)


@pytest.mark.slow
def test_the_embedded_world_holds_no_leak_and_no_false_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert data_audit(FinetuneConfig(manifests=[]), [], as_json=False)
