"""Checkpoints of runs: adapters beside their base, full weights by a fresh server or in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from forgetbench.commands.finetune import finetune
from forgetbench.config import (
    CheckpointConfig,
    DataConfig,
    Engine,
    EngineConfig,
    FinetuneConfig,
    RecipeConfig,
    Reload,
    StageConfig,
)
from forgetbench.core.errors import UserError
from forgetbench.core.records import Precision
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.load import LoadedModel
from forgetbench.runs.address import resolve
from forgetbench.serving import served
from tests.support.server_app import GENERATE, StandIn
from tests.support.server_knobs import SOUND, Knobs
from tests.support.serving import TINY, Answers, Scorer, assert_equal, attached

Standing = Callable[..., StandIn]
SETS = ["letters", "open"]
# peft 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def trained(folder: Path, sets: Path, method: Method, parts: Sequence[str]) -> Path:
    recipe = RecipeConfig(
        parts=list(parts), steps=2, batch_size=2, lr=1e-2, warmup=0.0, precision=Precision.fp32,
        checkpoints=CheckpointConfig(every=1),
    )  # fmt: skip
    config = FinetuneConfig(
        name="run", outputs=str(folder), manifests=[str(sets)], threads=1, model=TINY,
        data=DataConfig(stages=[StageConfig(set="letters")]), recipe=recipe, method=method,
    )  # fmt: skip
    finetune(config, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def runs(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with adapters, and one of full fine-tuning."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "lora": trained(folder / "lora", sets, LoRA(name="lora"), ["language"]),
        "full": trained(folder / "full", sets, Method(), ["projector", "language"]),
    }


@pytest.fixture(scope="module")
def own_of(runs: dict[str, Path], sets: Path, tiny: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What transformers answers at every checkpoint of a run, asked once."""
    found: dict[str, Answers] = {}

    def own(kind: str) -> Answers:
        if kind not in found:
            found[kind] = subject(kind, runs, sets, tiny, tmp_path_factory.mktemp("own")).score(EngineConfig(), SETS)
        return found[kind]

    return own


def subject(kind: str, runs: dict[str, Path], sets: Path, tiny: LoadedModel, outputs: Path) -> Scorer:
    run = resolve(runs[kind]).run()
    return Scorer(sets, tiny, outputs, run, run.checkpoints([]))


class Inside:
    """A vLLM process that is a stand-in server in this process: it starts at once."""

    knobs = SOUND
    started: list[list[str]] = []
    servers: list[StandIn] = []

    def __init__(self, python: str, log: Path, reloads: bool = False) -> None:
        self.key, self.url = "", ""
        self.is_running = False

    def start(self, arguments: Sequence[str]) -> None:
        arguments = list(arguments)
        self.started.append(arguments)
        adapters = dict(one.split("=") for one in arguments if one.startswith("step_") and "=" in one)
        name = arguments[arguments.index("--served-model-name") + 1]
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        model = arguments[arguments.index("--model") + 1]
        server = StandIn(model, self.knobs, name, adapters, address=("127.0.0.1", port))
        self.servers.append(server.__enter__())
        self.url, self.is_running = server.url, True

    def wait(self, is_up: Callable[[], bool], seconds: float) -> None:
        assert is_up()

    def said(self) -> str:
        return "it says nothing."

    def stop(self) -> None:
        if self.is_running:
            self.servers[-1].__exit__(None, None, None)
        self.is_running = False
