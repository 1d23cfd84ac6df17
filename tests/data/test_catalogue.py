"""The catalogue: whose manifest counts, what a wrong name says, how mixtures expand."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetbench.core.errors import UserError
from forgetbench.core.records import Role
from forgetbench.data.catalogue import Catalogue

LISTS = "image_domains: [a]\ntext_tasks: [b]\n"
SET = "source: {}\nsplits: {train: {files: [x]}, few: {files: [y]}, test: {files: [z]}}\n" + LISTS


def catalogue(folder: Path, **manifests: str) -> Catalogue:
    for name, text in manifests.items():
        (folder / f"{name}.yaml").write_text(text)
    return Catalogue([folder])


def weights(made: Catalogue, name: str, split: str | None = None) -> dict[str, float]:
    return {f"{leaf.manifest.name}:{leaf.split}": pytest.approx(leaf.weight) for leaf in made.leaves(name, split)}


def test_a_manifest_of_ones_own_shadows_a_shipped_one(tmp_path: Path) -> None:
    made = catalogue(tmp_path, fashion_naming="title: mine\n" + SET)
    assert made.load("fashion_naming").title == "mine"
    assert made.load("digits_naming").title != "mine"


def test_a_misspelt_name_is_told_what_was_probably_meant(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no dataset manifest named 'my_sett'. Did you mean my_set"):
        catalogue(tmp_path, my_set=SET).load("my_sett")


def test_a_role_is_one_of_the_known_ones(tmp_path: Path) -> None:
    made = catalogue(tmp_path, kept="role: control\n" + SET, wrong="role: controls\n" + SET, plain=SET)
    assert (made.load("kept").role, made.load("plain").role) == (Role.control, None)
    with pytest.raises(UserError, match=r"wrong\.yaml: role: .*curriculum, control, validation"):
        made.load("wrong")


def test_mixture_weights_multiply_and_sum_to_one(tmp_path: Path) -> None:
    outer = "mixture: {one: 1, inner: 3}\n" + LISTS
    inner = "mixture: {two: 1, three: 2}\n" + LISTS
    made = catalogue(tmp_path, one=SET, two=SET, three=SET, inner=inner, outer=outer)
    assert weights(made, "outer") == {"one:train": 0.25, "two:train": 0.25, "three:train": 0.5}


def test_a_set_reached_twice_is_one_leaf_with_both_weights(tmp_path: Path) -> None:
    outer = "mixture: {one: 1, inner: 1}\n" + LISTS
    inner = "mixture: {one: 1, two: 1, three: 0}\n" + LISTS
    made = catalogue(tmp_path, one=SET, two=SET, three=SET, inner=inner, outer=outer)
    assert weights(made, "outer") == {"one:train": 0.75, "two:train": 0.25}


def test_a_named_split_is_read_also_through_a_mixture(tmp_path: Path) -> None:
    mix = "mixture: {one: 1, 'two:few': 1}\n" + LISTS
    made = catalogue(tmp_path, one=SET, two=SET, mix=mix)
    assert set(weights(made, "one:few")) == {"one:few"}
    assert set(weights(made, "mix")) == {"one:train", "two:few"}
    assert set(weights(made, "mix:test")) == {"one:test", "two:few"}
    assert set(weights(made, "mix", "test")) == {"one:test", "two:few"}


def test_the_manifest_of_a_named_split_is_its_datasets(tmp_path: Path) -> None:
    assert catalogue(tmp_path, one=SET).load("one:few").name == "one"


def test_an_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'dev' \(it has: train, few, test\)"):
        catalogue(tmp_path, one=SET).leaves("one:dev")


def test_a_mixture_that_contains_itself_is_refused_with_the_way_round(tmp_path: Path) -> None:
    a, b = "mixture: {b: 1}\n" + LISTS, "mixture: {a: 1}\n" + LISTS
    with pytest.raises(UserError, match="'a' contains itself: a -> b -> a"):
        catalogue(tmp_path, a=a, b=b).leaves("a")


@pytest.mark.parametrize("mixture", ["{one: 0}", "{one: 1e308, two: 1e308}"])
def test_weights_must_leave_something_to_draw(tmp_path: Path, mixture: str) -> None:
    made = catalogue(tmp_path, one=SET, two=SET, mix=f"mixture: {mixture}\n" + LISTS)
    with pytest.raises(UserError, match="mixture: the weights sum to"):
        made.leaves("mix")


@pytest.mark.parametrize("weight", [".nan", ".inf", "-1"])
def test_a_weight_of_a_mixture_that_is_no_share_is_refused_by_name(tmp_path: Path, weight: str) -> None:
    made = catalogue(tmp_path, one=SET, blend=f"mixture: {{one: {weight}, general: 1}}\n" + LISTS)
    with pytest.raises(UserError, match=r"blend\.yaml: mixture: the weight of 'one'"):
        made.leaves("blend")


def test_a_manifest_refers_to_its_own_keys_alone(tmp_path: Path) -> None:
    made = catalogue(tmp_path, own="title: t\nnotes: ${title}\n" + SET, other="notes: ${oc.env:HOME}\n" + SET)
    assert made.load("own").notes == "t"
    with pytest.raises(UserError, match=r"other.yaml: `notes: \$\{oc.env:HOME\}`"):
        made.load("other")


@pytest.mark.parametrize("name", ["../x", "/x", "C:/x", "..\\x", "linked"])
def test_a_file_of_a_manifest_is_below_its_root(tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/linked").symlink_to(tmp_path / "private")
    made = catalogue(tmp_path, mine="source: {root: root}\nsplits: {test: {files: [a]}}\n" + LISTS).load("mine")
    assert made.file("a") == tmp_path / "root/a"
    with pytest.raises(UserError, match=r"mine.yaml: file '.*' is outside of .*root"):
        made.file(name)


def test_mixtures_that_share_their_parts_are_expanded_once(tmp_path: Path) -> None:
    doubling = {f"m{k}": f"mixture: {{m{k + 1}: 1, 'm{k + 1}:few': 1}}\n{LISTS}" for k in range(30)}  # 2^30 ways down
    made = catalogue(tmp_path, **doubling, m30=SET)
    assert sum(leaf.weight for leaf in made.leaves("m0")) == pytest.approx(1)


def test_mixtures_of_mixtures_have_an_end(tmp_path: Path) -> None:
    chain = {f"m{k}": f"mixture: {{m{k + 1}: 1}}\n{LISTS}" for k in range(40)}
    with pytest.raises(UserError, match="'m0' is of mixtures more than 32 deep"):
        catalogue(tmp_path, **chain, m40=SET).leaves("m0")


def test_a_part_that_is_not_there_is_told_with_its_mixture(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mix\.yaml: `mixture`: There is no dataset manifest named 'onne'"):
        catalogue(tmp_path, one=SET, mix=f"mixture: {{onne: 1}}\n{LISTS}").leaves("mix")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("source: {sha256: {a: {b: c}}}\nsplits: {train: {files: [x]}}\n" + LISTS, "source.sha256"),
        ("source: {}\nsplits: {train: {files: [[x]]}}\n" + LISTS, "splits.train.files"),
        (SET.replace("[b]", "[[b]]"), "text_tasks"),
        (f"mixture: {{one: [1]}}\n{LISTS}", "mixture"),
    ],
)
def test_a_list_where_a_text_or_a_number_is_expected_is_refused_by_its_key(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(UserError, match=rf"odd\.yaml: `?{key}"):
        catalogue(tmp_path, one=SET, odd=text).load("odd")


@pytest.mark.parametrize("n", [-1, 10**12])
def test_a_split_has_a_number_of_items_that_can_be(tmp_path: Path, n: int) -> None:
    with pytest.raises(UserError, match=rf"`splits\.train\.n: {n}` is no number of items"):
        catalogue(tmp_path, odd=f"source: {{}}\nsplits: {{train: {{files: [x], n: {n}}}}}\n{LISTS}").load("odd")
