"""One request about an item: sent, and its answer's prompt held against what is meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.serving.client import Client, RefusedError
from forgetbench.serving.question import Question, reading_answer

Check = Callable[[Question, Sequence[int], dict[str, Any]], None]
"""Holds what the server read against what is meant."""


class Asker:
    """Asks one server, whatever the protocol."""

    def __init__(self, client: Client, check: Check) -> None:
        """Use a server.

        Args:
            client: of the server.
            check: called with every answer.
        """
        self._client, self._check = client, check

    def ask(self, path: str, body: Mapping[str, Any], question: Question, further: Sequence[int]) -> dict[str, Any]:
        """The answer to a request.

        Args:
            path: below the server's address.
            body: what is asked.
            question: the item.
            further: token ids of the reply that is sent along.

        Raises:
            UserError: the server does not take it, does not answer, or reads another prompt; names the item.
        """
        what = f"item '{question.sample.id}'"
        try:
            answer: dict[str, Any] = self._client.post(path, body, what)
        except RefusedError as error:
            raise UserError(f"{self._client.url}: {what} is refused ({error}).") from error
        with reading_answer(question):
            self._check(question, further, answer)
        return answer
