"""Search spaces in words: what they become, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from forgetbench.config.space import Dimension, Range, corners, every_dimension, keys, overrides, read_space
from forgetbench.core.errors import UserError

GIVEN = {
    "recipe.lr": {"log": [1e-5, 1e-2]},
    "recipe.parts": {"choice": [["language.attention"], ["language", "projector"]]},
    "recipe.steps": {"integers": [10, 40]},
    "seed": None,
    "method": {
        "choice": {
            "plain": None,
            "ewc": {"method.strength": {"log": [10.0, 1000.0]}},
            "lwf": {"method.strength": {"uniform": [0.5, 2.0]}},
        }
    },
}


def chosen(**values: Any) -> Any:
    def choose(dimension: Dimension) -> Any:
        return values[dimension.label.replace(".", "_").replace(" (method=ewc)", "_ewc")]

    return choose


def test_a_point_is_an_override_for_each_key_that_applies() -> None:
    space = read_space(GIVEN)
    shared = {"recipe_lr": 0.000123456, "recipe_parts": "[language.attention]", "recipe_steps": 12}
    plain = overrides(space, chosen(**shared, method="plain"))
    assert plain == ["recipe.lr=0.000123", "recipe.parts=[language.attention]", "recipe.steps=12", "method=plain"]
    ewc = overrides(space, chosen(**shared, method="ewc", method_strength_ewc=999.96))
    assert ewc == [*plain[:3], "method=ewc", "method.strength=1000.0"]


def test_a_key_under_a_choice_takes_the_place_of_the_same_one_outside() -> None:
    choice = {"choice": {"plain": {}, "lora": {"recipe.steps": {"choice": [1, 2]}}}}
    space = read_space({"method": choice, "recipe.steps": {"choice": [3, 4]}})
    values = {"recipe.steps": "3", "recipe.steps (method=lora)": "2"}
    for method, steps in (("plain", "3"), ("lora", "2")):
        point = overrides(space, lambda dimension, chosen=method: values.get(dimension.label, chosen))  # type: ignore[misc]
        assert point == [f"method={method}", f"recipe.steps={steps}"]


def test_numbers_stay_within_their_range_when_they_are_rounded() -> None:
    assert Range("log", 1.2345e-5, 1.0).rounded(1.2345e-5) == 1.2345e-5


def test_a_key_under_two_choices_is_two_dimensions_of_one_name() -> None:
    space = read_space(GIVEN)
    labels = [dimension.label for dimension in every_dimension(space)]
    assert labels[-2:] == ["method.strength (method=ewc)", "method.strength (method=lwf)"]
    assert len(set(labels)) == len(labels)
    assert keys(space) == ["recipe.lr", "recipe.parts", "recipe.steps", "method", "method.strength"]


@pytest.mark.parametrize("most", [64, 3], ids=["every combination", "each choice"])
def test_corners_try_every_choice_at_the_lowest_and_the_highest_numbers(most: int) -> None:
    points = corners(read_space(GIVEN), most)
    words = {word for point in points for word in point}
    assert {"recipe.lr=1e-05", "recipe.lr=0.01", "recipe.steps=10", "recipe.steps=40", "method=plain"} <= words
    assert {"recipe.parts=[language.attention]", "recipe.parts=[language,projector]"} <= words
    assert {f"method.strength={value}" for value in (10.0, 1000.0, 0.5, 2.0)} <= words
    assert len(points) == (12 if most == 64 else 8)


@pytest.mark.parametrize(
    ("key", "given", "named"),
    [
        ("+a", {"log": [1, 2]}, r"search.space: '\+a' is no key; write one as the command line does"),
        ("a", 3, "search.space.a: 3 says no range; expected one of {log: "),
        ("a", {"log": [1, 2], "uniform": [1, 2]}, "says no range"),
        ("a", {"linear": [1, 2]}, "says no range"),
        ("a", {"log": [1e-3]}, r"\[0.001\] is no pair of numbers; write {log: \[low, high\]}"),
        ("a", {"log": [2, 1]}, "2 to 1 is no range; the first number must be the lower one"),
        ("a", {"log": [0, 1]}, "0 has no logarithm"),
        ("a", {"uniform": [0, float("inf")]}, "is no range"),
        ("a", {"uniform": [False, True]}, "no pair of numbers"),
        ("a", {"integers": [1, 2.5]}, "no whole numbers; write uniform"),
        ("a", {"choice": ["plain"]}, "no choice; list two values or more"),
        ("a", {"choice": ["plain", "plain"]}, "plain is listed twice"),
        ("m", {"choice": {"x": {"m.k": {"log": 4}}, "y": None}}, r"search.space.m.choice.x.m.k: 4 is no pair"),
    ],
)
def test_what_is_no_space_is_refused_by_its_key(key: str, given: Any, named: str) -> None:
    with pytest.raises(UserError, match=named):
        read_space({key: given})
