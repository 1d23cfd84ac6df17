"""The program and version that answers; they are part of every cell's name."""

from __future__ import annotations

from dataclasses import dataclass

from forgetbench.config import Engine, EngineConfig
from forgetbench.core.errors import UserError
from forgetbench.serving.client import Client, key_from
from forgetbench.serving.process import vllm_version


@dataclass(frozen=True)
class EngineIdentity:
    """A program that runs models."""

    program: str
    """vllm, sglang, lmdeploy, or the name that a server gives."""
    version: str
    """Empty if the server does not tell it."""

    @property
    def label(self) -> str:
        """Name in cells and tables."""
        return f"{self.program} {self.version}".strip()


def identify(config: EngineConfig) -> EngineIdentity | None:
    """The engine of a configuration; None for transformers in this process.

    Raises:
        UserError: there is no such interpreter, no vLLM in its environment, or no server at the address.
    """
    match config.name:
        case Engine.transformers:
            return None
        case Engine.vllm:
            assert config.python is not None
            return EngineIdentity("vllm", vllm_version(config.python))
        case Engine.server:
            client = attached_client(config)
            try:
                return _server_identity(client)
            finally:
                client.close()


def attached_client(config: EngineConfig) -> Client:
    """A client of the server in a configuration."""
    assert config.url is not None
    return Client(config.url, key_from(config.key), config.in_flight, config.timeout_s, config.tries)


def served_models(client: Client) -> list[dict[str, object]]:
    """The models that a server lists.

    Raises:
        UserError: there is no such server, or it serves none.
    """
    response = client.get("/v1/models")
    models = response.get("data") if isinstance(response, dict) else None
    if not isinstance(models, list) or not models or not all(isinstance(model, dict) for model in models):
        raise UserError(
            f"engine.url={client.url}: no server that speaks OpenAI's protocol answers there (GET /v1/models). Is it "
            "ready, is the address right, and is its key in the variable that engine.key names?"
        )
    return models


def _server_identity(client: Client) -> EngineIdentity:
    owner = str(served_models(client)[0].get("owned_by") or "server")
    for path in ("/version", "/get_server_info", "/server_info"):
        info = client.get(path)
        if isinstance(info, dict) and isinstance(info.get("version"), str):
            return EngineIdentity(owner, info["version"])
    return EngineIdentity(owner, "")
