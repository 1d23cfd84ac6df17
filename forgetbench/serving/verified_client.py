"""Send a request about an item, and check that the server read the intended prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.serving.client import Client, RefusedError
from forgetbench.serving.question import Question, reading_answer

Check = Callable[[Question, Sequence[int], dict[str, Any]], None]
"""Compares the prompt that the server read with the intended prompt; raises if they differ."""


class VerifiedClient:
    """Client of one server, for any protocol, that checks the prompt of every answer."""

    def __init__(self, client: Client, check: Check) -> None:
        """Use a server.

        Args:
            client: of the server.
            check: called with the question, the reply ids and the answer.
        """
        self._client, self._check = client, check

    def ask(self, path: str, body: Mapping[str, Any], question: Question, reply_ids: Sequence[int]) -> dict[str, Any]:
        """The answer to a request.

        Args:
            path: below the server's address.
            body: of the request.
            question: the item.
            reply_ids: token ids of a given reply that follows the prompt.

        Raises:
            UserError: the server refuses the request, does not answer, or reads another prompt; names the item.
        """
        what = f"item '{question.sample.id}'"
        try:
            answer: dict[str, Any] = self._client.post(path, body, what)
        except RefusedError as error:
            raise UserError(f"{self._client.url}: {what} is refused ({error}).") from error
        with reading_answer(question):
            self._check(question, reply_ids, answer)
        return answer
