"""Ask by conversations: OpenAI's `/v1/chat/completions`, with what vLLM adds to it where the server takes that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef, Speaker, Turn
from forgetbench.scoring.reply import Marks
from forgetbench.serving.asking import Asker, Check
from forgetbench.serving.client import Client, FailedError, RefusedError
from forgetbench.serving.question import (
    Abilities,
    MismatchError,
    Question,
    Questions,
    Reply,
    UntoldError,
    number,
    reading_answer,
)

PATH = "/v1/chat/completions"
_MOST = (20, 5, 1)
"""Numbers of `top_logprobs` that are tried: OpenAI's limit first."""
_BY_ID = "token_id:"
_CONTINUED = {"prompt_logprobs": 0, "add_generation_prompt": False, "continue_final_message": True}
_WORD_STARTS = ("\u2581", "\u0120")
"""How vocabularies write a blank."""
_NEUTRAL = {"repetition_penalty": 1.0, "top_k": -1}


class ChatProtocol:
    """Prompts as conversations, options and replies as texts; token ids wherever the server returns them."""

    def __init__(
        self,
        client: Client,
        check: Check,
        abilities: Abilities,
        questions: Questions,
        system: str | None,
        marks: Marks,
    ) -> None:
        """Use a server.

        Args:
            client: of the server.
            check: called with every answer.
            abilities: what it can do.
            questions: know the model's tokens.
            system: goes before conversations without a system turn of their own.
            marks: what thoughts stand between, for servers that return them apart.
        """
        self._asker, self._abilities = Asker(client, check), abilities
        self._questions, self._system, self._marks = questions, system, marks

    def logprobs(self, model: str, question: Question, before: Sequence[int], wanted: Sequence[int]) -> list[float]:
        """The log-probability of each wanted token after a prompt and the beginning of a reply.

        Those outside of what the server returns are asked for one by one.

        Args:
            model: the served one.
            question: the prompt.
            before: token ids of the beginning of the reply.
            wanted: tokens that may come next.

        Raises:
            UserError: the server does not answer, reads another prompt, or cannot tell one of them.
        """
        if before:
            return [self._continued(model, question, [*before, one])[-1] for one in wanted]
        asked = {"max_tokens": 1, "logprobs": True, "top_logprobs": self._abilities.top_logprobs}
        if self._abilities.extensions:
            asked["return_tokens_as_token_ids"] = True
        answer = self._ask(model, question, (), asked)
        with reading_answer(question):
            told = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            found = [self._told(question, told, token) for token in wanted]
        lacking = [token for token, one in zip(wanted, found, strict=True) if one is None]
        if lacking and not self._abilities.prompt_logprobs:
            raise UntoldError(
                f"Item '{question.sample.id}': {self._questions.text(lacking[:1])!r} is not among the "
                f"{self._abilities.top_logprobs} likeliest tokens, and the server tells no others; start it with a "
                "higher limit (vLLM: --max-logprobs), or decode greedily (matrix.decodings=[greedy])."
            )
        return [
            self._continued(model, question, [token])[-1] if one is None else one
            for token, one in zip(wanted, found, strict=True)
        ]

    def candidates(self, model: str, question: Question, candidates: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of every candidate, summed over its tokens.

        Args:
            model: the served one.
            question: the prompt.
            candidates: their token ids.
        """
        return [sum(self._continued(model, question, list(ids))) for ids in candidates]

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
        if self._abilities.extensions:
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
            return Reply(None if ids is None else [int(one) for one in ids], text, is_cut_off)

    def _continued(self, model: str, question: Question, ids: list[int]) -> list[float]:
        """Log-probabilities of the tokens of a reply that is given."""
        text = self._questions.text(ids).strip()
        answer = self._ask(model, question, ids, {"max_tokens": 1, **_CONTINUED}, text)
        with reading_answer(question):
            told = answer["prompt_logprobs"][-len(ids) :]
            if not all(str(token) in one for one, token in zip(told, ids, strict=True)):
                raise MismatchError(
                    f"Item '{question.sample.id}': the server reads the reply {text!r} as other tokens than are meant; "
                    "it cannot score this option."
                )
            return [number(one[str(token)]["logprob"], question) for one, token in zip(told, ids, strict=True)]

    def _told(self, question: Question, told: Sequence[Mapping[str, Any]], token: int) -> float | None:
        """The log-probability of a token among those that are told; None where it is not."""
        names = {f"{_BY_ID}{token}", *self._written(token)}
        found = [number(one["logprob"], question) for one in told if one["token"] in names]
        return found[0] if len(found) == 1 else None

    def _written(self, token: int) -> Iterator[str]:
        """How servers write a token: as the vocabulary does, or its text with the blank that it begins with."""
        piece, text = self._questions.piece(token), self._questions.text([token])
        yield piece
        if text and "\ufffd" not in text:
            yield f" {text.lstrip(' ')}" if piece.startswith(_WORD_STARTS) else text

    def _ask(
        self, model: str, question: Question, further: Sequence[int], asked: dict[str, Any], reply: str = ""
    ) -> dict[str, Any]:
        extensions: dict[str, Any] = {"return_token_ids": True} if self._abilities.returns_ids else {}
        if self._abilities.sampling:
            extensions |= _NEUTRAL
        messages = [*messages_of(question, self._system), *([{"role": "assistant", "content": reply}] if reply else [])]
        body = {"model": model, "messages": messages, "temperature": 0.0, "top_p": 1.0, **extensions, **asked}
        return self._asker.ask(PATH, body, question, further)


def messages_of(question: Question, system: str | None) -> list[dict[str, Any]]:
    """A conversation as OpenAI's protocol writes it."""
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


def chat_abilities(client: Client, model: str) -> Abilities:
    """What a server's `/v1/chat/completions` can do, by trying.

    Raises:
        UserError: it does not answer.
    """
    question: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    asked: dict[str, Any] = {"model": model, "messages": question, "max_tokens": 1, "temperature": 0.0}
    if _tried(client, asked) is None:
        raise UserError(f"{client.url}: {PATH} of model '{model}' does not take a plain question.")
    extended = _tried(client, asked | {"return_token_ids": True, "return_tokens_as_token_ids": True}) or {}
    top = next((n for n in _MOST if _tells(_tried(client, asked | {"logprobs": True, "top_logprobs": n}), n)), 0)
    said = {"messages": [*question, {"role": "assistant", "content": "A"}], **_CONTINUED}
    continued = _tried(client, asked | said) or {}
    returns_ids = extended.get("prompt_token_ids") is not None
    return Abilities(
        returns_ids=returns_ids,
        top_logprobs=top,
        prompt_logprobs=bool(continued.get("prompt_logprobs")),
        extensions=returns_ids,
        sampling=_tried(client, asked | _NEUTRAL) is not None,
    )


def _tried(client: Client, body: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = client.post(PATH, body, "a first request", tries=2)
    except (RefusedError, FailedError):
        return None
    return answer


def _tells(answer: Mapping[str, Any] | None, n: int) -> bool:
    try:
        return answer is not None and len(answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) >= n
    except (LookupError, TypeError):
        return False
