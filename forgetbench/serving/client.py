"""Requests to one server: those that fail are tried again, then named."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from socket import SHUT_RDWR, socket
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import httpx2

from forgetbench.core.errors import UserError, reason
from forgetbench.core.secrets import without_secrets

_PAUSES_S = (0.5, 2.0, 8.0)
"""Between tries of a request, the last one again and again."""
_BUSY = {408, 409, 425, 429}
"""Answers that say: later."""
_MOST_LETTERS = 400


class RefusedError(Exception):
    """The server's answer to a request that it does not take; trying again would not help."""

    def __init__(self, status: int, message: str) -> None:
        """Keep what it said.

        Args:
            status: of HTTP.
            message: in one line.
        """
        super().__init__(f"HTTP {status}: {message}")
        self.status, self.message = status, message


class FailedError(UserError):
    """A request failed as often as it may, with the server there."""


class ClosedError(Exception):
    """The command is ending: nothing is asked any more."""


class Client:
    """One server over HTTP; may be used by many threads at once."""

    def __init__(self, url: str, key: str | None, in_flight: int, timeout_s: float, tries: int) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: where the server is, with or without the `/v1` of OpenAI's protocol.
            key: that it asks for; None for none.
            in_flight: requests at a time.
            timeout_s: how long one request may take.
            tries: of one request before it fails.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self._key, self._tries = key, tries
        self._http = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(timeout_s, connect=10.0),
            limits=httpx2.Limits(max_connections=in_flight + 8, max_keepalive_connections=in_flight + 8),
            trust_env=not _is_loopback(self.url),  # a proxy does not know this machine's ports
        )
        self._closed = threading.Event()
        self._sockets = WeakSet[socket]()
        self._lock = threading.Lock()
        self.revive: Callable[[], None] | None = None
        """Brings back a server that does not answer, or raises a UserError; called by whatever thread notices."""

    def close(self) -> None:
        """End every request, those that are waiting for an answer included."""
        with self._lock:
            self._closed.set()
            for one in self._sockets:  # to close one does not wake the thread that reads from it
                _shut_down(one)
        self._http.close()

    def check_open(self) -> None:
        """Raise ClosedError if the command is ending."""
        if self._closed.is_set():
            raise ClosedError

    def get(self, path: str) -> Any:
        """What a path tells; None where there is no such path, or the server does not answer."""
        try:
            answer = self._http.get(path, timeout=10.0, extensions={"trace": self._note})
            return answer.json() if answer.status_code == 200 and answer.content else None
        except (httpx2.HTTPError, RuntimeError, ValueError):
            return None

    def is_up(self) -> bool:
        """Whether the server answers at all and takes requests.

        Raises:
            ClosedError: the command is ending.
        """
        for path in ("/health", "/v1/models"):
            self.check_open()
            try:
                status = self._http.get(path, timeout=10.0, extensions={"trace": self._note}).status_code
            except (httpx2.HTTPError, RuntimeError):
                return False
            if status != 404:
                return status < 500
        return False

    def post(self, path: str, body: Mapping[str, Any], what: str, tries: int | None = None) -> Any:
        """The answer to a request: an object of JSON.

        Args:
            path: below the server's address.
            body: what is asked.
            what: names the request in a message, such as an item.
            tries: None: as many as any request has.

        Raises:
            RefusedError: the server does not take it.
            FailedError: it failed as often as it may.
            UserError: the server is gone, and did not come back.
            ClosedError: the command is ending.
        """
        return self._tried(path, body, what, tries or self._tries, _content)

    def order(self, path: str, body: Mapping[str, Any] | None, what: str) -> None:
        """Ask for something to be done; as `post`, but the answer may be anything."""
        self._tried(path, body, what, self._tries, lambda _: None)

    def _tried(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        what: str,
        tries: int,
        read: Callable[[httpx2.Response], Any],
    ) -> Any:
        failure = ""
        for number in range(tries):
            if number:
                self._closed.wait(_PAUSES_S[min(number, len(_PAUSES_S)) - 1])
            self.check_open()
            try:
                answer = self._http.post(path, json=body, extensions={"trace": self._note})
                failure = self._failure(answer)
                if not failure:
                    return read(answer)
            except (httpx2.HTTPError, RuntimeError) as error:  # a client that was closed meanwhile raises the latter
                if self._closed.is_set():
                    raise ClosedError from error
                failure = self._clean(reason(error))
                if not isinstance(error, httpx2.TimeoutException) and self.revive:
                    self.revive()
            except _UnreadableError as error:
                failure = str(error)
        times = f"{tries} times, at last with" if tries > 1 else "with"
        raise FailedError(f"{self.url}: {what}: the request failed {times}: {failure}.")

    def _failure(self, answer: httpx2.Response) -> str:
        """Why to try again; empty for an answer.

        Raises:
            RefusedError: trying again would not help.
        """
        if answer.status_code == 200:
            return ""
        said = self._clean(_message(answer))
        if answer.status_code < 500 and answer.status_code not in _BUSY:
            raise RefusedError(answer.status_code, said)
        return f"HTTP {answer.status_code}: {said}".removesuffix(": ")

    def _clean(self, text: str) -> str:
        """A text of the server's, in one line and without secrets."""
        text = " ".join(text.split())
        text = text.replace(self._key, "<key>") if self._key else text
        return without_secrets(text)[:_MOST_LETTERS].rstrip(".")

    def _note(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the sockets that are opened; any request may be sent over one that another opened."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            one = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._sockets.add(one)
                if self._closed.is_set():
                    _shut_down(one)


def key_from(variable: str) -> str | None:
    """The key that an environment variable holds; None where it is not set."""
    return os.environ.get(variable) or None


def wait_until(is_there: Callable[[], bool], seconds: float, pause_s: float = 0.25) -> bool:
    """Wait for something to become true; False if it did not in time."""
    end = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > end:
            return False
        time.sleep(pause_s)
    return True


class _UnreadableError(Exception):
    """An answer that came in pieces."""


def _content(answer: httpx2.Response) -> dict[str, Any]:
    """What an answer says.

    Raises:
        _UnreadableError: it is no answer, or one that the server broke off, as it does when it ends.
    """
    try:
        content = answer.json()
    except (ValueError, RecursionError) as error:
        raise _UnreadableError("its answer is no JSON") from error
    if not isinstance(content, dict):
        raise _UnreadableError("its answer is no object of JSON")
    choices = content.get("choices")
    for one in choices if isinstance(choices, list) else ():
        if isinstance(one, dict) and one.get("finish_reason") in {"abort", "error"}:
            raise _UnreadableError("the server broke off its answer")
    return content


def _message(answer: httpx2.Response) -> str:
    """What an error says."""
    try:
        content = answer.json()
    except (ValueError, RecursionError):
        content = answer.text
    if isinstance(content, dict):
        error = content.get("error", content)
        content = error.get("message", error) if isinstance(error, dict) else error
    return str(content)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _shut_down(one: socket) -> None:
    with suppress(OSError):
        one.shutdown(SHUT_RDWR)
