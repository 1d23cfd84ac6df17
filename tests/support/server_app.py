"""The stand-in server itself: endpoints, and the faults that its knobs ask for."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import sys
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self

from forgetbench.models.load import LoadedModel
from tests.support import server_replies as replies
from tests.support.server_knobs import SOUND, Knobs
from tests.support.server_model import Prompt, RefusedError, ServedModel

GENERATE, CHAT = "/inference/v1/generate", "/v1/chat/completions"
_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_DISABLED = "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them."
_NOT_FOUND = 404, b'{"detail":"Not Found"}'
_PLAIN = {
    *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "stop", "stop_token_ids"),
    *("logprobs", "top_logprobs", "ignore_eos", "skip_special_tokens"),
}


class StandIn:
    """The server on a free loopback port; a context manager that serves from a thread."""

    def __init__(
        self,
        model: str,
        knobs: Knobs = SOUND,
        name: str = "base",
        adapters: dict[str, str] | None = None,
        loaded: LoadedModel | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        """Load what is served.

        Args:
            model: as model.path.
            knobs: what is wrong with it.
            name: under which the base is served.
            adapters: names and PEFT folders, served from the start.
            loaded: the model, if a test has it already; it is not changed.
            address: host and port; 0 is any that is free.
        """
        self.knobs = knobs
        self.model = ServedModel(model, name, loaded, knobs.max_model_len)
        for adapter, path in (adapters or {}).items():
            self.model.add_adapter(adapter, path, knobs.max_lora_rank)
        self.seen: Counter[str] = Counter()
        """Requests by path; answers that were `stale`, `failed` or `drifted`; the most scoring requests `at once`."""
        self.requests: list[tuple[str, dict[str, Any]]] = []
        """Path and body of every POST."""
        self.on_death: Callable[[], object] = self._close
        self._lock, self._end = Lock(), Event()
        self._scored = self._in_flight = 0
        self._known, self._drifted = set[str](), set[str]()
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._http = _Server(address, handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def serve(self) -> None:
        """Serve until killed."""
        self._http.serve_forever()

    def _close(self) -> None:
        if not self._end.is_set():
            self._end.set()
            self._http.shutdown()
            self._http.server_close()

    def is_dead(self) -> bool:
        return self._end.is_set()

    def respond(self, method: str, path: str, headers: Any, content: bytes) -> tuple[int, bytes] | None:
        """Status and body; None closes the connection without either."""
        with self._lock:
            self.seen[path] += 1
        if self.knobs.key and path.startswith(_GUARDED) and headers.get("Authorization") != f"Bearer {self.knobs.key}":
            return 401, replies.written({"error": "Unauthorized"})
        if method == "GET":
            return self._got(path)
        try:
            body = self._understood(json.loads(content))
            with self._lock:
                self.requests.append((path, body))
            return self._posted(path, body)
        except json.JSONDecodeError as error:
            refusal = RefusedError(f"1 validation error: JSON decode error ({error})", "body.1", kind="Bad Request")
        except RefusedError as error:
            refusal = error
        return refusal.code, replies.written(replies.error(refusal, self.knobs.owner))

    def _understood(self, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {key: self._understood(value) for key, value in body.items() if key not in self.knobs.lacks}

    def _got(self, path: str) -> tuple[int, bytes]:
        if path == "/health":
            return 200, b""
        if path == "/seen":
            return 200, replies.written(self.seen)
        if path == "/version" and self._is_vllm:
            return 200, replies.written({"version": self.knobs.version})
        if path == "/v1/models":
            cards = [replies.card(self.model, name, self.knobs.owner) for name in self.model.models]
            return 200, replies.written({"object": "list", "data": cards})
        return (405, b'{"detail":"Method Not Allowed"}') if path in {GENERATE, CHAT} else _NOT_FOUND

    @property
    def _is_vllm(self) -> bool:
        return self.knobs.owner == "vllm"

    def _posted(self, path: str, body: dict[str, Any]) -> tuple[int, bytes] | None:
        if path == CHAT:
            return self._counted(lambda: self._chat(body))
        if path == GENERATE and self._is_vllm:
            if not self.knobs.scale_out:
                raise RefusedError(_DISABLED, None, 403, "PermissionDeniedError")
            return self._counted(lambda: self._generate(body))
        if path == "/v1/load_lora_adapter" and self._is_vllm and self.knobs.runtime_lora:
            name = body["lora_name"]
            if name in self.model.models and not body.get("load_inplace"):
                message = f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in "
                raise RefusedError(message + "place, set 'load_inplace' to True.", kind="InvalidUserInput")
            self.model.add_adapter(name, body["lora_path"], self.knobs.max_lora_rank)
            return 200, f"Success: LoRA adapter '{name}' added successfully.".encode()
        if path == "/collective_rpc" and self._is_vllm and self.knobs.dev_mode:
            assert body["method"] == "reload_weights"
            self.model.reload(body["kwargs"]["weights_path"])
            return 200, replies.written({"results": [None]})
        return _NOT_FOUND

    def _counted(self, answered: Callable[[], dict[str, Any]]) -> tuple[int, bytes] | None:
        with self._lock:
            self._scored += 1
            self._in_flight += 1
            number = self._scored
            self.seen["at once"] = max(self.seen["at once"], self._in_flight)
        try:
            return self._scoring(number, answered)
        finally:
            with self._lock:
                self._in_flight -= 1

    def _scoring(self, number: int, answered: Callable[[], dict[str, Any]]) -> tuple[int, bytes] | None:
        """One answer, or what the knobs put in its place."""
        if self.knobs.die_after and number > self.knobs.die_after:
            self.on_death()
            return None
        self._end.wait(self.knobs.delay_s)
        fails = bool(self.knobs.every) and number > self.knobs.after and number % self.knobs.every == 0
        failure = self.knobs.failure if fails else ""
        if failure:
            with self._lock:
                self.seen["failed"] += 1
        if failure in {"500", "503"}:
            raise RefusedError("Internal server error", None, int(failure), "InternalServerError")
        if failure == "hang":
            self._end.wait()
        if failure in {"drop", "hang"}:
            return None
        content = replies.written(_spoilt(answered(), failure))
        return 200, content[: len(content) // 2] if failure == "json" else content

    def _generate(self, body: dict[str, Any]) -> dict[str, Any]:
        for name in ("token_ids", "sampling_params"):
            if not body.get(name) and body.get(name) != {}:
                raise replies.missing(name)
        name, asked = self._name(body), body["sampling_params"]
        uris = [one.get("url") for one in body.get("content_parts") or ()]
        replies.sampling(asked, 1)
        prompt = self.model.prompt(body["token_ids"], replies.pictures(uris), self.knobs.lie)
        for ids in (body["token_ids"], prompt.ids):
            replies.check_length(self.model, len(ids))
        return self._answer(name, prompt, asked, asked.get("logprobs"), body, replies.generated)

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self._is_vllm:
            body = {key: value for key, value in body.items() if key in _PLAIN}
        if "messages" not in body:
            raise replies.missing("messages")
        name = self._name(body)
        if body.get("top_logprobs") and not body.get("logprobs"):
            message = "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)"
            raise RefusedError(message, "top_logprobs")
        if body.get("continue_final_message") and body.get("add_generation_prompt", True):
            message = "continue_final_message and add_generation_prompt are not compatible. "
            message += "Use continue_final_message when you want the model to continue the final message, "
            message += "and add_generation_prompt when you want to add a header that will prompt it to start "
            raise RefusedError(message + "a new assistant message instead.")
        listed = [one["content"] for one in body["messages"] if not isinstance(one["content"], str)]
        uris = [part["image_url"]["url"] for parts in listed for part in parts if part["type"] == "image_url"]
        n_asked = replies.sampling(body, 1).max_tokens if body.get("max_tokens") is not None else 0
        prompt = self.model.conversation(body, replies.pictures(uris), self.knobs.lie)
        replies.check_length(self.model, len(prompt.ids), n_asked)
        n = None
        if body.get("logprobs"):
            n = None if body.get("logprob_token_ids") and not body.get("top_logprobs") else body.get("top_logprobs", 0)
        write = replies.chatted if self._is_vllm else replies.plainly_chatted
        return self._answer(name, prompt, body, n, body, write)

    def _name(self, body: dict[str, Any]) -> str:
        name = str(body.get("model") or self.model.base)
        if name not in self.model.models:
            message = f"The model `{name}` does not exist. Valid aliases: {self.model.base}."
            raise RefusedError(message, "model", 404, "NotFoundError")
        return name

    def _answer(
        self, name: str, prompt: Prompt, asked: dict[str, Any], n: int | None, body: dict[str, Any], write: Any
    ) -> dict[str, Any]:
        try:
            replies.check_logprobs(self.model, asked, n, self.knobs.max_logprobs)
        except RefusedError:
            with self._lock:
                self._drifted |= set(prompt.pictures) - self._known if self.knobs.cache_drift else set()
            raise
        self._check_cache(prompt)
        model = self.model.models[name]
        if name == self.model.base and self.model.before is not None and prompt.share < self.knobs.stale:
            model = self.model.before
            with self._lock:
                self.seen["stale"] += 1
        answer = self.model.answer(model, prompt, replies.sampling(asked, self.model.max_model_len))
        shift = self._shift(prompt)
        answer.steps = [step + shift for step in answer.steps]
        answer.prompt = None if answer.prompt is None else answer.prompt + shift
        ids = asked.get("logprob_token_ids")
        pairs = zip(answer.steps, answer.ids, strict=True)
        steps = [replies.entries(logp_V, token, n or 0, ids) for logp_V, token in pairs]
        return dict(write(self.model, name, prompt, answer, steps, body))

    def _check_cache(self, prompt: Prompt) -> None:
        with self._lock:
            drifted = self._drifted & set(prompt.pictures)
            self._drifted -= drifted
            self._known |= set(prompt.pictures)
            self.seen["drifted"] += bool(drifted)
        if drifted:
            raise RefusedError("Internal server error", None, 500, "InternalServerError")

    def _shift(self, prompt: Prompt) -> float:
        if prompt.share >= self.knobs.share:
            return 0.0
        drawn = random.Random(hashlib.sha256(repr(prompt.share).encode()).digest())
        return self.knobs.offset + (drawn.uniform(-self.knobs.noise, self.knobs.noise) if self.knobs.noise else 0.0)


def _spoilt(found: Any, failure: str) -> Any:
    """A reply whose log-probabilities are no numbers."""
    if failure not in {"nan", "null"}:
        return found
    if isinstance(found, list):
        return [_spoilt(one, failure) for one in found]
    if isinstance(found, dict):
        value = float("nan") if failure == "nan" else None
        return {key: value if key == "logprob" else _spoilt(one, failure) for key, one in found.items()}
    return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error; anything else shows in the test's output."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: StandIn

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def _handle(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = None
        if not self.server_of.is_dead():
            answer = self.server_of.respond(self.command, self.path.partition("?")[0], self.headers, content)
        if answer is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, body = answer
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if body[:1] in b"{[" else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
