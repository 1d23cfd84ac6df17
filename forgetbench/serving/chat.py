"""Ask by conversations: OpenAI's `/v1/chat/completions`, with vLLM's extensions if the server takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef, Speaker, Turn
from forgetbench.scoring.reply import Marks
from forgetbench.serving.client import Client, FailedError, RefusedError
from forgetbench.serving.question import (
    Capabilities,
    MismatchError,
    MissingLogprobError,
    Question,
    QuestionBuilder,
    Reply,
    number,
    reading_answer,
)
from forgetbench.serving.verified_client import Check, VerifiedClient

PATH = "/v1/chat/completions"
_TOP_LOGPROBS = (20, 5, 1)
"""Values of `top_logprobs` to try, OpenAI's limit first."""
_TOKEN_ID_PREFIX = "token_id:"
_CONTINUE_REPLY = {"prompt_logprobs": 0, "add_generation_prompt": False, "continue_final_message": True}
_WORD_STARTS = ("\u2581", "\u0120")
"""Characters that vocabularies use for a blank."""
_NEUTRAL = {"repetition_penalty": 1.0, "top_k": -1}


class ChatProtocol:
    """Protocol with prompts as conversations, options and replies as texts; token ids if the server returns them."""

    def __init__(
        self,
        client: Client,
        check: Check,
        capabilities: Capabilities,
        questions: QuestionBuilder,
        system: str | None,
        marks: Marks,
    ) -> None:
        """Use a server.

        Args:
            client: of the server.
            check: called with every answer.
            capabilities: of the server.
            questions: have the model's tokenizer.
            system: system prompt for conversations without a system turn.
            marks: begin and end marks of thoughts, for servers that return thoughts separately.
        """
        self._verified_client, self._capabilities = VerifiedClient(client, check), capabilities
        self._question_builder, self._system, self._marks = questions, system, marks

    def logprobs(self, model: str, question: Question, before: Sequence[int], wanted: Sequence[int]) -> list[float]:
        """The log-probability of each wanted token after a prompt and the beginning of a reply.

        Tokens that are not among the returned ones are asked for one by one.

        Args:
            model: the served one.
            question: the prompt.
            before: token ids of the beginning of the reply.
            wanted: tokens that may come next.

        Raises:
            UserError: the server does not answer, reads another prompt, or cannot return one of them.
        """
        if before:
            return [self._reply_logprobs(model, question, [*before, token])[-1] for token in wanted]
        asked = {"max_tokens": 1, "logprobs": True, "top_logprobs": self._capabilities.top_logprobs}
        if self._capabilities.extensions:
            asked["return_tokens_as_token_ids"] = True
        answer = self._ask(model, question, (), asked)
        with reading_answer(question):
            listed = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            logprobs = [self._listed_logprob(question, listed, token) for token in wanted]
        missing = [token for token, logprob in zip(wanted, logprobs, strict=True) if logprob is None]
        if missing and not self._capabilities.prompt_logprobs:
            raise MissingLogprobError(
                f"Item '{question.sample.id}': {self._question_builder.text(missing[:1])!r} is not among the "
                f"{self._capabilities.top_logprobs} likeliest tokens, and the server tells no others; start it with a "
                "higher limit (vLLM: --max-logprobs), or decode greedily (matrix.decodings=[greedy])."
            )
        return [
            self._reply_logprobs(model, question, [token])[-1] if logprob is None else logprob
            for token, logprob in zip(wanted, logprobs, strict=True)
        ]

    def candidates(self, model: str, question: Question, candidates: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of every candidate, summed over its tokens.

        Args:
            model: the served one.
            question: the prompt.
            candidates: their token ids.
        """
        return [sum(self._reply_logprobs(model, question, list(ids))) for ids in candidates]

    def reply(self, model: str, question: Question, max_tokens: int, stop: Sequence[str], ends: Sequence[int]) -> Reply:
        """What the model writes, decoded greedily.

        Args:
            model: the served one.
            question: the prompt.
            max_tokens: of the reply at most.
            stop: texts that end it.
            ends: tokens that end it.
        """
        asked: dict[str, Any] = {"max_tokens": max_tokens}
        if stop:
            asked["stop"] = list(stop)
        if self._capabilities.extensions:
            asked |= {"stop_token_ids": list(ends), "skip_special_tokens": False}
        answer = self._ask(model, question, (), asked)
        with reading_answer(question):
            choice = answer["choices"][0]
            message, is_cut_off = choice["message"], choice["finish_reason"] == "length"
            text = message.get("content") or ""
            if thought := message.get("reasoning") or message.get("reasoning_content"):
                opening, closing = self._marks[0]
                text = f"{opening}{thought}{'' if is_cut_off and not text else closing}{text}"
            ids = choice.get("token_ids")
            return Reply(None if ids is None else [int(token) for token in ids], text, is_cut_off)

    def _reply_logprobs(self, model: str, question: Question, ids: list[int]) -> list[float]:
        """Log-probabilities of the tokens of a given reply."""
        text = self._question_builder.text(ids).strip()
        answer = self._ask(model, question, ids, {"max_tokens": 1, **_CONTINUE_REPLY}, text)
        with reading_answer(question):
            prompt_logprobs = answer["prompt_logprobs"][-len(ids) :]
            if not all(str(token) in by_token for by_token, token in zip(prompt_logprobs, ids, strict=True)):
                raise MismatchError(
                    f"Item '{question.sample.id}': the server reads the reply {text!r} as other tokens than are meant; "
                    "it cannot score this option."
                )
            return [
                number(by_token[str(token)]["logprob"], question)
                for by_token, token in zip(prompt_logprobs, ids, strict=True)
            ]

    def _listed_logprob(self, question: Question, listed: Sequence[Mapping[str, Any]], token: int) -> float | None:
        """The log-probability of a token in the server's list; None if it is not there, or twice."""
        names = {f"{_TOKEN_ID_PREFIX}{token}", *self._spellings(token)}
        matches = [number(entry["logprob"], question) for entry in listed if entry["token"] in names]
        return matches[0] if len(matches) == 1 else None

    def _spellings(self, token: int) -> Iterator[str]:
        """Spellings of a token in servers' answers: as in the vocabulary, or its text with its leading blank."""
        piece, text = self._question_builder.piece(token), self._question_builder.text([token])
        yield piece
        if text and "\ufffd" not in text:
            yield f" {text.lstrip(' ')}" if piece.startswith(_WORD_STARTS) else text

    def _ask(
        self, model: str, question: Question, reply_ids: Sequence[int], asked: dict[str, Any], reply: str = ""
    ) -> dict[str, Any]:
        extensions: dict[str, Any] = {"return_token_ids": True} if self._capabilities.returns_ids else {}
        if self._capabilities.sampling:
            extensions |= _NEUTRAL
        messages = [*to_messages(question, self._system), *([{"role": "assistant", "content": reply}] if reply else [])]
        body = {"model": model, "messages": messages, "temperature": 0.0, "top_p": 1.0, **extensions, **asked}
        return self._verified_client.ask(PATH, body, question, reply_ids)


def to_messages(question: Question, system: str | None) -> list[dict[str, Any]]:
    """A conversation in the format of OpenAI's protocol."""
    pictures = iter(question.pictures)
    turns = question.sample.turns
    if system is not None and turns[0].speaker is not Speaker.system:
        turns = (Turn(Speaker.system, (system,)), *turns)
    return [{"role": turn.speaker.value, "content": _content(turn, pictures)} for turn in turns]


def _content(turn: Turn, pictures: Any) -> Any:
    if not any(isinstance(part, ImageRef) for part in turn.parts):
        return turn.text
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": next(pictures)}}
        for part in turn.parts
    ]


def probe_chat_capabilities(client: Client, model: str) -> Capabilities:
    """Find out by requests what a server's `/v1/chat/completions` can do.

    Raises:
        UserError: it does not answer a plain question.
    """
    question: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    asked: dict[str, Any] = {"model": model, "messages": question, "max_tokens": 1, "temperature": 0.0}
    if _try_request(client, asked) is None:
        raise UserError(f"{client.url}: {PATH} of model '{model}' does not take a plain question.")
    extended = _try_request(client, asked | {"return_token_ids": True, "return_tokens_as_token_ids": True}) or {}
    top = next(
        (
            n
            for n in _TOP_LOGPROBS
            if _returns_logprobs(_try_request(client, asked | {"logprobs": True, "top_logprobs": n}), n)
        ),
        0,
    )
    continuation = {"messages": [*question, {"role": "assistant", "content": "A"}], **_CONTINUE_REPLY}
    continued = _try_request(client, asked | continuation) or {}
    returns_ids = extended.get("prompt_token_ids") is not None
    return Capabilities(
        returns_ids=returns_ids,
        top_logprobs=top,
        prompt_logprobs=bool(continued.get("prompt_logprobs")),
        extensions=returns_ids,
        sampling=_try_request(client, asked | _NEUTRAL) is not None,
    )


def _try_request(client: Client, body: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = client.post(PATH, body, "a first request", tries=2)
    except (RefusedError, FailedError):
        return None
    return answer


def _returns_logprobs(answer: Mapping[str, Any] | None, n: int) -> bool:
    try:
        return answer is not None and len(answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) >= n
    except (LookupError, TypeError):
        return False
