"""Quadrants follow from the lists that manifests declare."""

from __future__ import annotations

import pytest

from forgetbench.core.records import Axis
from forgetbench.data.manifest import Manifest
from forgetbench.data.quadrant import axis, place

TARGET = Manifest(name="target", image_domains=["fashion"], text_tasks=["naming"])


def evaluated(images: list[str], texts: list[str], **more: object) -> Manifest:
    return Manifest(name="other", image_domains=images, text_tasks=texts, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "texts", "quadrant"),
    [
        (["fashion"], ["naming"], "id_text-id_image"),
        (["emoji"], ["naming"], "id_text-ood_image"),
        (["fashion"], ["knowledge"], "ood_text-id_image"),
        (["emoji"], ["knowledge"], "ood_text-ood_image"),
    ],
)
def test_equal_lists_are_in_distribution_and_disjoint_ones_out_of_it(
    images: list[str], texts: list[str], quadrant: str
) -> None:
    assert place(TARGET, evaluated(images, texts)).quadrant == quadrant


def test_a_partial_overlap_is_in_no_quadrant() -> None:
    placed = place(TARGET, evaluated(["fashion", "emoji"], ["knowledge"]))
    assert (placed.image_axis, placed.text_axis, placed.quadrant) == (Axis.partial, Axis.ood, "")


def test_the_probe_is_in_no_quadrant_but_keeps_its_axes() -> None:
    placed = place(TARGET, evaluated(["fashion"], ["knowledge"], probe=True))
    assert (placed.image_axis, placed.text_axis, placed.quadrant) == (Axis.id, Axis.ood, "")


def test_a_near_shift_stays_in_its_quadrant() -> None:
    near = evaluated(["fashion"], ["naming"], shift="near")
    assert place(TARGET, near).quadrant == "id_text-id_image"


def test_auxiliary_sets_never_move_a_quadrant_but_are_marked_as_seen() -> None:
    other = evaluated(["fashion"], ["knowledge", "shade"])
    sharing = Manifest(image_domains=["emoji"], text_tasks=["knowledge"])
    apart = Manifest(image_domains=["fashion"], text_tasks=["caption"])
    without, mixed, unrelated = (place(TARGET, other, aux) for aux in ([], [apart, sharing], [apart]))
    assert {without.quadrant, mixed.quadrant, unrelated.quadrant} == {"ood_text-id_image"}
    assert [without.seen_in_mix, mixed.seen_in_mix, unrelated.seen_in_mix] == [False, True, False]


def test_each_of_the_sets_that_are_trained_jointly_is_the_target() -> None:
    joint = [TARGET, Manifest(name="digits", image_domains=["digits"], text_tasks=["counting", "sums"])]
    union = Manifest(
        name="target+digits", image_domains=["fashion", "digits"], text_tasks=["naming", "counting", "sums"]
    )
    placed = [place(union, dataset, joint=joint).quadrant for dataset in joint]
    assert placed == ["id_text-id_image"] * 2
    others = [(["fashion"], ["knowledge"]), (["emoji"], ["naming"]), (["emoji"], ["sums"]), (["emoji"], ["caption"])]
    assert [place(union, evaluated(*dataset), joint=joint).quadrant for dataset in others] == [
        "ood_text-id_image", "id_text-ood_image", "", "ood_text-ood_image",
    ]  # fmt: skip


def test_the_order_of_lists_and_repeats_in_them_are_irrelevant() -> None:
    assert axis(["a", "b"], ["b", "a", "a"]) is Axis.id
    assert axis(["a", "b"], ["b", "c"]) is Axis.partial
    assert axis(["a", "b"], ["d", "c"]) is Axis.ood
