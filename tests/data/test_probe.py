"""The class-label probe of any multiple-choice set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from forgetbench.core.errors import UserError
from forgetbench.core.records import LETTERS
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest_file import load_manifest
from forgetbench.data.probe import check_probe, with_class_name
from forgetbench.data.sources import load_samples

OPTIONS = ("cotton", "iron", "glass", "wood")


@pytest.mark.parametrize("right", range(4))
def test_the_name_takes_the_place_of_one_wrong_option_and_the_others_stay(right: int) -> None:
    replaced = with_class_name(OPTIONS, right, "shirt", "item-1")
    assert replaced is not None
    options, place = replaced
    assert options[place] == "shirt"
    assert place != right
    assert [option for i, option in enumerate(options) if i != place] == [
        option for i, option in enumerate(OPTIONS) if i != place
    ]


def test_the_place_is_a_function_of_the_item_and_no_place_is_favoured() -> None:
    places = [with_class_name(OPTIONS, 1, "shirt", f"item-{i}") for i in range(3000)]
    assert places == [with_class_name(OPTIONS, 1, "shirt", f"item-{i}") for i in range(3000)]
    counts = Counter(place for _, place in filter(None, places))
    assert set(counts) == {0, 2, 3}
    # Each with probability 1/3: 1000 +- 26.
    assert all(900 < count < 1100 for count in counts.values())


def test_a_name_that_is_there_already_stays_where_it_is() -> None:
    assert with_class_name(OPTIONS, 0, " Glass", "x") == (OPTIONS, 2)


@pytest.mark.parametrize(("options", "name"), [(OPTIONS, "COTTON"), (("yes", "no"), "shirt")])
def test_there_is_no_probe_where_the_name_is_right_or_one_option_is_wrong(options: tuple[str, ...], name: str) -> None:
    assert with_class_name(options, 0, name, "x") is None


def test_a_probe_holds_the_items_of_its_set_with_the_class_name_among_the_options() -> None:
    manifest = Catalogue().load("fashion_knowledge")
    plain = {item.id: item for item in load_samples(manifest, "test")}
    probe = load_samples(manifest, "test", distract=True)
    assert len(probe) == len(plain)
    for item in probe:
        plain_item = plain[item.id]
        assert item.class_option is not None
        assert item.options[item.class_option] == item.class_name == plain_item.class_name
        assert (item.answer, item.images, item.clusters) == (plain_item.answer, plain_item.images, plain_item.clusters)
        changed = [i for i, pair in enumerate(zip(item.options, plain_item.options, strict=True)) if pair[0] != pair[1]]
        assert changed == [item.class_option]
        assert f"{LETTERS[item.class_option]}. {item.class_name}" in item.prompt


def test_a_limit_draws_the_same_items_for_both() -> None:
    manifest = Catalogue().load("fashion_knowledge")
    pairs = (load_samples(manifest, "test", 20, distract) for distract in (False, True))
    plain, probe = ([sample.id for sample in samples] for samples in pairs)
    assert plain == probe


def test_a_set_whose_answer_is_the_class_name_makes_no_probe() -> None:
    manifest = Catalogue().load("fashion_naming")
    with pytest.raises(UserError, match="no items for a probe; in each, the class name is the right answer"):
        load_samples(manifest, "test", 5, distract=True)


def test_items_without_a_class_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(json.dumps({"question": "?", "options": ["a", "b", "c"], "answer": 0}))
    path = tmp_path / "plain.yaml"
    path.write_text(
        "source: {}\nsplits: {test: {files: [items.jsonl]}}\nimage_domains: [x]\ntext_tasks: [y]\nanswer: letter\n"
    )
    with pytest.raises(UserError, match="needs the item's `class_name`"):
        load_samples(load_manifest(path), "test", distract=True)


def test_a_set_that_does_not_show_its_options_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hidden.yaml"
    path.write_text("source: {}\nsplits: {test: {}}\nimage_domains: [x]\ntext_tasks: [y]\nanswer: letter\n")
    with pytest.raises(UserError, match=r"does not show \{options\}"):
        check_probe(load_manifest(path))


@pytest.mark.parametrize(("name", "why"), [("emoji_open", "has no options"), ("fashion_probe", "is a probe as it is")])
def test_a_set_that_cannot_be_a_probe_is_refused_by_its_manifest(name: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        check_probe(Catalogue().load(name))
