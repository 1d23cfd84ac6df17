"""Requests to one server: a request that fails is tried again; the final error names it."""

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
"""Pauses between tries of a request; the last one repeats."""
_BUSY = {408, 409, 425, 429}
"""HTTP statuses that ask to try again later."""
_MAX_MESSAGE_LENGTH = 400


class RefusedError(Exception):
    """The server refuses a request; trying again would not help."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the answer.

        Args:
            status: of HTTP.
            message: of the server, in one line.
        """
        super().__init__(f"HTTP {status}: {message}")
        self.status, self.message = status, message


class FailedError(UserError):
    """A request failed at every try, although the server is up."""


class ClosedError(Exception):
    """The command is ending: no more requests are sent."""


class Client:
    """One server over HTTP; may be used by many threads at once."""

    def __init__(self, url: str, key: str | None, in_flight: int, timeout_s: float, tries: int) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: of the server, with or without the `/v1` of OpenAI's protocol.
            key: API key; None for none.
            in_flight: number of requests at a time.
            timeout_s: of one request.
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
        """Brings back a server that does not answer, or raises a UserError; called by the thread that notices it."""

    def close(self) -> None:
        """End every request, also those that wait for an answer."""
        with self._lock:
            self._closed.set()
            for sock in self._sockets:  # closing a socket would not wake the thread that reads from it
                _shut_down(sock)
        self._http.close()

    def check_open(self) -> None:
        """Raise ClosedError if the command is ending."""
        if self._closed.is_set():
            raise ClosedError

    def get(self, path: str) -> Any:
        """The JSON of a path; None if there is no such path, or the server does not answer."""
        try:
            answer = self._http.get(path, timeout=10.0, extensions={"trace": self._remember_socket})
            return answer.json() if answer.status_code == 200 and answer.content else None
        except (httpx2.HTTPError, RuntimeError, ValueError):
            return None

    def is_up(self) -> bool:
        """Whether the server answers and takes requests.

        Raises:
            ClosedError: the command is ending.
        """
        for path in ("/health", "/v1/models"):
            self.check_open()
            try:
                status = self._http.get(path, timeout=10.0, extensions={"trace": self._remember_socket}).status_code
            except (httpx2.HTTPError, RuntimeError):
                return False
            if status != 404:
                return status < 500
        return False

    def post(self, path: str, body: Mapping[str, Any], what: str, tries: int | None = None) -> Any:
        """Send a request; the answer is a JSON object.

        Args:
            path: below the server's address.
            body: of the request.
            what: name of the request in a message, such as an item.
            tries: None: the number that the client was made with.

        Raises:
            RefusedError: the server refuses it.
            FailedError: every try failed.
            UserError: the server is gone and did not come back.
            ClosedError: the command is ending.
        """
        return self._post_with_retries(path, body, what, tries or self._tries, _parse_object)

    def post_command(self, path: str, body: Mapping[str, Any] | None, what: str) -> None:
        """As `post`, but the content of the answer is ignored."""
        self._post_with_retries(path, body, what, self._tries, lambda _: None)

    def _post_with_retries(
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
                answer = self._http.post(path, json=body, extensions={"trace": self._remember_socket})
                failure = self._retry_reason(answer)
                if not failure:
                    return read(answer)
            except (httpx2.HTTPError, RuntimeError) as error:  # RuntimeError: the client was closed meanwhile
                if self._closed.is_set():
                    raise ClosedError from error
                failure = self._clean(reason(error))
                if not isinstance(error, httpx2.TimeoutException) and self.revive:
                    self.revive()
            except _UnreadableError as error:
                failure = str(error)
        times = f"{tries} times, at last with" if tries > 1 else "with"
        raise FailedError(f"{self.url}: {what}: the request failed {times}: {failure}.")

    def _retry_reason(self, answer: httpx2.Response) -> str:
        """Why the request must be tried again; empty if it succeeded.

        Raises:
            RefusedError: trying again would not help.
        """
        if answer.status_code == 200:
            return ""
        message = self._clean(_error_message(answer))
        if answer.status_code < 500 and answer.status_code not in _BUSY:
            raise RefusedError(answer.status_code, message)
        return f"HTTP {answer.status_code}: {message}".removesuffix(": ")

    def _clean(self, text: str) -> str:
        """A text of the server, in one line and without secrets."""
        text = " ".join(text.split())
        text = text.replace(self._key, "<key>") if self._key else text
        return without_secrets(text)[:_MAX_MESSAGE_LENGTH].rstrip(".")

    def _remember_socket(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the sockets that are opened; later requests reuse them."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            sock = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._sockets.add(sock)
                if self._closed.is_set():
                    _shut_down(sock)


def key_from(variable: str) -> str | None:
    """The key in an environment variable; None if it is not set."""
    return os.environ.get(variable) or None


def wait_until(is_there: Callable[[], bool], seconds: float, pause_s: float = 0.25) -> bool:
    """Wait until a condition holds; False after `seconds`."""
    end = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > end:
            return False
        time.sleep(pause_s)
    return True


class _UnreadableError(Exception):
    """An answer that is incomplete or no JSON object."""


def _parse_object(answer: httpx2.Response) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        _UnreadableError: it is no JSON object, or the server broke off the answer, as it does when it ends.
    """
    try:
        content = answer.json()
    except (ValueError, RecursionError) as error:
        raise _UnreadableError("its answer is no JSON") from error
    if not isinstance(content, dict):
        raise _UnreadableError("its answer is no object of JSON")
    choices = content.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("finish_reason") in {"abort", "error"}:
            raise _UnreadableError("the server broke off its answer")
    return content


def _error_message(answer: httpx2.Response) -> str:
    """The error message in an answer."""
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


def _shut_down(sock: socket) -> None:
    with suppress(OSError):
        sock.shutdown(SHUT_RDWR)
