"""Requests are made when there is room for them, by one thread, and tell what they are about when they fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind, ImageRef, Sample
from forgetbench.data.collate import Encoder
from forgetbench.models.load import LoadedModel
from forgetbench.serving.client import Client, ClosedError, FailedError, RefusedError
from forgetbench.serving.question import QuestionBuilder
from forgetbench.serving.window import RequestWindow
from tests.support.serving import load_tiny


def test_of_many_items_a_few_are_prepared_at_a_time() -> None:
    prepared, answered, most = 0, 0, 0
    lock = threading.Lock()

    def prepare(item: int) -> Callable[[], int]:
        nonlocal prepared, most
        prepared += 1
        with lock:
            most = max(most, prepared - answered)

        def call() -> int:
            nonlocal answered
            with lock:
                answered += 1
            return 2 * item

        return call

    batches = [(number, range(10 * number, 10 * number + 10)) for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        answers = dict(RequestWindow(pool, prepare, 8).run(batches))
    assert answers == {number: [2 * item for item in items] for number, items in batches}
    assert most <= 9


def test_a_batch_is_given_as_soon_as_it_is_whole() -> None:
    go_on = threading.Event()

    def prepare(item: int) -> Callable[[], int]:
        return lambda: item if item or go_on.wait(30) else -1

    with ThreadPoolExecutor(2) as pool:
        order = []
        for number, _ in RequestWindow(pool, prepare, 2).run([(0, [0]), (1, [1]), (2, [2])]):
            order.append(number)
            if len(order) == 2:
                go_on.set()
    assert order == [1, 2, 0]


def test_a_call_that_fails_ends_the_others() -> None:
    calls = []

    def prepare(item: int) -> Callable[[], int]:
        calls.append(item)
        return lambda: 1 // (item - 3)

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        list(RequestWindow(pool, prepare, 4).run((k, [k]) for k in range(1000)))
    assert len(calls) < 10


def test_prompts_are_encoded_by_the_thread_that_asks_for_batches(tiny: LoadedModel) -> None:
    # A tokenizer that reads control tokens as text and one that does not are one object in two states.
    encoder = Encoder(load_tiny().processor)
    questions = QuestionBuilder(encoder, None)
    name = encoder.tokenizer.eos_token
    texts = [f"Is {name} a word? {k}" if k % 2 else f"Is it {k}?" for k in range(60)]
    samples = [Sample.question(str(k), text, "A", AnswerKind.text) for k, text in enumerate(texts)]
    wanted = [encoder.sent_ids(sample) for sample in samples]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            ids = list(pool.map(lambda sample: list(questions.question(sample, []).sent_ids), samples))
            assert ids == wanted


def test_pictures_are_read_when_they_are_sent_and_no_earlier(tiny: LoadedModel, tmp_path: Path) -> None:
    sample = Sample.question("a", "Which?", "A", AnswerKind.text, (ImageRef(str(tmp_path), "none.png"),))
    question = QuestionBuilder(Encoder(tiny.processor), None).question(sample, [])
    with pytest.raises(UserError, match=r"none\.png"):
        assert question.pictures


Scripted = Callable[..., Client]


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """Clients of a server that gives these answers, one after the other."""
    servers = []

    def start(*answers: tuple[int, bytes], **settings: object) -> Client:
        waiting: list[tuple[int, bytes]] = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, body = waiting.pop(0)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        url = f"http://127.0.0.1:{server.server_address[1]}/v1/"
        return Client(url, **{"key": None, "in_flight": 2, "timeout_s": 5.0, "tries": 2} | settings)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


BROKEN_OFF = b'{"choices": [{"finish_reason": "abort", "message": {"content": "The ga"}}]}'


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([(200, BROKEN_OFF)] * 2, "the server broke off its answer"),
        ([(200, b"[1]")] * 2, "its answer is no object of JSON"),
        ([(200, b"[" * 100_000)] * 2, "its answer is no JSON"),
        ([(200, b"\xff\xfe{")] * 2, "its answer is no JSON"),
        ([(503, b"<html>\n busy </html>"), (500, b'{"detail": "no"}')], "HTTP 500: {'detail': 'no'}"),
        ([(429, b"")] * 2, "HTTP 429"),
    ],
    ids=["broken off", "a list", "deep", "bytes", "errors", "too many"],
)
def test_answers_that_are_none_are_asked_for_again(
    scripted: Scripted, answers: Sequence[tuple[int, bytes]], message: str
) -> None:
    with pytest.raises(FailedError) as failed:
        scripted(*answers).post("/x", {}, "item 'a'")
    assert f"item 'a': the request failed 2 times, at last with: {message}." in str(failed.value)


def test_what_comes_at_the_second_try_is_the_answer(scripted: Scripted) -> None:
    assert scripted((500, b""), (200, b'{"a": 1}')).post("/x", {}, "item 'a'") == {"a": 1}


def test_a_refusal_is_not_asked_again_and_shows_no_key(scripted: Scripted) -> None:
    client = scripted((400, b'{"error": {"message": "Key abcd-1234\\n is wrong."}}'), key="abcd-1234")
    with pytest.raises(RefusedError, match=r"HTTP 400: Key <key> is wrong$"):
        client.post("/x", {}, "item 'a'")


def test_nothing_is_asked_after_the_end(scripted: Scripted) -> None:
    client = scripted((200, b"{}"))
    client.close()
    with pytest.raises(ClosedError):
        client.post("/x", {}, "item 'a'")
    with pytest.raises(ClosedError):
        client.is_up()
