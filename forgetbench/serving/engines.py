"""Which program and version answers: part of every cell's name."""

from __future__ import annotations

from dataclasses import dataclass

from forgetbench.config import Engine, EngineConfig
from forgetbench.core.errors import UserError
from forgetbench.serving.client import Client, key_from
from forgetbench.serving.process import vllm_version


@dataclass(frozen=True)
class Identity:
    """A program that runs models."""

    program: str
    """vllm, sglang, lmdeploy, or what a server calls itself."""
    version: str
    """Empty where it does not say."""

    @property
    def label(self) -> str:
        """As cells and tables name it."""
        return f"{self.program} {self.version}".strip()


def identify(config: EngineConfig) -> Identity | None:
    """The engine of a configuration; None for transformers in this process.

    Raises:
        UserError: there is no such interpreter, no vLLM in its environment, or no server at the address.
    """
    match config.name:
        case Engine.transformers:
            return None
        case Engine.vllm:
            assert config.python is not None
            return Identity("vllm", vllm_version(config.python))
        case Engine.server:
            client = attached_client(config)
            try:
                return _of_server(client)
            finally:
                client.close()


def attached_client(config: EngineConfig) -> Client:
    """A client of the server that a configuration names."""
    assert config.url is not None
    return Client(config.url, key_from(config.key), config.in_flight, config.timeout_s, config.tries)


def served_models(client: Client) -> list[dict[str, object]]:
    """What a server says of the models that it serves.

    Raises:
        UserError: there is no such server, or it serves none.
    """
    told = client.get("/v1/models")
    models = told.get("data") if isinstance(told, dict) else None
    if not isinstance(models, list) or not models or not all(isinstance(one, dict) for one in models):
        raise UserError(
            f"engine.url={client.url}: no server that speaks OpenAI's protocol answers there (GET /v1/models). Is it "
            "ready, is the address right, and is its key in the variable that engine.key names?"
        )
    return models


def _of_server(client: Client) -> Identity:
    owner = str(served_models(client)[0].get("owned_by") or "server")
    for path in ("/version", "/get_server_info", "/server_info"):
        told = client.get(path)
        if isinstance(told, dict) and isinstance(told.get("version"), str):
            return Identity(owner, told["version"])
    return Identity(owner, "")
