"""Ask a server the items of datasets, many at a time."""

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
from forgetbench.evaluation.batches import BatchedSet, differ_in_last
from forgetbench.evaluation.replies import ReplyDecoder
from forgetbench.evaluation.runner import Answers, Runner
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.evaluation.settings import Settings
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.context import Context
from forgetbench.serving.chat import ChatProtocol, chat_abilities
from forgetbench.serving.client import Client
from forgetbench.serving.question import Abilities, Question, Questions, Reply, UntoldError
from forgetbench.serving.tokens import TokenProtocol, takes_ids
from forgetbench.serving.window import Window

TOKEN_IDS, CONVERSATIONS = "token ids", "conversations"
"""How prompts are sent."""
_AHEAD = 2
"""So many times as many requests as are in flight are prepared."""
_Answer = TypeVar("_Answer")


class Served(Protocol):
    """Where checkpoints are served."""

    client: Client
    swaps: int
    """How often weights were replaced in a running server."""

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
        self._pool.shutdown(wait=True)  # none may start a server again that is about to be stopped

    def move(self, checkpoint: Checkpoint) -> None:
        """Ask this checkpoint from now on; the server may be started for it."""
        self._name = self._served.serve(checkpoint)
        if self._protocol is None and (self._prefers_conversations or not self._asks_by_ids()):
            self.ask_by_conversations()

    def answers(self, dataset: EvaluationSet, numbers: Sequence[int], settings: Settings) -> Iterator[Answers]:
        """Ask batches, each given as soon as it is whole; requests fill the server across them.

        Raises:
            UserError: the server lacks what the dataset needs, or a request failed; names dataset and item.
        """
        name, layout = dataset.manifest.name, self.batches(dataset)
        found: Iterator[tuple[int, Sequence[Prediction]]]
        if settings.decoding is Decoding.choice:
            self._check_abilities(layout, name)
            asked = self._asked(layout, numbers, self._likelihoods, name)
            found = ((number, [_chosen(one) for one in batch]) for number, batch in asked)
        else:
            replies = self._asked(layout, numbers, partial(self._reply, settings=settings), name)
            found = ((number, [self._prediction(one, settings) for one in batch]) for number, batch in replies)
        started = time.perf_counter()
        for number, predictions in found:
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
        self._check_abilities(layout, dataset)
        asked = self._asked(layout, range(len(layout.batches)), self._likelihoods, dataset)
        return {item: one for number, batch in asked for item, one in zip(layout.batches[number], batch, strict=True)}

    def told(self, layout: BatchedSet, dataset: str) -> dict[int, Sequence[float]]:
        """As `likelihoods`, without the items that the server cannot tell them of."""
        if not self.tells(layout):
            return {}

        def ask(layout: BatchedSet, item: int) -> Callable[[], list[float] | None]:
            call = self._likelihoods(layout, item)

            def attempt() -> list[float] | None:
                try:
                    return call()
                except UntoldError:
                    return None

            return attempt

        asked = self._asked(layout, range(len(layout.batches)), ask, dataset)
        pairs = (pair for number, batch in asked for pair in zip(layout.batches[number], batch, strict=True))
        return {item: one for item, one in pairs if one is not None}

    def tells(self, layout: BatchedSet) -> bool:
        """Whether the server can tell log-probabilities of such candidates."""
        return not self.abilities.lacking([layout.candidates[item] for batch in layout.batches for item in batch])

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
            client, self._check, self.abilities, self._questions, self._system, self.config.reasoning.marks
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
        ask: Callable[[BatchedSet, int], Callable[[], _Answer]],
        dataset: str,
    ) -> Iterator[tuple[int, list[_Answer]]]:
        """Batches with their answers, in the order in which they are whole."""
        window = Window(self._pool, partial(ask, layout), _AHEAD * self._engine.in_flight)
        try:
            yield from window.run((number, layout.batches[number]) for number in numbers)
        except UserError as error:
            raise type(error)(f"{dataset}: {error}") from error

    def _check_abilities(self, layout: BatchedSet, dataset: str) -> None:
        if reason := self.abilities.lacking(layout.candidates):
            raise UserError(
                f"{dataset}: {self._served.client.url} does not return {reason}, which this dataset needs. Take vLLM "
                "(engine=vllm), or decode greedily (matrix.decodings=[greedy])."
            )

    # What encodes or decodes texts below runs in one thread, as tokenizers keep a state; requests run in any.

    def _likelihoods(self, layout: BatchedSet, item: int) -> Callable[[], list[float]]:
        """What asks for the log-probability of each candidate."""
        assert self._protocol is not None
        question, candidates = self._question(layout, item), layout.candidates[item]
        if differ_in_last(candidates):
            *shared, _ = candidates[0]
            return partial(self._protocol.logprobs, self._name, question, shared, [ids[-1] for ids in candidates])
        return partial(self._protocol.candidates, self._name, question, candidates)

    def _reply(self, layout: BatchedSet, item: int, settings: Settings) -> Callable[[], Reply]:
        """What asks for a reply."""
        assert self._protocol is not None
        # Where thoughts have a cap of their own, stop texts count behind them alone: they are looked for afterwards.
        stop = settings.stop if settings.max_thought_tokens is None else ()
        question = self._question(layout, item)
        return partial(self._protocol.reply, self._name, question, settings.total_tokens, stop, self._ends)

    def _prediction(self, reply: Reply, settings: Settings) -> Prediction:
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


def _chosen(logprobs: Sequence[float]) -> Prediction:
    return Prediction(option_logprobs=tuple(logprobs))
