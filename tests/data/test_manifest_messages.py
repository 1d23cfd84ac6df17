"""What is said of a manifest's value that is of another kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forgetbench.core.errors import UserError
from forgetbench.data.manifest_file import load_manifest


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"splits": None}, "splits: null is no value of this field"),
        ({"splits": {"train": {"n": "ten"}}}, "splits.train.n: a whole number is expected, not 'ten'"),
        ({"answer": "leter"}, "there is no 'leter'; it may be letter"),
        ({"probe": "maybe"}, "true or false is expected, not 'maybe'"),
        ("secret of another file", "it holds no keys with values"),
    ],
)
def test_a_wrong_value_of_a_manifest_is_told_in_our_words(content: object, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as refused:
        load_manifest(path)
    assert problem in str(refused.value)
    assert "secret" not in str(refused.value)
