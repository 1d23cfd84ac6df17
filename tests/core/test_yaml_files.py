"""YAML that may be anybody's: no more in it than its size warrants, every key once."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetbench.core.errors import UserError
from forgetbench.core.yaml_files import parse_yaml, read_yaml


def laughs(first: str, pattern: str) -> str:
    """Nine levels of ten aliases each: a billion values in a few hundred letters."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{k + 1}: &a{k + 1} " + pattern.format(", ".join(f"*a{k}" for _ in range(10))) for k in range(9)]
    return "\n".join(lines)


MERGES = "a0: &a0 {x: 1}\n" + "\n".join(f"a{k + 1}: &a{k + 1}\n  <<: [{', '.join([f'*a{k}'] * 10)}]" for k in range(9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs("[x]", "[{}]"), "200,000 values"),
        (laughs("{x: 1}", "[{}]"), "200,000 values"),
        (MERGES, "200,000 values"),
        ("a: &a [*a]", r"the alias \*a stands inside of what it repeats"),
        ("[" * 33 + "]" * 33, "nested more than 32 deep"),
        ("{a: " * 33 + "}" * 33, "nested more than 32 deep"),
        ("[" * 100_000, "nested more than 32 deep"),
        ("\n".join("  " * k + "a:" for k in range(40)), "nested more than 32 deep"),
        ("a: 1\na: 2", "the key 'a' is on line 1 already"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: !!timestamp x", "not readable as YAML"),
        ("a: !!bool x", "not readable as YAML"),
        ("a: 2020-99-99", "not readable as YAML"),
        ('a: {b: "\\ud800"}', "`a.b` holds half a character"),
        ("a: 9223372036854775808", "`a` is a number beyond 64 bits"),
        (f"a: {'9' * 5000}", "not readable as YAML"),
    ],
)
def test_what_would_fill_memory_or_mean_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"mine\.yaml: .*{message}"):
        parse_yaml(text, "mine.yaml")


def test_aliases_and_merges_that_stay_small_are_read() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2}", "mine.yaml")["c"] == {"x": 1, "y": 2}


def test_a_large_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with path.open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(UserError, match=r"mine\.yaml has 17,825,792 bytes"):
        read_yaml(path)
