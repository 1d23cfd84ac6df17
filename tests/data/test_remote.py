"""`data check --remote`: manifests beside a Hub that a local server plays."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

from forgetbench.commands.data_check import check_remote
from forgetbench.config import FinetuneConfig
from forgetbench.core.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = {
    "dataset_info": [
        {
            "config_name": "default",
            "features": [{"name": name, "dtype": "string"} for name in ("image", "question", "answer")],
            "splits": [{"name": "train", "num_examples": 10}, {"name": "test", "num_examples": 4}],
        }
    ]
}
VIEWED = {
    "en": {
        "features": {name: {} for name in ("image", "query", "label")},
        "splits": {"train": {"num_examples": 7}},
    },
    "de": {"features": {}, "splits": {"train": {"num_examples": 8}}},
}


class Server(ThreadingHTTPServer):
    """The repositories that exist, by id: card, gate and files."""

    repositories: dict[str, dict[str, Any]]
    viewed: dict[str, dict[str, Any]]


class Routes(BaseHTTPRequestHandler):
    """The two routes that are asked: a repository's description, and the dataset viewer's."""

    server: Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/info":
            self._view(parse_qs(url.query)["dataset"][0])
            return
        name, _, revision = unquote(url.path.removeprefix("/api/datasets/")).partition("/revision/")
        repository = self.server.repositories.get(name)
        if repository is None:
            self._answer(404, {}, "RepoNotFound")
        elif repository.get("closed"):
            self._answer(403, {}, "GatedRepo")
        elif revision not in ("", "main", COMMIT):
            self._answer(404, {}, "RevisionNotFound")
        else:
            files = [{"rfilename": file} for file in repository.get("files", ())]
            described = {"id": name, "sha": COMMIT, "siblings": files, "gated": repository.get("gated", False)}
            self._answer(200, described | {"cardData": repository.get("card")})

    def _view(self, name: str) -> None:
        if name in self.server.viewed:
            self._answer(200, {"dataset_info": self.server.viewed[name]})
        else:
            self._answer(404, {"error": "not viewed"})

    def _answer(self, status: int, value: object, error: str = "") -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Routes)
    server.repositories = {
        "owner/set": {"card": CARD},
        "owner/viewed": {},
        "owner/silent": {},
        "owner/gated": {"card": CARD, "gated": "auto"},
        "owner/closed": {"closed": True},
        "owner/files": {"files": ["README.md", "domain/RS/train.json", "pictures.zip"]},
    }
    server.viewed = {"owner/viewed": VIEWED}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Compare one manifest with the Hub: whether it agrees, and its row."""

    def checked(source: dict[str, Any], **fields: Any) -> tuple[bool, dict[str, Any]]:
        given = {"source": {"kind": "hub"} | source, "splits": {"train": {"n": 10}, "test": {"n": 4}}}
        lists = {"image_domains": ["a"], "text_tasks": ["b"]}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(given | lists | fields))
        sound = check_remote(FinetuneConfig(manifests=[str(tmp_path)]), ["mine"], as_json=True)
        (row,) = json.loads(capsys.readouterr().out)
        return sound, row

    return checked


def test_a_set_that_agrees_is_told_the_commit_to_pin(hub: Server, check: Any) -> None:
    sound, row = check({"hub_id": "owner/set"}, verified=False)
    assert (sound, row["differences"]) == (True, [])
    assert row["repository"] == f"owner/set@{COMMIT}"
    assert row["manifest_lines"] == [f"revision: {COMMIT}", "verified: true"]


def test_conversations_need_neither_a_question_nor_an_answer(hub: Server, check: Any) -> None:
    features = [{"name": name, "dtype": "string"} for name in ("talk", "images")]
    described = CARD["dataset_info"][0] | {"features": features}
    hub.repositories["owner/talk"] = {"card": {"dataset_info": [described]}}
    assert check({"hub_id": "owner/talk", "columns": {"messages": "talk"}})[0]
    _, row = check({"hub_id": "owner/talk", "columns": {"messages": "talk"}}, prompt="{hint}: {question}")
    assert row["differences"] == ["columns: no hint; the Hub has talk, images"]


def test_a_pinned_and_verified_set_has_nothing_to_change(hub: Server, check: Any) -> None:
    sound, row = check({"hub_id": "owner/set", "revision": COMMIT})
    assert (sound, row["manifest_lines"], row["notes"]) == (True, [], [])


@pytest.mark.parametrize(
    ("source", "fields", "message"),
    [
        ({"hub_id": "owner/none"}, {}, "there is no owner/none"),
        ({"hub_id": "owner/closed"}, {}, "owner/closed is gated: ask for access"),
        ({"hub_id": "owner/set", "revision": "v9"}, {}, "owner/set has no revision v9"),
        ({"hub_id": "owner/set", "hub_config": "fr"}, {}, "hub_config: fr is not there; the Hub has default"),
        ({"hub_id": "owner/viewed"}, {}, "hub_config: default is not there; the Hub has en, de"),
        ({"hub_id": "owner/set"}, {"splits": {"dev": {}}}, "split dev: not there; the Hub has train, test"),
        ({"hub_id": "owner/set"}, {"splits": {"test": {"n": 5}}}, "split test: n is 5; the Hub has 4 rows"),
        ({"hub_id": "owner/set", "columns": {"image": "photo"}}, {}, "columns: no photo; the Hub has image, question"),
        ({"hub_id": "owner/set"}, {"prompt": "{hint} {question}"}, "columns: no hint; the Hub has"),
    ],
)
def test_what_differs_is_told(
    hub: Server, check: Any, source: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    sound, row = check(source, verified=False, **fields)
    assert not sound
    assert message in " ".join(row["differences"])
    assert "verified: true" not in row["manifest_lines"]


def test_what_the_card_leaves_out_the_viewer_tells(hub: Server, check: Any) -> None:
    columns = {"question": "query", "answer": "label"}
    source = {"hub_id": "owner/viewed", "hub_config": "en", "columns": columns}
    assert check(source, splits={"train": {"n": 7}})[0]
    sound, row = check(source | {"hub_config": "en+de"}, splits={"train": {"n": 14}})
    assert (sound, row["differences"]) == (False, ["split train: n is 14; the Hub has 15 rows"])


def test_what_cannot_be_compared_is_a_note_and_no_difference(hub: Server, check: Any) -> None:
    assert check({"hub_id": "owner/silent"})[1]["notes"] == ["the Hub tells neither splits nor columns"]
    assert check({"hub_id": "owner/gated"})[1]["notes"] == ["gated: needs `hf auth login`"]


def test_an_alias_that_is_found_is_named(hub: Server, check: Any) -> None:
    sound, row = check({"hub_id": "old/set", "hub_aliases": ["owner/set"], "revision": COMMIT})
    assert (sound, row["notes"]) == (True, ["found as owner/set, not old/set"])


@pytest.mark.parametrize(("file", "agrees"), [("train.json", True), ("valid.json", False)])
def test_files_of_a_downloaded_set_are_looked_for_in_its_repository(
    hub: Server, check: Any, file: str, agrees: bool
) -> None:
    sound, row = check(
        {"kind": "llava", "root": "downloads:Files/domain/RS"},
        splits={"train": {"files": [file]}},
        homepage="https://huggingface.co/datasets/owner/files",
    )
    assert sound is agrees
    expected = [] if agrees else [f"file {file}: not in owner/files; it may be inside pictures.zip"]
    assert row["differences"] == expected


def test_without_a_network_nothing_is_compared(hub: Server, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"127.0.0.1:9 cannot be reached .*Is there a network"):
        check({"hub_id": "owner/set"})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        check({"hub_id": "owner/set"})


def test_a_set_that_names_no_repository_cannot_be_compared(hub: Server, check: Any) -> None:
    with pytest.raises(UserError, match="mine: no repository of the Hub is named"):
        check({"kind": "jsonl"}, splits={"train": {"files": ["a.jsonl"]}})
