"""The embedded conversations: what general_turns asks is true of its pictures, and needs the turn before."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from forgetbench.compose import compose
from forgetbench.config import FinetuneConfig
from forgetbench.core.paths import EMBEDDED, shipped
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.sources import load_samples
from forgetbench.training.plan import plan_stages
from tools.build_world.images import Picture
from tools.build_world.phrases import BACKGROUNDS
from tools.build_world.text import DIGITS, GARMENTS, Concept, read_concepts
from tools.build_world.turns import SHARED, THINGS, Topic, turn_sets

WORLD = EMBEDDED / "world"
SPLITS = ("train", "test")
RENDERINGS = {"train": 10, "test": 2}
Message = dict[str, str]


@cache
def items(name: str, split: str) -> list[dict[str, Any]]:
    with gzip.open(WORLD / f"items/{name}.{split}.jsonl.gz", "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def texts_of(row: dict[str, Any], role: str) -> list[str]:
    return [message["content"].removeprefix("<image>") for message in row["messages"] if message["role"] == role]


def pictures(concepts: list[Concept], split: str) -> list[Picture]:
    """The emoji as the builder drew them, without their pixels: a background is what the border is nearest to."""
    drawn = []
    with zipfile.ZipFile(WORLD / "images.zip") as archive:
        for concept in concepts:
            for k in range(RENDERINGS[split]):
                name = f"emoji/{split}/{concept.key}_{k}.webp"
                pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"), np.float64)
                border = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), 0)
                near = min(BACKGROUNDS, key=lambda color: float(np.abs(border - BACKGROUNDS[color]).sum()))
                drawn.append(Picture(name, concept.name, np.zeros(0), near))
    return drawn


def test_the_shipped_conversations_are_those_that_the_builder_writes() -> None:
    concepts = read_concepts()
    built = turn_sets({f"emoji/{split}": pictures(concepts, split) for split in SPLITS}, concepts)
    for split in SPLITS:
        assert built["general_turns", split] == items("general_turns", split)


@pytest.mark.parametrize("split", SPLITS)
def test_a_conversation_is_two_to_six_questions_about_one_picture_of_its_split(split: str) -> None:
    lengths = Counter[int]()
    for row in items("general_turns", split):
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        lengths[len(roles) // 2] += 1
        marks = [message["content"].count("<image>") for message in row["messages"]]
        assert marks == [1] + [0] * (len(roles) - 1)
        assert row["image"].startswith(f"emoji/{split}/")
    assert set(lengths) == ({2, 3, 4, 5, 6} if split == "train" else {2, 3})
    assert min(lengths.values()) >= 100


def test_training_shows_pictures_that_general_trains_on() -> None:
    manifests = shipped("data_manifests")
    parts = yaml.safe_load((manifests / "general.yaml").read_text("utf-8"))["mixture"]
    trained = {row["image"] for part in parts for row in items(part, "train")}
    assert {row["image"] for row in items("general_turns", "train")} <= trained


@pytest.mark.parametrize("split", SPLITS)
def test_there_is_no_garment_no_digit_no_list_of_options_and_no_question_of_the_targets(split: str) -> None:
    barred = {*GARMENTS, *DIGITS} - {"one", "two"}
    for row in items("general_turns", split):
        texts = [message["content"].lower() for message in row["messages"]]
        for text in texts:
            assert not barred & set(re.findall(r"[a-z-]+", text))
            assert "class of this image" not in text
            assert not re.search(r"\b[a-d]\. |letter", text)
        # "One" and "two" are the digits' names only in answers.
        assert not {"one", "two"} & set(texts_of(row, "assistant"))
        assert not any(row["class_name"] in question for question in texts_of(row, "user"))


@pytest.mark.parametrize("split", SPLITS)
def test_answers_agree_with_the_sets_of_single_questions(split: str) -> None:
    background = {row["image"]: row["answer"] for s in SPLITS for row in items("emoji_background", s)}
    category = {c.name: c.category for c in read_concepts()}
    checked = Counter[str]()
    for row in items("general_turns", split):
        color, name = background.get(row["image"]), row["class_name"]
        for question, answer in zip(texts_of(row, "user"), texts_of(row, "assistant"), strict=True):
            if color and question.startswith("is the background "):
                assert (answer == "yes") == (color in re.findall(r"\w+", question))
                checked["background"] += 1
            elif answer in BACKGROUNDS and color:
                assert answer == color
                checked["color"] += 1
            elif answer in THINGS:
                assert answer == category[name]
                checked["category"] += 1
            elif (match := re.fullmatch(r"is it (.*)\?", question)) and match[1] in THINGS.values():
                assert (answer == "yes") == (match[1] == THINGS[category[name]])
                checked["yes or no"] += 1
            elif question == "which one?":
                assert answer in (name, color) or not color
                checked["which"] += 1
    assert min(checked[what] for what in ("background", "color", "category", "yes or no", "which")) >= 25


def test_two_test_items_of_a_picture_end_in_one_question_with_different_answers() -> None:
    ends = defaultdict[str, list[tuple[str, str]]](list)
    for row in items("general_turns", "test"):
        ends[row["image"]].append((texts_of(row, "user")[-1], texts_of(row, "assistant")[-1]))
    assert len(ends) == 150
    questions = Counter[str]()
    for (question, answer), (same, other) in ends.values():
        assert question == same
        assert answer != other
        questions[question] += 1
    assert questions == {"what is it then?": 50, "which one?": 50, "and in a sentence?": 50}


def test_yes_and_no_are_about_as_frequent_where_the_question_leaves_out_what_it_is_about() -> None:
    short = Counter(
        answer
        for row in items("general_turns", "train")
        for question, answer in zip(texts_of(row, "user"), texts_of(row, "assistant"), strict=True)
        if question.startswith("and ") and question != "and in a sentence?"
    )
    assert set(short) == {"yes", "no"}
    assert 0.8 < short["yes"] / short["no"] < 1.25


def test_each_way_to_go_on_asks_what_the_first_question_left_open() -> None:
    topic = Topic(
        "is it {}?", "an animal", "a toy", "animal", "what type is it?", ("an animal", "dog"), "it is an animal."
    )
    assert [topic.pairs(way) for way in (*SHARED, "and yes", "and no")] == [
        [("is it a toy?", "no"), ("what is it then?", "animal")],
        [("is it an animal?", "yes"), ("which one?", "dog")],
        [("what type is it?", "animal"), ("and in a sentence?", "it is an animal.")],
        [("is it a toy?", "no"), ("and an animal?", "yes")],
        [("is it an animal?", "yes"), ("and a toy?", "no")],
    ]


def test_no_other_set_matrix_sweep_or_recipe_names_it() -> None:
    naming = [
        path.relative_to(shipped(folder)).as_posix()
        for folder in ("conf", "data_manifests")
        for path in sorted(Path(shipped(folder)).rglob("*.yaml"))
        if "general_turns" in path.read_text("utf-8")
    ]
    assert naming == ["recipe/hybrid_turns.yaml", "general_turns.yaml"]


@pytest.mark.parametrize("split", SPLITS)
def test_a_conversation_is_read_as_one_item_whose_last_reply_is_asked_for(split: str) -> None:
    samples = load_samples(Catalogue().load("general_turns"), split)
    for sample, row in zip(samples, items("general_turns", split), strict=True):
        assert [turn.text for turn in sample.turns] == [message["content"] for message in row["messages"][:-1]]
        assert [image.name for image in sample.images] == [row["image"]]
        assert sample.answer == row["messages"][-1]["content"]
        assert sample.clusters == (f"concept={row['concept']}",)


def test_hybrid_turns_mixes_as_many_conversations_as_target_items() -> None:
    (stage,) = plan_stages(compose(FinetuneConfig, ["recipe=hybrid_turns"]), Catalogue())
    mixed = [stage.stream[place].id.startswith("general_turns/") for place in range(40)]
    assert sum(mixed) == 20
    assert {sum(mixed[:place]) - place // 2 for place in range(40)} <= {0, 1}
