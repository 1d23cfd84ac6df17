"""Where checkpoints are served: by a server that runs already, or by a vLLM of this command's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from forgetbench.config import EngineConfig, Reload
from forgetbench.core.errors import UserError
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.serving.client import Client, RefusedError, wait_until
from forgetbench.serving.engines import attached_client, served_models
from forgetbench.serving.process import Server, as_arguments

BASE_NAME = "base"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks of adapters that vLLM takes."""
_MOST_DEATHS = 3
"""Of a server, between two checkpoints."""
_RETURN_S = 120.0
"""For an attached server that has gone to come back."""


@dataclass(frozen=True)
class Adapter:
    """A checkpoint as a PEFT adapter."""

    path: Path
    rank: int


class Attached:
    """A server that somebody else started."""

    def __init__(self, config: EngineConfig, adapter: Callable[[Checkpoint], Adapter | None]) -> None:
        """Connect.

        Args:
            config: where it is.
            adapter: exports a checkpoint as an adapter; None for one that is none.
        """
        self._config, self._adapter = config, adapter
        self.client = attached_client(config)
        self.client.revive = self._wait
        self._loaded: set[str] = set()

    def serve(self, checkpoint: Checkpoint) -> str:
        """The served model of a checkpoint; an adapter is loaded where the server takes it.

        Raises:
            UserError: it serves none.
        """
        models = served_models(self.client)
        names = [str(one.get("id")) for one in models]
        key = checkpoint.name if checkpoint.path else BASE_NAME
        wanted = str((self._config.models or {}).get(key, key))
        if wanted in names:
            return wanted
        if not checkpoint.path and key not in (self._config.models or {}):
            return next((str(one["id"]) for one in models if not one.get("parent")), names[0])
        adapter = self._adapter(checkpoint) if checkpoint.path else None
        if adapter and self._load(wanted, adapter):
            return wanted
        raise UserError(
            f"{self.client.url} serves {', '.join(names)}, and none of them is {checkpoint.name}. Say which one is: "
            f"engine.models={{{key}: <name>}}; or serve it (`forgetbench export`), or take engine=vllm, which starts "
            "what it needs."
        )

    def stop(self) -> None:
        """Nothing to stop: whoever started it does."""

    def _load(self, name: str, adapter: Adapter) -> bool:
        """Load an adapter into a vLLM that was started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1."""
        try:
            self.client.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(adapter.path)}, name)
        except (RefusedError, UserError):
            return any(one.get("id") == name for one in served_models(self.client))  # its answer is no JSON
        return True

    def _wait(self) -> None:
        if not wait_until(self.client.is_up, _RETURN_S):
            raise UserError(
                f"{self.client.url} has stopped answering. Start it again, then give the same command: what is "
                "finished is kept."
            )


class Own:
    """A vLLM that this command starts, and starts again for weights that it cannot take while it runs."""

    def __init__(
        self,
        config: EngineConfig,
        log: Path,
        fixed: Sequence[str],
        weights: Callable[[Checkpoint], str],
        adapters: Mapping[str, Adapter],
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            config: which vLLM, and its settings.
            log: where its output goes.
            fixed: arguments that are the same for all weights.
            weights: gives the folder or the Hub id with a checkpoint's weights, writing them first if need be.
            adapters: the checkpoints that are adapters of the base, by name.
        """
        assert config.python is not None
        self._config, self._weights, self._adapters = config, weights, adapters
        self._server = Server(config.python, log, config.reload is Reload.in_place)
        self.client = Client(self._server.url, self._server.key, config.in_flight, config.timeout_s, config.tries)
        self.client.revive = self._revive
        own = as_arguments(config.args or {})
        self._fixed = [*fixed, *own, *self._lora_arguments()]
        self._served_as = self._running = ""
        """The name under which the present weights are served."""
        self._arguments: list[str] = []
        self._deaths = 0
        self._lock = Lock()

    def serve(self, checkpoint: Checkpoint) -> str:
        """Serve a checkpoint: beside its base if it is an adapter, else in place of what is served.

        Raises:
            UserError: vLLM does not start.
        """
        self._deaths = 0
        is_adapter = checkpoint.name in self._adapters
        name = checkpoint.name if checkpoint.path and not is_adapter else BASE_NAME
        if self._running and self._running != name and self._config.reload is Reload.in_place:
            self._reload(checkpoint, name)
        elif self._running != name:
            self.start(checkpoint)
        return checkpoint.name if is_adapter else self._served_as

    def start(self, checkpoint: Checkpoint) -> None:
        """Start a fresh server with a checkpoint's weights, or those of its base if it is an adapter."""
        is_adapter = checkpoint.name in self._adapters
        name = checkpoint.name if checkpoint.path and not is_adapter else BASE_NAME
        self._served_as = name
        self._use(name, self._weights(checkpoint))
        self._start()

    def stop(self) -> None:
        """End the server."""
        self._server.stop()

    def _use(self, name: str, weights: str) -> None:
        self._running = name
        modules = [f"{one}={adapter.path}" for one, adapter in self._adapters.items()] if name == BASE_NAME else []
        lora = ["--lora-modules", *modules] if modules else []
        self._arguments = ["--model", weights, "--served-model-name", self._served_as, *self._fixed, *lora]

    def _start(self) -> None:
        self._server.start(self._arguments)
        self._server.wait(self.client.is_up, self._config.start_minutes * 60)

    def _reload(self, checkpoint: Checkpoint, name: str) -> None:
        """Let the running server read other weights; whoever swaps must check what it says then."""
        weights = self._weights(checkpoint)
        body = {"method": "reload_weights", "kwargs": {"weights_path": weights}}
        try:
            self.client.post("/collective_rpc", body, f"the weights of {name}")
            for cache in ("/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"):
                self.client.post_plain(cache)
            self._use(name, weights)  # for a server that dies and is started again
        except (RefusedError, UserError):
            self.start(checkpoint)

    def _revive(self) -> None:
        """Start a server again that has died; others wait for whoever does."""
        with self._lock:
            if self._server.is_running and wait_until(self.client.is_up, self._config.start_minutes * 60):
                return
            self._deaths += 1
            if self._deaths > _MOST_DEATHS:
                raise UserError(f"vLLM has died {self._deaths} times at one checkpoint; {self._server.said()}")
            self._start()

    def _lora_arguments(self) -> list[str]:
        if not self._adapters:
            return []
        rank = max(one.rank for one in self._adapters.values())
        allowed = next((most for most in _RANKS if most >= rank), None)
        if allowed is None:
            raise UserError(f"vLLM takes adapters of rank {_RANKS[-1]} at most, not {rank}: set engine.adapters=false.")
        return ["--enable-lora", "--max-lora-rank", str(allowed), "--max-cpu-loras", str(max(2, len(self._adapters)))]
