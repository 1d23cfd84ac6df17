"""What a file of somebody else's makes us compute is stopped."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable

import pytest

from forgetbench.core import limits
from forgetbench.core.limits import limited


def _loop() -> None:
    while True:
        pass


def _try_everything() -> None:
    while True:
        try:
            sum(range(1000))
        except Exception:
            raise AssertionError("it was caught") from None


def _match() -> None:
    re.fullmatch(r"(((.*)*)*)*x!", "language_model.layers.0.self_attn")


@pytest.mark.parametrize("endless", [_loop, _try_everything, _match])
def test_what_takes_for_ever_is_stopped(endless: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.05)
    with pytest.raises(ValueError, match="takes more than"), limited():
        endless()


def test_what_takes_all_memory_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMORY", 2**26)
    with pytest.raises(MemoryError), limited():
        bytearray(2**32)
    assert len(bytearray(2**27)) == 2**27


def test_nothing_is_left_behind() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with limited():
        assert signal.getsignal(signal.SIGVTALRM) is not before
    assert signal.getsignal(signal.SIGVTALRM) is before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_another_thread_works_without_limits() -> None:
    results = []

    def work() -> None:
        with limited():
            results.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [1]
