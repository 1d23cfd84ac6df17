"""Ask by token ids: vLLM's `/inference/v1/generate`, which needs no chat template in the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forgetbench.serving.client import Client, FailedError, RefusedError
from forgetbench.serving.question import MissingLogprobError, Question, Reply, number, reading_answer
from forgetbench.serving.verified_client import Check, VerifiedClient

PATH = "/inference/v1/generate"
_MAX_TOKENS_PER_REQUEST = 19
"""Tokens whose log-probabilities one request asks for; one more is vLLM's default limit."""


class TokenProtocol:
    """Protocol with prompts, options and replies as token ids."""

    def __init__(self, client: Client, check: Check) -> None:
        """Use a server that takes token ids.

        Args:
            client: of the server.
            check: called with every answer.
        """
        self._verified_client = VerifiedClient(client, check)

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
        logprobs: dict[int, float] = {}
        for start in range(0, len(wanted), _MAX_TOKENS_PER_REQUEST):
            answer = self._ask(
                model, question, before, _logprob_parameters(wanted[start : start + _MAX_TOKENS_PER_REQUEST])
            )
            with reading_answer(question):
                listed = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
                logprobs |= {entry["token_id"]: number(entry["logprob"], question) for entry in listed}
        missing = [token for token in wanted if token not in logprobs]
        if missing:
            raise MissingLogprobError(
                f"Item '{question.sample.id}': the server tells no log-probability of token {missing[0]}."
            )
        return [logprobs[token] for token in wanted]

    def candidates(self, model: str, question: Question, candidates: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of every candidate, summed over its tokens; a shared prefix is asked once.

        Args:
            model: the served one.
            question: the prompt.
            candidates: their token ids; none is a prefix of another.
        """
        totals = [0.0] * len(candidates)
        beginnings = {ids[:n] for ids in map(tuple, candidates) for n in range(len(ids))}
        for before in sorted(beginnings, key=lambda ids: (len(ids), ids)):
            n = len(before)
            here = [k for k, ids in enumerate(candidates) if len(ids) > n and tuple(ids[:n]) == before]
            wanted = list(dict.fromkeys(candidates[k][n] for k in here))
            logprobs = dict(zip(wanted, self.logprobs(model, question, before, wanted), strict=True))
            for k in here:
                totals[k] += logprobs[candidates[k][n]]
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
            return Reply([int(token) for token in choice["token_ids"]], "", choice["finish_reason"] == "length")

    def _ask(
        self, model: str, question: Question, reply_ids: Sequence[int], sampling: dict[str, Any]
    ) -> dict[str, Any]:
        body = {
            "model": model,
            "token_ids": [*question.sent_ids, *reply_ids],
            "content_parts": [{"type": "image_url", "url": url} for url in question.pictures] or None,
            "return_token_ids": True,
            # All are given: a server may take other defaults from the model's files.
            "sampling_params": {"temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.0, **sampling},
        }
        return self._verified_client.ask(PATH, body, question, reply_ids)


def accepts_token_ids(client: Client, model: str, token: int) -> bool:
    """Whether a server takes prompts as token ids, returns them, and returns the log-probability of a chosen token."""
    sampling = {"temperature": 0.0, **_logprob_parameters([token])}
    body = {"model": model, "token_ids": [token], "return_token_ids": True, "sampling_params": sampling}
    try:
        answer = client.post(PATH, body, "the first request", tries=2)
        listed = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return answer["prompt_token_ids"] == [token] and any(entry["token_id"] == token for entry in listed)
    except (RefusedError, FailedError, LookupError, TypeError):
        return False


def _logprob_parameters(wanted: Sequence[int]) -> dict[str, Any]:
    """Sampling parameters that ask for the log-probabilities of some tokens.

    vLLM lists the generated token first, and at most the requested number in all, so that the last token would be
    missing. Therefore the last token is given twice.
    """
    tokens = [*wanted, wanted[-1]]
    return {"max_tokens": 1, "logprobs": len(tokens), "logprob_token_ids": tokens}
