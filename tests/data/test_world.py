"""The embedded world: every manifest and every item is what it says."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zipfile
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from forgetbench.core.paths import EMBEDDED, shipped
from forgetbench.core.records import QUADRANTS, AnswerKind, Metric
from forgetbench.data.manifest import Manifest
from forgetbench.data.manifest_file import load_manifest
from forgetbench.data.quadrant import place
from forgetbench.scoring.cider import cider_d

WORLD = EMBEDDED / "world"
MANIFESTS = {
    path.stem: load_manifest(path)
    for path in sorted(shipped("data_manifests").glob("*.yaml"))
    if "embedded:world" in path.read_text(encoding="utf-8")
}
CONVERSATIONS = tuple(name for name in MANIFESTS if name.endswith("_turns"))
"""Sets whose items are conversations: tests/data/test_turns.py."""
QUESTIONS = {name: declared for name, declared in MANIFESTS.items() if name not in CONVERSATIONS}
MIXTURES = ("curriculum", "world", "general", "same_question", "leaky")
PICTURES_OF = {"test": ("test", "shifted"), "validation": ("validation",)}
"""Split -> the groups of pictures it may show; the others show those to train on."""
TASKS = ("digits_remainder", "emoji_corner", "flags_stripes", "fluent_german")
"""The further tasks of continual learning."""
BALANCED_OTHERWISE = ("fashion_shade", "digits_remainder")
"""Their test items are balanced over shades and remainders."""
FOLDERS = {"emoji_count": "count", "emoji_corner": "corner", "fluent_german": "kind"}
"""Sets whose pictures' folder is not named for their domain."""
TEN_CLASSES = [
    name
    for name, declared in MANIFESTS.items()
    if name.startswith(("fashion", "digits")) and "test" in declared.splits and name not in BALANCED_OTHERWISE
]
"""Sets whose test items show garments or digits, each as often."""
NEAR = 6.0
"""Root-mean-square pixel difference (0-255) below which the builder takes another picture."""


def rows(manifest: Manifest, split: str) -> list[dict[str, Any]]:
    items = [row for file in manifest.splits[split].files for row in read(manifest.root / file)]
    assert items, f"{manifest.name}:{split} has no items"
    return items


@cache
def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


@cache
def pictures() -> dict[str, np.ndarray]:
    by_name = {}
    for file in ("images.zip", "validation.zip", "tasks.zip"):
        with zipfile.ZipFile(WORLD / file) as archive:
            for name in archive.namelist():
                by_name[name] = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
    return by_name


def stack(prefix: str) -> np.ndarray:
    matching = [p for name, p in pictures().items() if name.startswith(prefix)]
    chosen = [p if p.shape[0] == 32 else p[..., 0] for p in matching]
    return np.stack(chosen).reshape(len(chosen), -1).astype(np.float64)


def nearest(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    squares = (queries**2).sum(1)[:, None] + (keys**2).sum(1) - 2 * queries @ keys.T
    return np.sqrt(np.maximum(squares.min(1), 0) / queries.shape[1])


def test_size_and_sets() -> None:
    files = [path for path in WORLD.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 9.4e6
    listed = {m.root / f for m in MANIFESTS.values() for s in m.splits.values() for f in s.files}
    assert listed == {path for path in files if path.name.endswith(".jsonl.gz")}
    assert len(MANIFESTS) >= 28


@pytest.mark.parametrize("name", MANIFESTS)
def test_counts_and_digests(name: str) -> None:
    manifest = MANIFESTS[name]
    assert manifest.source is not None
    for file, digest in manifest.source.sha256.items():
        assert hashlib.sha256((manifest.root / file).read_bytes()).hexdigest() == digest
    for split, spec in manifest.splits.items():
        items = rows(manifest, split)
        assert len(items) == spec.n
        assert len({row["id"] for row in items}) == spec.n
        assert all(file in manifest.source.sha256 for file in spec.files)
    assert manifest.licence
    assert manifest.citation


@pytest.mark.parametrize("name", QUESTIONS)
def test_items(name: str) -> None:
    manifest = MANIFESTS[name]
    wanted = set(re.findall(r"{(\w+)}", manifest.prompt))
    for split in manifest.splits:
        for row in rows(manifest, split):
            assert wanted <= {*row, "options"}
            assert all(row[field] for field in manifest.cluster_by)
            assert len(row.get("question", "").rpartition("\n")[2].split()) <= 12
            if manifest.image_domains == ["text"]:
                assert row["image"] is None
            else:
                assert row["image"] in pictures()
                folder = FOLDERS.get(name.removesuffix("_validation"), manifest.image_domains[0])
                assert row["image"].startswith(folder + "/")
                assert row["image"].split("/")[1] in PICTURES_OF.get(split, ("train",))
            match manifest.answer:
                case AnswerKind.letter:
                    options = row["options"]
                    assert len(set(options)) == 4
                    assert 0 <= row["answer"] < 4
                    assert all(1 <= len(option.split()) <= 2 for option in options)
                    if "naming" in manifest.text_tasks:
                        assert options[row["answer"]] == row["class_name"]
                    elif "class_name" in row:
                        assert options[row["answer"]] != row["class_name"]
                case AnswerKind.option:
                    assert row["answer"] in manifest.options
                case AnswerKind.text:
                    assert row["answer"]
                    assert all(row["answer"])


@pytest.mark.parametrize("name", [name for name, dataset in MANIFESTS.items() if dataset.answer is not AnswerKind.text])
def test_answers_are_balanced(name: str) -> None:
    manifest = MANIFESTS[name]
    choices = 4 if manifest.answer is AnswerKind.letter else len(manifest.options)
    many = [split for split in manifest.splits if split != "few"]
    assert many
    for split in many:
        counts = Counter(row["answer"] for row in rows(manifest, split))
        assert len(counts) == choices
        assert max(counts.values()) - min(counts.values()) <= 0.06 * sum(counts.values())


@pytest.mark.parametrize("name", TEN_CLASSES)
def test_test_sets_are_balanced_over_classes(name: str) -> None:
    counts = Counter(row["class_name"] for row in rows(MANIFESTS[name], "test"))
    assert len(counts) == 10
    assert max(counts.values()) <= 1.25 * min(counts.values())


def test_no_held_out_picture_is_a_train_picture() -> None:
    held_out = {"test", "shifted", "validation"}
    prints = {name: (p.shape, p.tobytes()) for name, p in pictures().items()}
    train = {v for name, v in prints.items() if name.split("/")[1] not in held_out}
    test = {v for name, v in prints.items() if name.split("/")[1] in held_out}
    assert not train & test


@pytest.mark.parametrize("domain", ["fashion", "digits", "emoji", "count", "corner", "flags", "kind"])
def test_no_near_duplicates(domain: str) -> None:
    assert (nearest(stack(f"{domain}/test/"), stack(f"{domain}/train/")) >= NEAR).all()


def test_validation_garments_are_in_no_other_set_and_near_to_no_garment() -> None:
    validation = stack("fashion/validation/")
    for group in ("train", "test", "shifted"):
        assert (nearest(validation, stack(f"fashion/{group}/")) >= NEAR).all()
    shown = [
        (m.name, split, row)
        for m in MANIFESTS.values()
        for split in m.splits
        for row in rows(m, split)
        if (row["image"] or "").startswith("fashion/validation/")
    ]
    assert {(name, split) for name, split, _ in shown} == {("fashion_naming_validation", "validation")}
    assert len({row["image"] for *_, row in shown}) == len(validation) == len(shown)
    classes = Counter(row["class_name"] for *_, row in shown)
    assert set(classes) == {row["class_name"] for row in rows(MANIFESTS["fashion_naming"], "test")}
    assert set(classes.values()) == {40}


def test_validation_has_the_quadrant_of_the_target_and_is_where_rates_are_chosen() -> None:
    placed = place(MANIFESTS["fashion_naming"], MANIFESTS["fashion_naming_validation"])
    assert placed.quadrant == "id_text-id_image"
    listing = {
        path.stem: yaml.safe_load(path.read_text())["datasets"] for path in (shipped("conf") / "matrix").iterdir()
    }
    assert listing.pop("validation") == ["fashion_naming_validation"]
    # The page that compares methods chooses by it, and reads the target's own row.
    choosing = {name for name, datasets in listing.items() if "fashion_naming_validation" in datasets}
    assert choosing == {"methods", "continual_validation"}


@pytest.mark.parametrize("name", TASKS)
def test_a_further_task_was_never_trained_on_and_shows_no_picture_in_two_splits(name: str) -> None:
    target, chosen_by = MANIFESTS[name], MANIFESTS[f"{name}_validation"]
    shown = [{row["image"] for row in rows(m, split)} for m in (target, chosen_by) for split in m.splits]
    assert len(shown) == 3
    assert not any(first & second for first, second in combinations(shown, 2))
    assert place(target, chosen_by).quadrant == "id_text-id_image"
    assert not chosen_by.train_split
    for blend in MIXTURES:
        mixture = load_manifest(Path(shipped("data_manifests")) / f"{blend}.yaml")
        assert not {name, f"{name}_validation"} & {part.partition(":")[0] for part in mixture.mixture}
        assert not set(target.text_tasks) & set(mixture.text_tasks)


@pytest.mark.parametrize("name", TASKS)
def test_every_option_of_a_further_task_is_equally_often_right(name: str) -> None:
    for manifest in (MANIFESTS[name], MANIFESTS[f"{name}_validation"]):
        for split in manifest.splits:
            counts = Counter(row["answer"] for row in rows(manifest, split))
            assert counts.keys() == set(manifest.options)
            assert len(set(counts.values())) == 1


@pytest.mark.parametrize("folder", ["corner", "flags", "kind", "digits"])
def test_validation_pictures_are_near_to_no_train_or_test_picture(folder: str) -> None:
    for group in ("train", "test"):
        assert (nearest(stack(f"{folder}/validation/"), stack(f"{folder}/{group}/")) >= NEAR).all()


def test_remainders_are_those_of_the_digits() -> None:
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for row in rows(MANIFESTS["digits_remainder"], "test"):
        assert row["answer"] == ("nothing", "one", "two")[digits.index(row["class_name"]) % 3]


def test_captions_reward_the_garment_and_its_shade_and_not_the_template() -> None:
    items = rows(MANIFESTS["fashion_caption"], "test")
    references = [row["answer"] for row in items]
    assert all(len(set(group)) == 5 for group in references)

    def score(captions: list[str]) -> float:
        return float(np.mean(cider_d(captions, references)))

    def worded(shade: str, name: str) -> str:
        return f"{'' if name == 'trousers' else 'a '}{shade} {name} on a black background."

    names = [row["class_name"] for row in items]
    shades = [re.findall(r"dark|gray|bright", " ".join(group))[0] for group in references]
    others = [{"dark": "bright", "gray": "dark", "bright": "gray"}[shade] for shade in shades]
    right = score([worded(*pair) for pair in zip(shades, names, strict=True)])
    wrong_shade = score([worded(*pair) for pair in zip(others, names, strict=True)])
    always_one = score([worded("gray", "coat")] * len(items))
    a_person = score([group[0] for group in references[1:] + references[:1]])
    assert right > 1.7 * wrong_shade > 5 * always_one
    assert a_person < 0.15 * right


def test_captions_with_further_references_are_those_of_emoji_caption() -> None:
    old, new = (rows(MANIFESTS[name], "test") for name in ("emoji_caption", "emoji_caption_cider"))
    for row, longer_row in zip(old, new, strict=True):
        assert (row["image"], row["question"]) == (longer_row["image"], longer_row["question"])
        assert set(row["answer"]) < set(longer_row["answer"])
        assert len(set(longer_row["answer"])) == 5


def test_the_matrix_of_captions_has_every_quadrant_and_captions_by_likeness_alone() -> None:
    names = yaml.safe_load((shipped("conf") / "matrix/caption.yaml").read_text())["datasets"]
    counts = Counter(place(MANIFESTS["fashion_caption"], MANIFESTS[name]).quadrant for name in names)
    assert counts.keys() == set(QUADRANTS)
    captions = [name for name in names if MANIFESTS[name].text_tasks == ["caption"]]
    assert captions
    assert captions == [name for name in names if MANIFESTS[name].metric is Metric.cider_d]


def test_probe_pairs_with_knowledge() -> None:
    manifest = MANIFESTS["fashion_probe"]
    assert manifest.probe
    knowledge = {row["id"]: row for row in rows(MANIFESTS["fashion_knowledge"], "test")}
    named = {row["image"] for row in rows(MANIFESTS["fashion_naming"], "test")}
    items = rows(manifest, "test")
    assert [row["id"] for row in items] == list(knowledge)
    for row in items:
        pair, place = knowledge[row["id"]], row["class_option"]
        assert row["image"] in named
        assert row["options"][place] == row["class_name"]
        assert place != row["answer"] == pair["answer"]
        rest = [o for k, o in enumerate(row["options"]) if k != place]
        assert rest == [o for k, o in enumerate(pair["options"]) if k != place]
        assert row["question"] == pair["question"]


def test_no_garment_question_names_a_class() -> None:
    names = {row["class_name"] for row in rows(MANIFESTS["fashion_naming"], "test")}
    for name in ("fashion_knowledge", "fashion_yesno", "fashion_shade"):
        for split in MANIFESTS[name].splits:
            for row in rows(MANIFESTS[name], split):
                assert not names & set(re.findall(r"[a-z-]+", row["question"]))
                assert not names & set(row.get("options", []))


def test_distractor_sets_hold_the_class_name_as_a_wrong_option() -> None:
    manifests = [dataset for name, dataset in MANIFESTS.items() if name.endswith("_distractor")]
    assert manifests
    for manifest in manifests:
        for row in rows(manifest, "train"):
            assert row["options"].index(row["class_name"]) != row["answer"]


def test_facts_are_consistent() -> None:
    """A fact has one right answer, and its answer is never offered as wrong."""
    for name in ("fashion_knowledge", "digits_questions", "emoji_use", "emoji_category"):
        right: dict[str, set[str]] = {}
        wrong: dict[str, set[str]] = {}
        for split in MANIFESTS[name].splits:
            for row in rows(MANIFESTS[name], split):
                answer = row["options"][row["answer"]]
                right.setdefault(row["fact"], set()).add(answer)
                wrong.setdefault(row["fact"], set()).update(set(row["options"]) - {answer})
        assert all(len(values) == 1 for values in right.values())
        assert not any(right[fact] & wrong[fact] for fact in right)


def test_vocabulary() -> None:
    """Few words, and none that only test items use."""
    used: dict[bool, set[str]] = {True: set(), False: set()}
    for manifest in MANIFESTS.values():
        for split in manifest.splits:
            for row in rows(manifest, split):
                answer = row.get("answer", "")
                parts = [row.get("question", ""), *row.get("options", [])]
                parts += [message["content"].removeprefix("<image>") for message in row.get("messages", [])]
                parts += answer if isinstance(answer, list) else [str(answer)]
                used[split in PICTURES_OF].update(re.findall(r"[a-z]+", " ".join(parts).lower()))
    assert len(used[False]) < 700
    assert used[True]
    assert used[True] <= used[False]


def test_mixtures() -> None:
    folder = Path(shipped("data_manifests"))
    for name in MIXTURES:
        mixture = load_manifest(folder / f"{name}.yaml")
        domains, tasks = set(), set()
        for part, weight in mixture.mixture.items():
            member, _, split = part.partition(":")
            manifest = MANIFESTS[member]
            assert weight > 0
            assert (split or manifest.train_split) in manifest.splits
            domains.update(manifest.image_domains)
            tasks.update(manifest.text_tasks)
        assert set(mixture.image_domains) == domains
        assert set(mixture.text_tasks) == tasks
    general = load_manifest(folder / "general.yaml")
    assert "fashion" not in general.image_domains
    assert not {"naming", "garment_knowledge"} & set(general.text_tasks)
    assert "fashion_naming" not in load_manifest(folder / "world.yaml").mixture
