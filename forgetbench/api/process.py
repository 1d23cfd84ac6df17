"""What a call from Python means for the process that makes it: one call at a time, and all is left as it was found.

The command line has its process for itself, and words errors in its own way.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from threading import RLock
from typing import Any, ParamSpec, TypeVar

from forgetbench.core.errors import BAD_INPUT, UserError, ending
from forgetbench.core.processes import restore_threads

P = ParamSpec("P")
T = TypeVar("T")

_LOGGING = "transformers.utils.logging"
_typed: ContextVar[bool] = ContextVar("typed on a command line", default=False)
_turn = RLock()
"""Hydra and torch have one state for all threads."""


@contextmanager
def command_line() -> Iterator[None]:
    """Inside, functions are called for a command: its results are printed, and its errors are its own to word."""
    token = _typed.set(True)
    try:
        yield
    finally:
        _typed.reset(token)


def from_python() -> bool:
    """Whether a program called, and no command line."""
    return not _typed.get()


def called(function: Callable[P, T]) -> Callable[P, T]:
    """A public function: wrong input is a `UserError` with the command's text, without our own frames behind it."""

    @wraps(function)
    def call(*arguments: P.args, **keys: P.kwargs) -> T:
        if _typed.get():
            return function(*arguments, **keys)
        with _turn, _unchanged_process():
            try:
                return function(*arguments, **keys)
            except UserError as error:
                refused = error
            except OSError as error:
                end = ending(error)
                if end.exit_code != BAD_INPUT:
                    error.add_note(end.message)
                    raise
                refused = UserError(end.message)
        # Its own frames would say nothing of the caller's mistake.
        raise refused.with_traceback(None) from None

    return call


@contextmanager
def _unchanged_process() -> Iterator[None]:
    from forgetbench.terminal.console import results_returned

    with ExitStack() as kept:
        kept.enter_context(results_returned())
        for part in (_surroundings, _random_states, _libraries):
            kept.enter_context(part())
        yield


@contextmanager
def _surroundings() -> Iterator[None]:
    """Working folder, environment and streams."""
    folder, environment, streams = Path.cwd(), dict(os.environ), (sys.stdout, sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        os.chdir(folder)


@contextmanager
def _random_states() -> Iterator[None]:
    """Those that scripts draw from; torch and NumPy only if the program has imported them."""
    state, numpy, torch = random.getstate(), sys.modules.get("numpy"), sys.modules.get("torch")
    of_numpy = numpy.random.get_state() if numpy else None
    of_torch = torch.get_rng_state() if torch else None
    has_gpu = torch is not None and torch.cuda.is_initialized()
    of_gpus = torch.cuda.get_rng_state_all() if torch and has_gpu else []
    try:
        yield
    finally:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(of_numpy)
        if torch:
            torch.set_rng_state(of_torch)
        if torch and has_gpu:
            torch.cuda.set_rng_state_all(of_gpus)


@contextmanager
def _libraries() -> Iterator[None]:
    """CPU threads, and what libraries keep for a process."""
    from omegaconf.basecontainer import BaseContainer

    resolvers = BaseContainer._resolvers
    environment_variable = resolvers["oc.env"]  # a command's own refuses secrets
    states = _accelerate_states()
    before = {name: dict(state) for name, state in states.items()}
    for state in states.values():
        state.clear()  # a precision that a program chose is none of ours
    has_bars = _has_progress_bars()
    if has_bars and not sys.stderr.isatty() and (logging := sys.modules.get(_LOGGING)):
        logging.disable_progress_bar()  # as it is when `models.load` is imported
    try:
        yield
    finally:
        restore_threads()
        resolvers["oc.env"] = environment_variable
        for name, state in _accelerate_states().items():
            state.clear()
            state.update(before.get(name, {}))
        if has_bars and not _has_progress_bars():
            sys.modules[_LOGGING].enable_progress_bar()
        if "torch" in sys.modules:
            gc.collect()  # a trained model is in a cycle


def _accelerate_states() -> dict[str, dict[str, Any]]:
    """What all of accelerate's objects share; nothing where it is not loaded, or is one of several processes."""
    state = sys.modules.get("accelerate.state")
    if state is None or os.environ.get("WORLD_SIZE", "1") != "1":
        return {}
    kinds = (state.PartialState, state.AcceleratorState, state.GradientState)
    return {kind.__name__: kind._shared_state for kind in kinds}


def _has_progress_bars() -> bool:
    """Of transformers, which has some until it is told otherwise."""
    logging = sys.modules.get(_LOGGING)
    return logging is None or bool(logging.is_progress_bar_enabled())
