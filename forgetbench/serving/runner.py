"""Ask a server the items of datasets, with many requests at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar

from forgetbench.config import EngineConfig, MatrixConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import Decoding, Prediction
from forgetbench.data.collate import Encoder
from forgetbench.evaluation.batches import BatchedSet, differ_in_last_token
from forgetbench.evaluation.replies import ReplyDecoder
from forgetbench.evaluation.runner import Answers, Runner
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.context import Context
from forgetbench.serving.chat import ChatProtocol, probe_chat_capabilities
from forgetbench.serving.client import Client
from forgetbench.serving.question import Capabilities, MissingLogprobError, Question, QuestionBuilder, Reply
from forgetbench.serving.tokens import TokenProtocol, accepts_token_ids
from forgetbench.serving.window import RequestWindow

TOKEN_IDS, CONVERSATIONS = "token ids", "conversations"
"""How prompts are sent."""
_REQUESTS_AHEAD = 2
"""Prepared requests, as a multiple of the requests in flight."""
_Answer = TypeVar("_Answer")


class CheckpointServer(Protocol):
    """A server of checkpoints."""

    client: Client
    swaps: int
    """How often weights were replaced in a running server."""

    def serve(self, checkpoint: Checkpoint) -> str:
        """Make a checkpoint available; returns its model name for requests."""


class ServerRunner(Runner):
    """One server, at one checkpoint at a time."""

    def __init__(
        self,
        served: CheckpointServer,
        encoder: Encoder,
        inputs_digest: str,
        context: Context,
        config: MatrixConfig,
        cache: Path,
        engine: EngineConfig,
        ends: Sequence[int],
        model: Any,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            served: the server.
            encoder: of the model.
            inputs_digest: as for Runner.
            context: of the model.
            config: the matrix.
            cache: folder of encoded prompts.
            engine: settings of the engine.
            ends: tokens that end a reply.
            model: configuration of the model.
        """
        super().__init__(encoder, inputs_digest, context, config, cache)
        self._server, self._engine, self._ends = served, engine, list(ends)
        self._question_builder = QuestionBuilder(encoder, model.max_pixels)
        self._system, self._replies = model.system_prompt, ReplyDecoder(encoder, config.reasoning.marks, ends)
        self._name = ""
        self._protocol: TokenProtocol | ChatProtocol | None = None
        self._prefers_conversations = False
        self.capabilities = Capabilities()
        self._pool = ThreadPoolExecutor(engine.in_flight, "request")
        self._prompt_checks: dict[str, int] = {}
        self._lock = Lock()

    def close(self) -> None:
        """End all requests."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._server.client.close()
        self._pool.shutdown(wait=True)  # no request may restart a server that is about to be stopped

    def use_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Ask this checkpoint from now on; the server may be started for it."""
        self._name = self._server.serve(checkpoint)
        if self._protocol is None and (self._prefers_conversations or not self._use_token_ids()):
            self.use_conversations()

    def answers(self, dataset: EvaluationSet, numbers: Sequence[int], settings: Settings) -> Iterator[Answers]:
        """Ask batches; yields each as soon as it is complete. Requests of several batches run at once.

        Raises:
            UserError: the server lacks what the dataset needs, or a request failed; names dataset and item.
        """
        name, layout = dataset.manifest.name, self.batches(dataset)
        batches: Iterator[tuple[int, Sequence[Prediction]]]
        if settings.decoding is Decoding.choice:
            self._check_capabilities(layout, name)
            asked = self._ask_batches(layout, numbers, self._likelihoods, name)
            batches = ((number, [_choice_prediction(logprobs) for logprobs in batch]) for number, batch in asked)
        else:
            replies = self._ask_batches(layout, numbers, partial(self._reply, settings=settings), name)
            batches = ((number, [self._prediction(reply, settings) for reply in batch]) for number, batch in replies)
        started = time.perf_counter()
        for number, predictions in batches:
            now = time.perf_counter()
            yield Answers(number, predictions, now - started)
            started = now

    def likelihoods(self, layout: BatchedSet, dataset: str) -> dict[int, Sequence[float]]:
        """Log-probabilities of the candidates of every item of a layout.

        Args:
            layout: the items, with candidates.
            dataset: its name, for messages.

        Raises:
            UserError: as for `answers`.
        """
        self._check_capabilities(layout, dataset)
        asked = self._ask_batches(layout, range(len(layout.batches)), self._likelihoods, dataset)
        return {
            item: logprobs
            for number, batch in asked
            for item, logprobs in zip(layout.batches[number], batch, strict=True)
        }

    def available_likelihoods(self, layout: BatchedSet, dataset: str) -> dict[int, Sequence[float]]:
        """As `likelihoods`, without the items for which the server returns no log-probabilities."""
        if not self.can_score(layout):
            return {}

        def ask(layout: BatchedSet, item: int) -> Callable[[], list[float] | None]:
            call = self._likelihoods(layout, item)

            def attempt() -> list[float] | None:
                try:
                    return call()
                except MissingLogprobError:
                    return None

            return attempt

        asked = self._ask_batches(layout, range(len(layout.batches)), ask, dataset)
        pairs = (pair for number, batch in asked for pair in zip(layout.batches[number], batch, strict=True))
        return {item: logprobs for item, logprobs in pairs if logprobs is not None}

    def can_score(self, layout: BatchedSet) -> bool:
        """Whether the server can return log-probabilities of the candidates of a layout."""
        return not self.capabilities.missing_for(
            [layout.candidates[item] for batch in layout.batches for item in batch]
        )

    @property
    def asked_by(self) -> str:
        """How prompts are sent."""
        return CONVERSATIONS if isinstance(self._protocol, ChatProtocol) else TOKEN_IDS

    def use_conversations(self) -> bool:
        """Send prompts as conversations from now on; False if that is so already."""
        if isinstance(self._protocol, ChatProtocol):
            return False
        client = self._server.client
        self.capabilities = probe_chat_capabilities(client, self._name)
        self._protocol = ChatProtocol(
            client, self._check, self.capabilities, self._question_builder, self._system, self.config.reasoning.marks
        )
        return True

    def pop_prompt_checks(self) -> list[str]:
        """How prompts were compared since the last call; resets the record."""
        with self._lock:
            kinds, self._prompt_checks = sorted(self._prompt_checks), {}
        return kinds

    def _ask_batches(
        self,
        layout: BatchedSet,
        numbers: Sequence[int],
        ask: Callable[[BatchedSet, int], Callable[[], _Answer]],
        dataset: str,
    ) -> Iterator[tuple[int, list[_Answer]]]:
        """Batches with their answers, in the order in which they are completed."""
        window = RequestWindow(self._pool, partial(ask, layout), _REQUESTS_AHEAD * self._engine.in_flight)
        try:
            yield from window.run((number, layout.batches[number]) for number in numbers)
        except UserError as error:
            raise type(error)(f"{dataset}: {error}") from error

    def _check_capabilities(self, layout: BatchedSet, dataset: str) -> None:
        if reason := self.capabilities.missing_for(layout.candidates):
            raise UserError(
                f"{dataset}: {self._server.client.url} does not return {reason}, which this dataset needs. Take vLLM "
                "(engine=vllm), or decode greedily (matrix.decodings=[greedy])."
            )

    # Below, encoding and decoding run in one thread, as tokenizers keep a state; requests run in any thread.

    def _likelihoods(self, layout: BatchedSet, item: int) -> Callable[[], list[float]]:
        """The call that asks for the log-probability of each candidate."""
        assert self._protocol is not None
        question, candidates = self._question(layout, item), layout.candidates[item]
        if differ_in_last_token(candidates):
            *shared, _ = candidates[0]
            return partial(self._protocol.logprobs, self._name, question, shared, [ids[-1] for ids in candidates])
        return partial(self._protocol.candidates, self._name, question, candidates)

    def _reply(self, layout: BatchedSet, item: int, settings: Settings) -> Callable[[], Reply]:
        """The call that asks for a reply."""
        assert self._protocol is not None
        # If thoughts have a separate cap, stop texts count only after the thought: they are searched for afterwards.
        stop = settings.stop if settings.max_thought_tokens is None else ()
        question = self._question(layout, item)
        return partial(self._protocol.reply, self._name, question, settings.total_tokens, stop, self._ends)

    def _prediction(self, reply: Reply, settings: Settings) -> Prediction:
        if reply.ids is not None:
            return self._replies.predictions([reply.ids], settings)[0]
        return self._replies.prediction_of_text(reply.text, reply.is_cut_off, settings)

    def _question(self, layout: BatchedSet, item: int) -> Question:
        return self._question_builder.question(layout.samples[item], layout.prompts.tokens(item)["input_ids"].tolist())

    def _use_token_ids(self) -> bool:
        """Send prompts as token ids if the server takes them; False if not."""
        if not accepts_token_ids(self._server.client, self._name, self.encoder.pad_id):
            return False
        self.capabilities = Capabilities(accepts_token_ids=True, returns_ids=True)
        self._protocol = TokenProtocol(self._server.client, self._check)
        return True

    def _check(self, question: Question, reply_ids: Sequence[int], answer: dict[str, Any]) -> None:
        compared = self._question_builder.check(question, reply_ids, answer)
        with self._lock:
            self._prompt_checks[compared] = self._prompt_checks.get(compared, 0) + 1


def _choice_prediction(logprobs: Sequence[float]) -> Prediction:
    return Prediction(option_logprobs=tuple(logprobs))
