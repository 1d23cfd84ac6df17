"""Whole answers, equal but for case, or for blanks and full stops too."""

import pytest

from forgetbench.scoring.verbatim import caseless_match, compact_match


@pytest.mark.parametrize(
    ("text", "reference", "caseless", "compact"),
    [
        ("B", "b", True, True), (" B \n", "B", True, True), ("A", "A", True, True),
        ("A.", "A", False, True), ("Hot Dog", "hot dog", True, True), ("hotdog", "hot dog", False, True),
        ("yes.", "Yes", False, True), ("u.s.", "US", False, True),
        ("the cat", "cat", False, False), ("A B", "A", False, False), ("A, B", "A", False, False),
        ("two", "2", False, False),
        ("", "no", False, False), (".", "no", False, False), (" . ", ".", True, False), ("cannot", "no", False, False),
    ],
)  # fmt: skip
def test_case_never_counts_and_blanks_and_full_stops_only_without_case(
    text: str, reference: str, caseless: bool, compact: bool
) -> None:
    assert caseless_match(text, [reference]) is caseless
    assert compact_match(text, [reference]) is compact


def test_any_reference_may_match_whole() -> None:
    for match in (caseless_match, compact_match):
        assert match("C", ["a", "c"])
        assert not match("C", [])
