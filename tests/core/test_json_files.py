"""JSON that other programs wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forgetbench.core import json_files
from forgetbench.core.errors import UserError
from forgetbench.core.json_files import read_json


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b'["llava"]',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        '{"a": 1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"\x80\x04\x95",
    ],
    ids=["empty", "cut", "null", "list", "deep", "digits", "utf-16", "byte order mark", "pickle"],
)
def test_what_is_no_json_object_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json (cannot be read|holds a )"):
        read_json(path)


def test_a_fifo_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UserError, match=r"config\.json is no file"):
        read_json(tmp_path / "config.json")


def test_a_file_of_many_megabytes_is_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "MOST_BYTES", 10)
    (tmp_path / "config.json").write_text('{"a": "0123456789"}')
    with pytest.raises(UserError, match="has 19 bytes"):
        read_json(tmp_path / "config.json")
