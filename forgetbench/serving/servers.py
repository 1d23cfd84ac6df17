"""Servers of checkpoints: one that runs already, or a vLLM that this command starts."""

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
"""Values of vLLM's --max-lora-rank."""
_MAX_CRASHES = 3
"""Restarts of a server that dies at one checkpoint."""
_RECOVERY_S = 120.0
"""Time for a server that is gone, or does not answer, to come back."""


@dataclass(frozen=True)
class Adapter:
    """A checkpoint as a PEFT adapter."""

    path: Path
    rank: int


class AttachedServer:
    """A server that somebody else started."""

    def __init__(self, config: EngineConfig, adapter: Callable[[Checkpoint], Adapter | None]) -> None:
        """Connect.

        Args:
            config: has the address.
            adapter: exports a checkpoint as an adapter; gives None if that is not possible.
        """
        self._config, self._adapter = config, adapter
        self.client = attached_client(config)
        self.client.revive = self._wait
        self.swaps = 0

    def serve(self, checkpoint: Checkpoint) -> str:
        """The served model of a checkpoint; an adapter is loaded if the server allows it.

        Raises:
            UserError: the server has no model for the checkpoint.
        """
        models = served_models(self.client)
        names = [str(model.get("id")) for model in models]
        key = checkpoint.name if checkpoint.path else BASE_NAME
        named = (self._config.models or {}).get(key)
        loaded = f"{checkpoint.name}-{checkpoint.digest[:8]}"  # several runs may have a checkpoint of this name
        wanted = [str(named)] if named is not None else [key, *([loaded] if checkpoint.path else [])]
        if served_name := next((name for name in wanted if name in names), None):
            return served_name
        if named is None and not checkpoint.path:
            return next((str(model["id"]) for model in models if model.get("id") and not model.get("parent")), names[0])
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
        """Do nothing: this command has not started the server."""

    def _load(self, name: str, adapter: Adapter) -> str | None:
        """Load an adapter into a vLLM that was started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1; the error or None."""
        body = {"lora_name": name, "lora_path": str(adapter.path)}
        try:
            self.client.post_command("/v1/load_lora_adapter", body, f"the adapter {name}")
        except RefusedError as error:
            return str(error)
        except FailedError as error:
            return str(error).rstrip(".")
        return None

    def _wait(self) -> None:
        if not wait_until(self.client.is_up, min(_RECOVERY_S, self._config.start_minutes * 60)):
            raise UserError(
                f"{self.client.url} has stopped answering. Start it again, then give the same command: what is "
                "finished is kept."
            )


class ManagedServer:
    """A vLLM that this command starts, and restarts for weights that cannot be replaced while it runs."""

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
            config: the interpreter of vLLM and its settings.
            log: file for its output.
            fixed: arguments that are the same for all weights.
            weights: gives the folder or the Hub id of a checkpoint's weights; writes them first if necessary.
            adapters: the checkpoints that are adapters of the base, by name.
        """
        assert config.python is not None
        self._config, self._weights, self._adapters = config, weights, adapters
        self._server = Server(config.python, log, config.reload is Reload.in_place)
        self.client = Client(self._server.url, self._server.key, config.in_flight, config.timeout_s, config.tries)
        self.client.revive = self._restart_after_crash
        engine_arguments = as_arguments(config.args or {})
        self._fixed = [*fixed, *engine_arguments, *self._lora_arguments()]
        self._served_as = self._running = ""
        """The name under which the present weights are served."""
        self._arguments: list[str] = []
        self._crashes = self.swaps = 0
        self._failure: UserError | None = None
        """The error that prevents further restarts."""
        self._lock = Lock()

    def serve(self, checkpoint: Checkpoint) -> str:
        """Serve a checkpoint: an adapter together with its base, other weights in place of the present ones.

        Raises:
            UserError: vLLM does not start.
        """
        name = self._weights_name(checkpoint)
        if self._running and self._running != name and self._config.reload is Reload.in_place:
            self._reload(checkpoint, name)
        elif self._running != name:
            self.start(checkpoint)
        return self._served_name(checkpoint)

    def start(self, checkpoint: Checkpoint) -> str:
        """Start a fresh server with a checkpoint's weights, or those of its base if it is an adapter.

        Returns:
            The model name for requests.
        """
        self._server.stop()  # before other weights are written: saves memory and disk
        self._crashes, self._failure = 0, None
        self._served_as = self._weights_name(checkpoint)
        self._set_arguments(self._served_as, self._weights(checkpoint))
        self._start()
        return self._served_name(checkpoint)

    def stop(self) -> None:
        """End the server."""
        self._server.stop()

    def _weights_name(self, checkpoint: Checkpoint) -> str:
        """The name of the weights that a server must have for a checkpoint."""
        return checkpoint.name if checkpoint.path and checkpoint.name not in self._adapters else BASE_NAME

    def _served_name(self, checkpoint: Checkpoint) -> str:
        return checkpoint.name if checkpoint.name in self._adapters else self._served_as

    def _set_arguments(self, name: str, weights: str) -> None:
        self._running = name
        modules = (
            [f"{adapter_name}={adapter.path}" for adapter_name, adapter in self._adapters.items()]
            if name == BASE_NAME
            else []
        )
        lora = ["--lora-modules", *modules] if modules else []
        self._arguments = ["--model", weights, "--served-model-name", self._served_as, *self._fixed, *lora]

    def _start(self) -> None:
        self._server.start(self._arguments)
        self._server.wait(self.client.is_up, self._config.start_minutes * 60)

    def _reload(self, checkpoint: Checkpoint, name: str) -> None:
        """Let the running server read other weights; its answers must be compared again afterwards."""
        weights = self._weights(checkpoint)
        body = {"method": "reload_weights", "kwargs": {"weights_path": weights}}
        try:
            self.client.post_command("/collective_rpc", body, f"the weights of {name}")
            for cache in ("/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"):
                with suppress(RefusedError, FailedError):  # not every version has all of them
                    self.client.post_command(cache, None, cache)
        except (RefusedError, UserError):
            self.start(checkpoint)
            return
        self.swaps += 1
        self._crashes = 0
        self._set_arguments(name, weights)  # for a server that dies and is started again

    def _restart_after_crash(self) -> None:
        """Restart a server that has died; one thread does, the others wait."""
        with self._lock:
            self.client.check_open()
            if self._failure:
                raise self._failure
            wait_until(lambda: not self._server.is_running or self.client.is_up(), _RECOVERY_S)
            if self._server.is_running and self.client.is_up():
                return
            self._crashes += 1
            try:
                if self._crashes > _MAX_CRASHES:
                    raise UserError(f"vLLM has died {self._crashes} times at one checkpoint; {self._server.log_tail()}")
                self._start()
            except UserError as error:
                self._failure = error
                raise

    def _lora_arguments(self) -> list[str]:
        if not self._adapters:
            return []
        rank = max(adapter.rank for adapter in self._adapters.values())
        allowed = next((max_rank for max_rank in _RANKS if max_rank >= rank), None)
        if allowed is None:
            raise UserError(f"vLLM takes adapters of rank {_RANKS[-1]} at most, not {rank}: set engine.adapters=false.")
        return ["--enable-lora", "--max-lora-rank", str(allowed), "--max-cpu-loras", str(max(2, len(self._adapters)))]
