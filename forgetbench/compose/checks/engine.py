"""What is wrong with the engine that is to run the model."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

from forgetbench.compose.checks.problem import Problem, at_least_1
from forgetbench.config import Engine, EngineConfig, EvalMatrixConfig, Quantisation, Reload, SweepConfig
from forgetbench.config.engine import DECIDED_ARGUMENTS
from forgetbench.core.override_text import as_text
from forgetbench.core.records import Decoding

_ONLY_WITH = {
    Engine.server: ("url", "models"),
    Engine.vllm: ("python", "args"),
}
"""Settings that another engine does not have."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def engine_problems(config: EvalMatrixConfig | SweepConfig) -> Iterator[Problem]:
    """Settings that contradict each other, or what is scored."""
    engine = config.engine
    yield from _misplaced(engine)
    yield from _address(engine)
    yield from _numbers(engine)
    if engine.name is Engine.transformers:
        return
    if Decoding.sample in config.matrix.decodings:
        yield Problem("matrix.decodings", "`sample` is drawn by engine=transformers alone; leave it out.")
    if config.model.quantisation is not Quantisation.none:
        yield Problem("model.quantisation", "a compressed base is scored by engine=transformers alone.")


def _misplaced(engine: EngineConfig) -> Iterator[Problem]:
    for name, keys in _ONLY_WITH.items():
        for key in keys:
            if getattr(engine, key) and engine.name is not name:
                yield Problem(f"engine.{key}", f"is for engine={name}, and engine={engine.name} is given.")
    for key in ("models", "args"):
        value = getattr(engine, key)
        if value is not None and not isinstance(value, dict):
            yield Problem(f"engine.{key}", f"{as_text(value)}; give names and values: engine.{key}={{name: value}}.")
    for key in engine.args if isinstance(engine.args, dict) else ():
        if str(key).replace("-", "_").lstrip("_") in DECIDED_ARGUMENTS:
            yield Problem(f"engine.args.{key}", "is set by forgetbench itself; leave it out.")
    if not _VARIABLE.fullmatch(engine.key):  # perhaps a key, which no message shows
        yield Problem("engine.key", "is no name; give the name of the environment variable that holds the key.")


def _numbers(engine: EngineConfig) -> Iterator[Problem]:
    yield from at_least_1("engine.in_flight", engine.in_flight)
    yield from at_least_1("engine.tries", engine.tries)
    yield from at_least_1("engine.check_items", engine.check_items)
    for key in ("timeout_s", "start_minutes", "tolerance"):
        value = getattr(engine, key)
        if not 0 < value < math.inf:
            yield Problem(f"engine.{key}", f"{value}; give a number above 0.")


def _address(engine: EngineConfig) -> Iterator[Problem]:
    if engine.name is Engine.server:
        if not engine.url:
            yield Problem("engine.url", "missing; give the server's address, such as http://127.0.0.1:8000.")
        elif "@" in engine.url:
            yield Problem("engine.url", "holds a password; leave it out, and put a key into the variable engine.key.")
        elif not _is_address(engine.url):
            yield Problem("engine.url", f"'{engine.url}' is no address; give one such as http://127.0.0.1:8000.")
        if engine.reload is Reload.in_place:
            yield Problem("engine.reload", "is for engine=vllm: a server of somebody else's keeps its weights.")
    if engine.name is Engine.vllm:
        if not engine.python:
            yield Problem("engine.python", "missing; give the interpreter of an environment that holds vLLM.")
        elif shutil.which(engine.python) is None:
            yield Problem("engine.python", f"there is no program '{engine.python}'.")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # a port that is none, or half of brackets
        return False
