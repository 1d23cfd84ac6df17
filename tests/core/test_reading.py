"""Files that may be anybody's: ordinary ones alone, up to a limit, as UTF-8, whatever they unpack to."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from forgetbench.core.errors import UserError
from forgetbench.core.reading import check_file, is_file, json_lines, opened, parsed_json, read_text


def folder(path: Path) -> None:
    path.mkdir()


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [folder, endless, os.mkfifo, loop, lambda _: None])
def test_what_is_no_ordinary_file_is_refused_and_never_waited_for(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "rows.jsonl"
    make(path)
    assert not is_file(path)
    with pytest.raises(UserError, match=r"rows\.jsonl"):
        check_file(path)
    with pytest.raises(UserError, match=r"rows\.jsonl"), opened(path):
        pass


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "\ud800"])
def test_a_name_that_the_system_does_not_take_is_no_file(tmp_path: Path, name: str) -> None:
    assert not is_file(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        check_file(tmp_path / name)


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(100 * 2**30)
    with pytest.raises(UserError, match=r"large has 107,374,182,400 bytes"):
        read_text(path)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("é".encode("utf-16"), "a text in UTF-16"),
        ("é".encode("utf-32"), "a text in UTF-32"),
        ("é".encode("latin-1"), r"no text in UTF-8 \(byte 0 is 0xe9\)"),
    ],
)
def test_another_encoding_is_told_with_the_file(tmp_path: Path, content: bytes, encoding: str) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.yaml is {encoding}"):
        read_text(tmp_path / "a.yaml")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("\ufeffé", "utf-8")
    assert read_text(tmp_path / "a") == "é"


@pytest.mark.parametrize("text", ["[" * 101 + "]" * 101, '{"a":' * 101 + "1" + "}" * 101, "[" * 200_000])
def test_json_that_is_nested_too_deeply_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested more than 100 deep"):
        parsed_json(text)


def test_json_of_a_hundred_levels_is_read() -> None:
    assert parsed_json("[" * 100 + "]" * 100)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_any_system_ends_them(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(f'\ufeff{{"a": 1}}{end}{end}{{"a": 2}}{end}'.encode())
    assert list(json_lines(tmp_path / "a.jsonl")) == [(1, {"a": 1}), (3, {"a": 2})]


def test_a_line_without_an_end_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.truncate(300 * 2**20)
    with pytest.raises(UserError, match=r"a\.jsonl:1: a line of over 268,435,456 bytes"):
        next(json_lines(tmp_path / "a.jsonl"))


def test_a_gzip_that_unpacks_to_a_thousand_times_its_size_is_not_read_on(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((b" " * 999 + b"\n") * 2**14, 9) * 2000)  # 31 GiB
    with pytest.raises(UserError, match=r"a\.jsonl\.gz unpacks to more than 200 times its size"):
        list(json_lines(tmp_path / "a.jsonl.gz"))


def test_a_gzip_of_rows_that_repeat_is_no_bomb(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"answer": "yes"}\n' * 20_000))
    assert sum(1 for _ in json_lines(tmp_path / "a.jsonl.gz")) == 20_000
