"""Calls from Python: one at a time, and each leaves the calling process as it was.

The command line owns its process and words errors itself.
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

from forgetbench.core.errors import BAD_INPUT, UserError, error_report
from forgetbench.core.processes import restore_threads

P = ParamSpec("P")
T = TypeVar("T")

_LOGGING = "transformers.utils.logging"
_on_command_line: ContextVar[bool] = ContextVar("typed on a command line", default=False)
_call_lock = RLock()
"""Hydra and torch have one state for all threads."""


@contextmanager
def command_line_call() -> Iterator[None]:
    """Inside, calls come from the command line: it prints the results and words the errors."""
    token = _on_command_line.set(True)
    try:
        yield
    finally:
        _on_command_line.reset(token)


def called_from_python() -> bool:
    """Whether the caller is a Python program, not the command line."""
    return not _on_command_line.get()


def api_function(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function public: wrong input raises a `UserError` with the command's text, without our frames."""

    @wraps(function)
    def call(*arguments: P.args, **keys: P.kwargs) -> T:
        if _on_command_line.get():
            return function(*arguments, **keys)
        with _call_lock, _process_restored():
            try:
                return function(*arguments, **keys)
            except UserError as error:
                refused = error
            except OSError as error:
                end = error_report(error)
                if end.exit_code != BAD_INPUT:
                    error.add_note(end.message)
                    raise
                refused = UserError(end.message)
        # Our frames would say nothing about the caller's mistake.
        raise refused.with_traceback(None) from None

    return call


@contextmanager
def _process_restored() -> Iterator[None]:
    from forgetbench.terminal.console import results_returned

    with ExitStack() as stack:
        stack.enter_context(results_returned())
        for restored in (_environment_restored, _random_states_restored, _libraries_restored):
            stack.enter_context(restored())
        yield


@contextmanager
def _environment_restored() -> Iterator[None]:
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
def _random_states_restored() -> Iterator[None]:
    """Random states of Python, and of NumPy and torch if the program has imported them."""
    state, numpy, torch = random.getstate(), sys.modules.get("numpy"), sys.modules.get("torch")
    numpy_state = numpy.random.get_state() if numpy else None
    torch_state = torch.get_rng_state() if torch else None
    has_gpu = torch is not None and torch.cuda.is_initialized()
    gpu_states = torch.cuda.get_rng_state_all() if torch and has_gpu else []
    try:
        yield
    finally:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(numpy_state)
        if torch:
            torch.set_rng_state(torch_state)
        if torch and has_gpu:
            torch.cuda.set_rng_state_all(gpu_states)


@contextmanager
def _libraries_restored() -> Iterator[None]:
    """CPU threads, and state that libraries keep per process."""
    from omegaconf.basecontainer import BaseContainer

    resolvers = BaseContainer._resolvers
    environment_variable = resolvers["oc.env"]  # a command replaces it with one that refuses secrets
    states = _accelerate_states()
    saved_states = {name: dict(state) for name, state in states.items()}
    for state in states.values():
        state.clear()  # commands must not use a precision that the program chose
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
            state.update(saved_states.get(name, {}))
        if has_bars and not _has_progress_bars():
            sys.modules[_LOGGING].enable_progress_bar()
        if "torch" in sys.modules:
            gc.collect()  # a trained model is in a cycle


def _accelerate_states() -> dict[str, dict[str, Any]]:
    """State that accelerate's objects share; empty where it is not loaded, or with several processes."""
    state = sys.modules.get("accelerate.state")
    if state is None or os.environ.get("WORLD_SIZE", "1") != "1":
        return {}
    kinds = (state.PartialState, state.AcceleratorState, state.GradientState)
    return {kind.__name__: kind._shared_state for kind in kinds}


def _has_progress_bars() -> bool:
    """Whether transformers shows progress bars, as it does by default."""
    logging = sys.modules.get(_LOGGING)
    return logging is None or bool(logging.is_progress_bar_enabled())
