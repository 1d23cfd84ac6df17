"""Entries on disk: absent, whole, damaged, being made, and what kills leave behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forgetbench.core.errors import UserError
from forgetbench.core.store import Store, checksum, json_digest, verify


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "kept", ".json")


def put(store: Store, name: str, value: object) -> None:
    with store.writing(name) as temporary:
        temporary.write_text(json.dumps({"value": value, "content": json_digest(value)}))


def load(path: Path) -> object:
    stored = json.loads(path.read_text())
    verify(stored["content"], json_digest(stored["value"]))
    return stored["value"]


def test_an_entry_is_read_as_it_was_written_and_an_absent_one_is_none(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert store.read("a", load) is None
    put(store, "a", [1, 2])
    assert store.read("a", load) == [1, 2]
    assert store.names() == ["a"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[]", b"{}", b'{"value": [1, 3], "content": "0"}'],
    ids=["empty", "cut short", "no text", "a list", "no checksum", "another value"],
)
def test_a_damaged_entry_is_named_and_none(store: Store, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    put(store, "a", [1, 2])
    store.path("a").write_bytes(content)
    assert store.read("a", load, "it is asked again") is None
    assert capsys.readouterr().err == f"{store.path('a')} is damaged; it is asked again.\n"


def test_an_error_of_a_library_is_damage_only_where_it_is_said_to_be(tmp_path: Path) -> None:
    class TornError(Exception):
        pass

    def torn(path: Path) -> None:
        raise TornError

    (tmp_path / "a").touch()
    assert Store(tmp_path, damage=(TornError,)).read("a", torn) is None
    with pytest.raises(TornError):
        Store(tmp_path).read("a", torn)


def test_a_disk_that_fails_is_no_damage_unless_it_is_said_to_be(tmp_path: Path) -> None:
    def failing(path: Path) -> None:
        raise OSError("no answer")

    (tmp_path / "a").touch()
    with pytest.raises(OSError, match="no answer"):
        Store(tmp_path).read("a", failing)


def test_a_failed_write_leaves_the_entry_that_was_there(store: Store) -> None:
    def fail() -> None:
        with store.writing("a") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    put(store, "a", 1)
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert store.read("a", load) == 1
    assert [path.name for path in store.path("a").parent.iterdir()] == ["a.json"]


def test_one_at_a_time_makes_an_entry(store: Store) -> None:
    with store.locked("a") as first:
        assert first
        with store.locked("a", wait_s=0) as second:
            assert not second
        with store.locked("b", wait_s=0) as other:
            assert other
    with store.locked("a", wait_s=0) as later:
        assert later


def test_a_lock_goes_with_the_entry_made_and_stays_for_the_next_to_try_else(store: Store) -> None:
    with store.locked("a"):
        put(store, "a", 1)
    with pytest.raises(KeyboardInterrupt), store.locked("b"):
        raise KeyboardInterrupt
    assert sorted(path.name for path in store.path("a").parent.iterdir()) == ["a.json", "b.lock"]


def test_whoever_makes_an_entry_alone_removes_what_is_left_of_earlier_attempts(store: Store) -> None:
    running = store.path("a").with_name(".a.json.00000000-1-1234abcd.tmp")
    running.mkdir(parents=True)
    of_another = store.path("a").with_name(".ab.json.00000000-1-1234abcd.tmp")
    of_another.touch()
    put(store, "a", 1)
    with store.locked("a"):
        assert running.exists()  # there is an entry, and another command may be replacing it
    store.path("a").unlink()
    with store.locked("a"):
        assert not running.exists()
    assert of_another.exists()


def test_an_entry_that_was_stepped_aside_is_put_back_before_it_is_made_again(store: Store) -> None:
    put(store, "a", 1)
    store.path("a").rename(store.path("a").with_name(".a.json.00000000-1-1234abcd.old"))
    with store.locked("a"):
        assert store.read("a", load) == 1


def test_digests_are_those_of_the_entries_that_users_have() -> None:
    assert checksum(b"a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert json_digest({"b": [1, 0.5], "a": "é"}) == json_digest({"a": "é", "b": [1, 0.5]})
    assert json_digest({"b": [1, 0.5], "a": "é"}) == checksum(b'{"a": "\\u00e9", "b": [1, 0.5]}')


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\\b"])
def test_an_entry_is_in_the_stores_own_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no name of an entry"):
        Store(tmp_path).path(name)
