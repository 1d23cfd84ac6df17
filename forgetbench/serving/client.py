"""Requests to one server: those that fail are tried again, then named."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx2

from forgetbench.core.errors import UserError, reason
from forgetbench.core.secrets import without_secrets

_PAUSES_S = (0.5, 2.0, 8.0)
"""Between tries of a request, the last one again and again."""
_BUSY = {408, 409, 425, 429}
"""Answers that say: later."""
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
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
        self._tries = tries
        self._http = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(timeout_s, connect=10.0),
            limits=httpx2.Limits(max_connections=in_flight + 8, max_keepalive_connections=in_flight + 8),
            trust_env=urlsplit(self.url).hostname not in _LOOPBACK,  # a proxy does not know this machine's ports
        )
        self._closed = threading.Event()
        self.revive: Callable[[], None] | None = None
        """Brings back a server that does not answer, or raises a UserError; called by whatever thread notices."""

    def close(self) -> None:
        """End every request, those that are waiting included."""
        self._closed.set()
        self._http.close()

    def get(self, path: str) -> Any:
        """What a path tells; None where there is no such path, or the server does not answer."""
        try:
            answer = self._http.get(path, timeout=10.0)
            return answer.json() if answer.status_code == 200 and answer.content else None
        except (httpx2.HTTPError, RuntimeError, ValueError):
            return None

    def post_plain(self, path: str) -> None:
        """Ask for something to be done, where the server knows how to; its answer does not matter."""
        with suppress(httpx2.HTTPError, RuntimeError):
            self._http.post(path)

    def is_up(self) -> bool:
        """Whether the server answers at all and takes requests."""
        for path in ("/health", "/v1/models"):
            try:
                status = self._http.get(path, timeout=10.0).status_code
            except (httpx2.HTTPError, RuntimeError):
                return False
            if status != 404:
                return status < 500
        return False

    def post(self, path: str, body: Mapping[str, Any], what: str) -> Any:
        """The answer to a request, as JSON.

        Args:
            path: below the server's address.
            body: what is asked.
            what: names the request in a message, such as an item.

        Raises:
            RefusedError: the server does not take it.
            UserError: it failed as often as it may.
            ClosedError: the command is ending.
        """
        failure = ""
        for number in range(self._tries):
            if self._closed.is_set():
                raise ClosedError
            if number:
                self._closed.wait(_PAUSES_S[min(number, len(_PAUSES_S)) - 1])
            try:
                answer = self._http.post(path, json=body)
                failure = self._failure(answer)
                if not failure:
                    return answer.json()
            except (httpx2.HTTPError, RuntimeError) as error:  # a client that was closed meanwhile raises the latter
                if self._closed.is_set():
                    raise ClosedError from error
                failure = reason(error)
                if not isinstance(error, httpx2.TimeoutException) and self.revive:
                    self.revive()
            except ValueError:
                failure = "its answer is no JSON"
        raise UserError(f"{self.url}: {what}: the request failed {self._tries} times, at last with: {failure}.")

    @staticmethod
    def _failure(answer: httpx2.Response) -> str:
        """Why to try again; empty for an answer.

        Raises:
            RefusedError: trying again would not help.
        """
        if answer.status_code == 200:
            return ""
        said = _message(answer)
        if answer.status_code < 500 and answer.status_code not in _BUSY:
            raise RefusedError(answer.status_code, said)
        return f"HTTP {answer.status_code}: {said}"


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


def _message(answer: httpx2.Response) -> str:
    """What an error says, in one line and without secrets."""
    try:
        content = answer.json()
    except ValueError:
        content = answer.text
    if isinstance(content, dict):
        error = content.get("error", content)
        content = error.get("message", error) if isinstance(error, dict) else error
    return without_secrets(" ".join(str(content).split()))[:_MOST_LETTERS]
