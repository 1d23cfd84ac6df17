"""Words for what trains: what each says, which of them share weights, and what is said of one that is none."""

from __future__ import annotations

import pytest

from forgetbench.core.errors import UserError
from forgetbench.core.part_words import WORDS, merge_words, part_word, parts_of, word_problems


@pytest.mark.parametrize(
    "text", [*WORDS, "language.layers_0_to_0", "language.layers_12_to_23.attention", "vision.layers_3_to_4.mlp_down"]
)
def test_a_word_is_read_and_written_alike(text: str) -> None:
    assert str(part_word(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("languge", "there is no part 'languge'; the parts are vision, projector, language"),
        ("attention", "Did you mean .*language.attention"),
        ("language.atention", "there are language.attention, .*Did you mean language.attention"),
        ("language.layers_3_to_4.head", "in no layer; write language.head"),
        ("language.layers_12-23", "written as in language.layers_0_to_11"),
        ("language.layers_01_to_2", "written as in language.layers_0_to_11"),
        ("language.layers_9_to_3", "ends before it begins; write language.layers_3_to_9"),
        ("projector.layers_0_to_1", "no numbered layers"),
        ("projector.mlp_down", "there are projector.attention, projector.mlp, projector.norms, projector.other"),
        ("vision.head", "there is no part 'vision.head'"),
        ("language.attention.layers_0_to_1", "there is no part"),
        ("language.", "there is no part"),
        ("", "there is no part"),
    ],
)
def test_what_is_no_word_is_refused_with_what_there_is(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        part_word(text)


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        ("language", "language.mlp", True),
        ("language.mlp", "language.mlp_down", True),
        ("language.mlp_gate_up", "language.mlp_down", False),
        ("language.attention", "vision.attention", False),
        ("language.layers_0_to_3", "language.layers_3_to_5", True),
        ("language.layers_0_to_3", "language.layers_4_to_5", False),
        ("language.layers_0_to_3", "language.norms", True),
        ("language.layers_0_to_3", "language.embeddings", False),
        ("language.layers_0_to_3.attention", "language.layers_0_to_3.mlp", False),
        ("language.layers_0_to_3.attention", "language.attention", True),
        ("projector", "projector.mlp", True),
    ],
)
def test_words_that_share_weights_are_refused_together(first: str, second: str, share: bool) -> None:
    assert bool(list(word_problems([first, second]))) is share
    assert bool(list(word_problems([second, first]))) is share


def test_words_of_stages_are_joined_in_one_order_without_what_another_contains() -> None:
    given = ["language.mlp_down", "language.layers_2_to_3.mlp_gate_up", "projector", "language.mlp", "vision.mlp"]
    assert merge_words(given) == ["vision.mlp", "projector", "language.mlp"]
    assert merge_words(["language", "projector"]) == ["projector", "language"]
    assert parts_of(given) == ["language", "projector", "vision"]
