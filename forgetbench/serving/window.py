"""Concurrent calls to a server: many at a time, across batches, with few prepared ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class RequestWindow(Generic[Item, Answer]):
    """Runs batches of calls; yields each batch when all its calls are answered.

    Calls are prepared only when there is room: of a hundred thousand items, a few hundred exist at a time.
    """

    def __init__(self, pool: Executor, prepare: Callable[[Item], Callable[[], Answer]], max_waiting: int) -> None:
        """Use a pool.

        Args:
            pool: runs the calls.
            prepare: creates the call of an item, in the thread that iterates.
            max_waiting: calls that are prepared and not answered.
        """
        self._pool, self._prepare, self._max_waiting = pool, prepare, max_waiting
        self._answered: SimpleQueue[tuple[int, Future[Answer]]] = SimpleQueue()
        self._calls: dict[int, list[Future[Answer]]] = {}
        self._left: dict[int, int] = {}
        self._waiting = 0

    def run(self, batches: Iterable[tuple[int, Sequence[Item]]]) -> Iterator[tuple[int, list[Answer]]]:
        """Answers by batch, in the order in which batches end; the error of a call is raised, and the rest dropped.

        Args:
            batches: (number, items) of each.
        """
        try:
            for number, items in batches:
                self._calls[number], self._left[number] = [], len(items)
                for item in items:
                    while self._waiting >= self._max_waiting or not self._answered.empty():
                        yield from self._next_done()
                    self._submit(number, item)
            while self._waiting:
                yield from self._next_done()
        finally:
            for calls in self._calls.values():
                for call in calls:
                    call.cancel()

    def _submit(self, number: int, item: Item) -> None:
        future = self._pool.submit(self._prepare(item))
        self._calls[number].append(future)
        self._waiting += 1
        future.add_done_callback(partial(self._count_answer, number))

    def _count_answer(self, number: int, future: Future[Answer]) -> None:
        self._answered.put((number, future))

    def _next_done(self) -> Iterator[tuple[int, list[Answer]]]:
        """Wait for one call; yields its batch if that was the last call of the batch."""
        number, future = self._answered.get()
        self._waiting -= 1
        self._left[number] -= 1
        future.result()
        if not self._left[number]:
            yield number, [call.result() for call in self._calls.pop(number)]
