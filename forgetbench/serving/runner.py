"""Ask a server the items of datasets, many at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from forgetbench.config import EngineConfig, MatrixConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import Decoding, Prediction
from forgetbench.data.collate import Encoder
from forgetbench.evaluation.batches import BatchedSet, differ_in_last
from forgetbench.evaluation.replies import ReplyDecoder
from forgetbench.evaluation.runner import Answers, Runner
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.context import Context
from forgetbench.serving.chat import ChatProtocol, chat_abilities
from forgetbench.serving.client import Client
from forgetbench.serving.question import Abilities, Question, Questions
from forgetbench.serving.tokens import TokenProtocol, takes_ids

TOKEN_IDS, CONVERSATIONS = "token ids", "conversations"
"""How prompts are sent."""


class Served(Protocol):
    """Where checkpoints are served."""

    client: Client

    def serve(self, checkpoint: Checkpoint) -> str:
        """Make a checkpoint available; the name that requests give."""


class ServerRunner(Runner):
    """One server, at one checkpoint at a time."""

    def __init__(
        self,
        served: Served,
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
            served: where checkpoints are.
            encoder: of the model.
            inputs_digest: as for Runner.
            context: of the model.
            config: what is scored, and how.
            cache: folder of encoded prompts.
            engine: how to ask.
            ends: tokens that end a reply.
            model: where the model is from, and how it is asked.
        """
        super().__init__(encoder, inputs_digest, context, config, cache)
        self._served, self._engine, self._ends = served, engine, list(ends)
        self._questions = Questions(encoder, model.max_pixels)
        self._system, self._replies = model.system_prompt, ReplyDecoder(encoder, config.reasoning.marks, ends)
        self._name = ""
        self._protocol: TokenProtocol | ChatProtocol | None = None
        self._prefers_conversations = False
        self.abilities = Abilities()
        self._pool = ThreadPoolExecutor(engine.in_flight, "request")
        self._compared: dict[str, int] = {}
        self._lock = Lock()

    def close(self) -> None:
        """End all requests."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._served.client.close()
        self._pool.shutdown(wait=True)

    def move(self, checkpoint: Checkpoint) -> None:
        """Ask this checkpoint from now on; the server may be started for it."""
        self._name = self._served.serve(checkpoint)
        if self._protocol is None and (self._prefers_conversations or not self._asks_by_ids()):
            self.ask_by_conversations()

    def answers(self, dataset: EvaluationSet, numbers: Sequence[int], settings: Settings) -> Iterator[Answers]:
        """Ask batches, all requests of all of them as fast as the server takes them."""
        layout = self.batches(dataset)
        choice = settings.decoding is Decoding.choice
        if reason := self.abilities.lacking(layout.candidates if choice else (), text=not choice):
            raise UserError(
                f"{dataset.manifest.name}: {self._served.client.url} does not return {reason}, which "
                "this dataset needs. Take vLLM (engine=vllm), or decode greedily (matrix.decodings=[greedy])."
            )
        ask = self._likelihoods if choice else partial(self._text, settings=settings)
        started = time.perf_counter()
        for number, predictions in self._asked(layout, numbers, ask, dataset.manifest.name):
            now = time.perf_counter()
            yield Answers(number, predictions, now - started)
            started = now

    def likelihoods(self, layout: BatchedSet, dataset: str) -> dict[int, Sequence[float]]:
        """Log-probabilities of the candidates of every item of a layout.

        Args:
            layout: the items, with candidates.
            dataset: its name, for messages.
        """
        asked = self._asked(layout, range(len(layout.batches)), self._likelihoods, dataset)
        found: dict[int, Sequence[float]] = {}
        for number, predictions in asked:
            for item, one in zip(layout.batches[number], predictions, strict=True):
                assert one.option_logprobs is not None
                found[item] = one.option_logprobs
        return found

    @property
    def asked_by(self) -> str:
        """How prompts are sent."""
        return CONVERSATIONS if isinstance(self._protocol, ChatProtocol) else TOKEN_IDS

    def ask_by_conversations(self) -> bool:
        """Send conversations from now on; False if they are sent already."""
        if isinstance(self._protocol, ChatProtocol):
            return False
        client = self._served.client
        self.abilities = chat_abilities(client, self._name)
        self._protocol = ChatProtocol(
            client, self._check, self.abilities, self.encoder.tokenizer, self._system, self.config.reasoning.marks
        )
        return True

    def compared(self) -> list[str]:
        """What of the prompts was compared since the last call."""
        with self._lock:
            found, self._compared = sorted(self._compared), {}
        return found

    def _asked(
        self,
        layout: BatchedSet,
        numbers: Sequence[int],
        ask: Callable[[BatchedSet, int], Prediction],
        dataset: str,
    ) -> Iterator[tuple[int, list[Prediction]]]:
        """Batches in order, each with its predictions; the requests of later ones are on their way meanwhile."""
        waiting: list[tuple[int, list[Future[Prediction]]]] = [
            (number, [self._pool.submit(ask, layout, item) for item in layout.batches[number]]) for number in numbers
        ]
        try:
            for number, futures in waiting:
                yield number, [one.result() for one in futures]
        except UserError as error:
            raise type(error)(f"{dataset}: {error}") from error
        finally:
            for _, futures in waiting:
                for one in futures:
                    one.cancel()

    def _likelihoods(self, layout: BatchedSet, item: int) -> Prediction:
        assert self._protocol is not None
        question, candidates = self._question(layout, item), layout.candidates[item]
        if differ_in_last(candidates):
            *shared, _ = candidates[0]
            wanted = [ids[-1] for ids in candidates]
            found = self._protocol.logprobs(self._name, question, shared, wanted)
        else:
            found = self._protocol.candidates(self._name, question, candidates)
        return Prediction(option_logprobs=tuple(found))

    def _text(self, layout: BatchedSet, item: int, settings: Settings) -> Prediction:
        assert self._protocol is not None
        # Where thoughts have a cap of their own, stop texts count behind them alone: they are looked for afterwards.
        stop = settings.stop if settings.max_thought_tokens is None else ()
        question = self._question(layout, item)
        reply = self._protocol.reply(self._name, question, settings.total_tokens, stop, self._ends)
        if reply.ids is not None:
            return self._replies.predictions([reply.ids], settings)[0]
        return self._replies.prediction_of_text(reply.text, reply.is_cut_off, settings)

    def _question(self, layout: BatchedSet, item: int) -> Question:
        return self._questions.question(layout.samples[item], layout.prompts.tokens(item)["input_ids"].tolist())

    def _asks_by_ids(self) -> bool:
        """Ask by token ids, where the server takes them."""
        if not takes_ids(self._served.client, self._name, self.encoder.pad_id):
            return False
        self.abilities = Abilities(takes_ids=True, returns_ids=True)
        self._protocol = TokenProtocol(self._served.client, self._check)
        return True

    def _check(self, question: Question, further: Sequence[int], answer: dict[str, Any]) -> None:
        compared = self._questions.check(question, further, answer)
        with self._lock:
            self._compared[compared] = self._compared.get(compared, 0) + 1
