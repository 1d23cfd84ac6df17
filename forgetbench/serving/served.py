"""Where checkpoints are served: by a server that runs already, or by a vLLM of this command's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from forgetbench.config import EngineConfig, Reload
from forgetbench.core.errors import UserError
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.serving.client import Client, FailedError, RefusedError, wait_until
from forgetbench.serving.engines import attached_client, served_models
from forgetbench.serving.process import Server, as_arguments

BASE_NAME = "base"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks of adapters that vLLM takes."""
_MOST_DEATHS = 3
"""Of a server, between two checkpoints."""
_RETURN_S = 120.0
"""For a server that has gone, or that is there and does not answer, to come back."""


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
        self.swaps = 0

    def serve(self, checkpoint: Checkpoint) -> str:
        """The served model of a checkpoint; an adapter is loaded where the server takes it.

        Raises:
            UserError: it serves none.
        """
        models = served_models(self.client)
        names = [str(one.get("id")) for one in models]
        key = checkpoint.name if checkpoint.path else BASE_NAME
        named = (self._config.models or {}).get(key)
        loaded = f"{checkpoint.name}-{checkpoint.digest[:8]}"  # several runs may have a checkpoint of this name
        wanted = [str(named)] if named is not None else [key, *([loaded] if checkpoint.path else [])]
        if found := next((one for one in wanted if one in names), None):
            return found
        if named is None and not checkpoint.path:
            return next((str(one["id"]) for one in models if one.get("id") and not one.get("parent")), names[0])
        adapter = self._adapter(checkpoint) if named is None else None
        refusal = self._load(loaded, adapter) if adapter else ""
        if adapter and refusal is None:
            return loaded
        raise UserError(
            f"{self.client.url} serves {', '.join(names)}, and none of them is {wanted[0]}"
            f"{f'; as an adapter, it was refused ({refusal})' if refusal else ''}. Say which one is: "
            f"engine.models={{{key}: <name>}}; or serve it (`forgetbench export`), or take engine=vllm, which starts "
            "what it needs."
        )

    def stop(self) -> None:
        """Nothing to stop: whoever started it does."""

    def _load(self, name: str, adapter: Adapter) -> str | None:
        """Load an adapter into a vLLM that was started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1; None, or why not."""
        body = {"lora_name": name, "lora_path": str(adapter.path)}
        try:
            self.client.order("/v1/load_lora_adapter", body, f"the adapter {name}")
        except RefusedError as error:
            return str(error)
        except FailedError as error:
            return str(error).rstrip(".")
        return None

    def _wait(self) -> None:
        if not wait_until(self.client.is_up, min(_RETURN_S, self._config.start_minutes * 60)):
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
        self._deaths = self.swaps = 0
        self._end: UserError | None = None
        """Why it is not started again."""
        self._lock = Lock()

    def serve(self, checkpoint: Checkpoint) -> str:
        """Serve a checkpoint: beside its base if it is an adapter, else in place of what is served.

        Raises:
            UserError: vLLM does not start.
        """
        name = self._weights_of(checkpoint)
        if self._running and self._running != name and self._config.reload is Reload.in_place:
            self._reload(checkpoint, name)
        elif self._running != name:
            self.start(checkpoint)
        return self._name_of(checkpoint)

    def start(self, checkpoint: Checkpoint) -> str:
        """Start a fresh server with a checkpoint's weights, or those of its base if it is an adapter.

        Returns:
            The name that requests give.
        """
        self._server.stop()  # before other weights are written: memory and disk may be short
        self._deaths, self._end = 0, None
        self._served_as = self._weights_of(checkpoint)
        self._use(self._served_as, self._weights(checkpoint))
        self._start()
        return self._name_of(checkpoint)

    def stop(self) -> None:
        """End the server."""
        self._server.stop()

    def _weights_of(self, checkpoint: Checkpoint) -> str:
        """The name of the weights that a server must have for a checkpoint."""
        return checkpoint.name if checkpoint.path and checkpoint.name not in self._adapters else BASE_NAME

    def _name_of(self, checkpoint: Checkpoint) -> str:
        return checkpoint.name if checkpoint.name in self._adapters else self._served_as

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
            self.client.order("/collective_rpc", body, f"the weights of {name}")
            for cache in ("/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"):
                with suppress(RefusedError, FailedError):  # not every version has all of them
                    self.client.order(cache, None, cache)
        except (RefusedError, UserError):
            self.start(checkpoint)
            return
        self.swaps += 1
        self._deaths = 0
        self._use(name, weights)  # for a server that dies and is started again

    def _revive(self) -> None:
        """Start a server again that has died; others wait for whoever does."""
        with self._lock:
            self.client.check_open()
            if self._end:
                raise self._end
            wait_until(lambda: not self._server.is_running or self.client.is_up(), _RETURN_S)
            if self._server.is_running and self.client.is_up():
                return
            self._deaths += 1
            try:
                if self._deaths > _MOST_DEATHS:
                    raise UserError(f"vLLM has died {self._deaths} times at one checkpoint; {self._server.said()}")
                self._start()
            except UserError as error:
                self._end = error
                raise

    def _lora_arguments(self) -> list[str]:
        if not self._adapters:
            return []
        rank = max(one.rank for one in self._adapters.values())
        allowed = next((most for most in _RANKS if most >= rank), None)
        if allowed is None:
            raise UserError(f"vLLM takes adapters of rank {_RANKS[-1]} at most, not {rank}: set engine.adapters=false.")
        return ["--enable-lora", "--max-lora-rank", str(allowed), "--max-cpu-loras", str(max(2, len(self._adapters)))]
