"""What answers the questions of a matrix: transformers in this process, or a server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Engine(StrEnum):
    """The program that runs the model."""

    transformers = "transformers"
    """In this process."""
    server = "server"
    """A server that is running: vLLM, SGLang, LMDeploy, or another that speaks OpenAI's protocol."""
    vllm = "vllm"
    """A vLLM that this command starts and stops."""


class Reload(StrEnum):
    """How a vLLM gets the weights of the next checkpoint that was trained in full."""

    fresh = "fresh"
    """A server is started anew for each."""
    in_place = "in_place"
    """The running one reads the new weights. Some versions keep old ones without a word, so every swap is checked."""


@dataclass
class EngineConfig:
    """What runs the model while it is scored (docs/serving.md)."""

    name: Engine = Engine.transformers
    """transformers (in this process), server (one that runs), vllm (started and stopped by this command)."""
    url: str | None = None
    """With `server`: its address, such as http://127.0.0.1:8000."""
    key: str = "OPENAI_API_KEY"
    """With `server`: the environment variable that holds its API key; may be unset."""
    models: Any = None
    """With `server`: the served model of each checkpoint, such as {base: llava, step_000100: tuned}; where none is
    named (null), the checkpoint's own name, and the first model for the base."""
    python: str | None = None
    """With `vllm`: interpreter of an environment that holds vLLM; it need not hold forgetbench."""
    args: Any = None
    """With `vllm`: its settings, such as {max_model_len: 4096, gpu_memory_utilization: 0.8}."""
    adapters: bool = True
    """With `vllm`: serve LoRA checkpoints as adapters of one base; false merges each into weights of its own."""
    reload: Reload = Reload.fresh
    """With `vllm`: weights of the next full checkpoint by a fresh server, or in place, checked at every swap."""
    in_flight: int = 128
    """Requests at a time."""
    tries: int = 4
    """Of a request, before the command ends with the item's name."""
    timeout_s: float = 600.0
    """For one request."""
    start_minutes: float = 20.0
    """For a server to become ready."""
    check_items: int = 64
    """Items of every dataset that transformers scores, too, before an engine's first cell of a base or a run counts."""
    tolerance: float = 0.02
    """How far apart a log-probability may be then, in nats."""


DECIDED_ARGUMENTS = ("model", "served_model_name", "host", "port", "api_key", "lora_modules", "enable_lora")
"""Settings of vLLM that are not for `engine.args`."""
