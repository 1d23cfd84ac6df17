"""Checkpoints of runs: adapters beside their base, full weights by a fresh server or in place."""

from __future__ import annotations

import socket
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
from forgetbench.models.load import LoadedModel
from forgetbench.runs.address import resolve
from forgetbench.serving import engines, servers
from forgetbench.serving.client import wait_until
from tests.support.server_app import StandIn
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
def transformers_answers_of(
    runs: dict[str, Path], sets: Path, tiny: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """What transformers answers at every checkpoint of a run, asked once."""
    answers: dict[str, Answers] = {}

    def answers_of_kind(kind: str) -> Answers:
        if kind not in answers:
            answers[kind] = subject(kind, runs, sets, tiny, tmp_path_factory.mktemp("own")).score(EngineConfig(), SETS)
        return answers[kind]

    return answers_of_kind


def subject(kind: str, runs: dict[str, Path], sets: Path, tiny: LoadedModel, outputs: Path) -> Scorer:
    run = resolve(runs[kind]).run()
    return Scorer(sets, tiny, outputs, run, run.checkpoints([]))


class InProcessServer:
    """A vLLM process that is a stand-in server in this process: it starts at once."""

    def __init__(self, knobs: Knobs) -> None:
        self._knobs = knobs
        self.servers: list[StandIn] = []
        self.starts: list[list[str]] = []
        self.key, self.is_running = "", False
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self, arguments: Sequence[str]) -> None:
        self.stop()
        self.starts.append(list(arguments))
        adapters = dict(
            argument.split("=") for argument in arguments if argument.startswith("step_") and "=" in argument
        )
        model, name = (arguments[list(arguments).index(option) + 1] for option in ("--model", "--served-model-name"))
        server = StandIn(model, self._knobs, name, adapters, address=("127.0.0.1", self._port))
        self.servers.append(server.__enter__())
        self.is_running = True

    def wait(self, is_up: Callable[[], bool], seconds: float) -> None:
        assert wait_until(is_up, seconds, 0.01)  # a connection to the one before may be left

    def log_tail(self) -> str:
        return "it says nothing."

    def stop(self) -> None:
        if self.is_running:
            self.servers[-1].__exit__(None, None, None)
        self.is_running = False


@pytest.fixture
def serve_in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., InProcessServer]:
    """Puts it in the place of a process."""

    def put(knobs: Knobs = SOUND) -> InProcessServer:
        server = InProcessServer(knobs)
        monkeypatch.setattr(servers, "Server", lambda *_: server)
        monkeypatch.setattr(engines, "vllm_version", lambda _: "0.32.0")
        return server

    return put


def vllm(**more: Any) -> EngineConfig:
    return EngineConfig(name=Engine.vllm, python="python", **more)


@pytest.fixture
def of_run(runs: dict[str, Path], sets: Path, tiny: LoadedModel, tmp_path: Path) -> Callable[[str], Scorer]:
    return lambda kind: subject(kind, runs, sets, tiny, tmp_path / "outputs")


def test_adapters_are_served_at_once_beside_their_base(
    of_run: Callable[[str], Scorer], transformers_answers_of: Any, serve_in_process: Callable[..., InProcessServer]
) -> None:
    process, scorer = serve_in_process(), of_run("lora")
    assert_equal(scorer.score(vllm(), SETS), transformers_answers_of("lora"))
    (start,) = process.starts
    assert len([argument for argument in start if argument.startswith("step_")]) == 2
    table = pd.read_csv(scorer.outputs / "tables/engine.csv")
    assert sorted(set(table["checkpoint"])) == ["step_000000", "step_000002"]
    assert table["largest_difference"].max() < 1e-3


def test_adapters_may_be_merged(
    of_run: Callable[[str], Scorer], transformers_answers_of: Any, serve_in_process: Callable[..., InProcessServer]
) -> None:
    process = serve_in_process()
    assert_equal(of_run("lora").score(vllm(adapters=False), SETS), transformers_answers_of("lora"))
    assert [start[start.index("--served-model-name") + 1] for start in process.starts] == [
        "base",
        "step_000001",
        "step_000002",
    ]


def test_full_weights_are_served_by_a_fresh_server_each(
    of_run: Callable[[str], Scorer], transformers_answers_of: Any, serve_in_process: Callable[..., InProcessServer]
) -> None:
    process, scorer = serve_in_process(), of_run("full")
    assert_equal(scorer.score(vllm(), SETS), transformers_answers_of("full"))
    assert len(process.starts) == 3
    table = pd.read_csv(scorer.outputs / "tables/engine.csv")
    assert sorted(set(table["checkpoint"])) == ["step_000000", "step_000001", "step_000002"]


def test_a_sound_server_takes_weights_in_place_and_is_checked_at_every_swap(
    of_run: Callable[[str], Scorer], transformers_answers_of: Any, serve_in_process: Callable[..., InProcessServer]
) -> None:
    process, scorer = serve_in_process(), of_run("full")
    assert_equal(scorer.score(vllm(reload=Reload.in_place), SETS), transformers_answers_of("full"))
    assert len(process.starts) == 1
    assert process.servers[0].seen["/collective_rpc"] == 2
    table = pd.read_csv(scorer.outputs / "tables/engine.csv")
    assert table.groupby("checkpoint")["items"].sum().tolist() == [8, 8, 8]  # all there are: fewer than 64
    assert not list(scorer.outputs.glob(".engines/*"))


def test_no_answer_of_stale_weights_reaches_a_cell(
    of_run: Callable[[str], Scorer], transformers_answers_of: Any, serve_in_process: Callable[..., InProcessServer]
) -> None:
    process, scorer = serve_in_process(Knobs(stale=0.3)), of_run("full")
    assert_equal(scorer.score(vllm(reload=Reload.in_place), SETS), transformers_answers_of("full"))
    assert sum(server.seen["stale"] for server in process.servers) > 0
    assert len(process.starts) > 1


def test_adapters_are_loaded_into_a_server_that_takes_them(
    of_run: Callable[[str], Scorer], transformers_answers_of: Any, standing: Standing
) -> None:
    scorer = of_run("lora")
    with standing() as server:
        assert_equal(scorer.score(attached(server), SETS), transformers_answers_of("lora"))
        assert server.seen["/v1/load_lora_adapter"] == 2
        assert not {"step_000001", "step_000002"} & set(server.model.models)  # which another run may have, too
    assert len(pd.read_csv(scorer.outputs / "tables/engine.csv")) == 6  # each set at each checkpoint


def test_served_checkpoints_may_be_named_and_others_are_refused_with_the_fix(
    of_run: Callable[[str], Scorer], standing: Standing
) -> None:
    with standing(Knobs(runtime_lora=False)) as server:
        with pytest.raises(
            UserError, match=r"none of them is step_000001; .*HTTP 404.*engine.models=\{step_000001: <name>\}"
        ):
            of_run("lora").score(attached(server), ["letters"])
        with pytest.raises(UserError, match="none of them is tuned"):
            of_run("lora").score(attached(server, models={"step_000001": "tuned"}), ["letters"])
        # The base under the checkpoint's name: other weights than those of the run.
        with pytest.raises(UserError, match=r"letters, step_000001: vllm 0.32.0 gives log-probabilities up to"):
            of_run("full").score(attached(server, models={"step_000001": "base"}), ["letters"])
