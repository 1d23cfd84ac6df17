"""Ask by token ids: vLLM's `/inference/v1/generate`, which needs no chat template on the other side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forgetbench.serving.asking import Asker, Check
from forgetbench.serving.client import Client, FailedError, RefusedError
from forgetbench.serving.question import Question, Reply, UntoldError, number, reading_answer

PATH = "/inference/v1/generate"
_AT_ONCE = 19
"""Tokens whose log-probabilities are asked for in a request: with one more, vLLM's limit where nobody raised it."""


class TokenProtocol:
    """Prompts, options and replies as token ids."""

    def __init__(self, client: Client, check: Check) -> None:
        """Use a server that takes them.

        Args:
            client: of the server.
            check: called with every answer.
        """
        self._asker = Asker(client, check)

    def logprobs(self, model: str, question: Question, before: Sequence[int], wanted: Sequence[int]) -> list[float]:
        """The log-probability of each wanted token after a prompt and the beginning of a reply.

        Args:
            model: the served one.
            question: the prompt.
            before: token ids of the beginning of the reply.
            wanted: tokens that may come next.

        Raises:
            UserError: the server does not answer, or reads another prompt.
        """
        found: dict[int, float] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            answer = self._ask(model, question, before, _telling(wanted[start : start + _AT_ONCE]))
            with reading_answer(question):
                told = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
                found |= {one["token_id"]: number(one["logprob"], question) for one in told}
        lacking = [token for token in wanted if token not in found]
        if lacking:
            raise UntoldError(
                f"Item '{question.sample.id}': the server tells no log-probability of token {lacking[0]}."
            )
        return [found[token] for token in wanted]

    def candidates(self, model: str, question: Question, candidates: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of every candidate, summed over its tokens; what several begin with is asked once.

        Args:
            model: the served one.
            question: the prompt.
            candidates: their token ids; none begins another.
        """
        totals = [0.0] * len(candidates)
        beginnings = {ids[:n] for ids in map(tuple, candidates) for n in range(len(ids))}
        for before in sorted(beginnings, key=lambda ids: (len(ids), ids)):
            n = len(before)
            here = [k for k, ids in enumerate(candidates) if len(ids) > n and tuple(ids[:n]) == before]
            wanted = list(dict.fromkeys(candidates[k][n] for k in here))
            found = dict(zip(wanted, self.logprobs(model, question, before, wanted), strict=True))
            for k in here:
                totals[k] += found[candidates[k][n]]
        return totals

    def reply(self, model: str, question: Question, max_tokens: int, stop: Sequence[str], ends: Sequence[int]) -> Reply:
        """What the model writes, decoded greedily.

        Args:
            model: the served one.
            question: the prompt.
            max_tokens: of the reply at most.
            stop: texts that end it.
            ends: tokens that end it.
        """
        sampling = {"max_tokens": max_tokens, "stop": list(stop), "stop_token_ids": list(ends)}
        answer = self._ask(model, question, (), sampling)
        with reading_answer(question):
            choice = answer["choices"][0]
            return Reply([int(one) for one in choice["token_ids"]], "", choice["finish_reason"] == "length")

    def _ask(self, model: str, question: Question, further: Sequence[int], sampling: dict[str, Any]) -> dict[str, Any]:
        body = {
            "model": model,
            "token_ids": [*question.sent_ids, *further],
            "content_parts": [{"type": "image_url", "url": one} for one in question.pictures] or None,
            "return_token_ids": True,
            # All of them said: a server may have defaults of its own from the model's files.
            "sampling_params": {"temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.0, **sampling},
        }
        return self._asker.ask(PATH, body, question, further)


def takes_ids(client: Client, model: str, token: int) -> bool:
    """Whether a server takes prompts as token ids, returns them, and tells the log-probability of a chosen token."""
    sampling = {"temperature": 0.0, **_telling([token])}
    body = {"model": model, "token_ids": [token], "return_token_ids": True, "sampling_params": sampling}
    try:
        answer = client.post(PATH, body, "the first request", tries=2)
        told = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return answer["prompt_token_ids"] == [token] and any(one["token_id"] == token for one in told)
    except (RefusedError, FailedError, LookupError, TypeError):
        return False


def _telling(wanted: Sequence[int]) -> dict[str, Any]:
    """What asks for the log-probabilities of some tokens.

    vLLM lists the token that it would write first, and then as many as are asked for in all: the last one would be
    missing. It stands there twice for that.
    """
    tokens = [*wanted, wanted[-1]]
    return {"max_tokens": 1, "logprobs": len(tokens), "logprob_token_ids": tokens}
