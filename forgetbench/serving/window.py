"""Calls that wait for a server: many at a time, across batches, and never more than a few ahead of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Window(Generic[Item, Answer]):
    """Batches of calls, each given as soon as all of it is answered.

    What is ahead is not made before there is room for it: of a hundred thousand items, a few hundred exist at a time.
    """

    def __init__(self, pool: Executor, prepare: Callable[[Item], Callable[[], Answer]], most: int) -> None:
        """Use a pool.

        Args:
            pool: makes the calls.
            prepare: makes an item's call, in the thread that iterates.
            most: calls that are prepared and not answered.
        """
        self._pool, self._prepare, self._most = pool, prepare, most
        self._answered: SimpleQueue[tuple[int, Future[Answer]]] = SimpleQueue()
        self._calls: dict[int, list[Future[Answer]]] = {}
        self._left: dict[int, int] = {}
        self._waiting = 0

    def run(self, batches: Iterable[tuple[int, Sequence[Item]]]) -> Iterator[tuple[int, list[Answer]]]:
        """Answers by batch, in the order in which batches end; raises what a call raises, and drops the others.

        Args:
            batches: numbers and items.
        """
        try:
            for number, items in batches:
                self._calls[number], self._left[number] = [], len(items)
                for item in items:
                    while self._waiting >= self._most or not self._answered.empty():
                        yield from self._ended()
                    self._submit(number, item)
            while self._waiting:
                yield from self._ended()
        finally:
            for calls in self._calls.values():
                for one in calls:
                    one.cancel()

    def _submit(self, number: int, item: Item) -> None:
        future = self._pool.submit(self._prepare(item))
        self._calls[number].append(future)
        self._waiting += 1
        future.add_done_callback(partial(self._note, number))

    def _note(self, number: int, future: Future[Answer]) -> None:
        self._answered.put((number, future))

    def _ended(self) -> Iterator[tuple[int, list[Answer]]]:
        """Wait for one call; its batch, if that was the last."""
        number, future = self._answered.get()
        self._waiting -= 1
        self._left[number] -= 1
        future.result()
        if not self._left[number]:
            yield number, [one.result() for one in self._calls.pop(number)]
