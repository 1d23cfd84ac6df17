"""What is wrong with the engine of a command, each with its key."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgetbench.compose.checks.engine import engine_problems
from forgetbench.config import (
    DataConfig,
    Engine,
    EngineConfig,
    EvalMatrixConfig,
    MatrixConfig,
    ModelConfig,
    Quantisation,
    Reload,
    StageConfig,
)
from forgetbench.core.records import Decoding

SERVER = EngineConfig(name=Engine.server, url="http://127.0.0.1:8000")
VLLM = EngineConfig(name=Engine.vllm, python=sys.executable)


def problems(engine: EngineConfig, **matrix: Any) -> list[tuple[str, str]]:
    config = EvalMatrixConfig(
        model=ModelConfig(path="embedded:tiny"),
        data=DataConfig(stages=[StageConfig(set="target")]),
        matrix=MatrixConfig(datasets=["target"], **matrix),
        engine=engine,
    )
    return [(problem.key, problem.message) for problem in engine_problems(config)]


@pytest.mark.parametrize("engine", [EngineConfig(), SERVER, VLLM, replace(SERVER, url="https://[::1]:80/v1")], ids=str)
def test_a_whole_engine_has_no_problem(engine: EngineConfig) -> None:
    assert problems(engine) == []


@pytest.mark.parametrize(
    ("engine", "key", "message"),
    [
        (replace(SERVER, url=None), "url", "missing; give the server's address"),
        (replace(SERVER, url="127.0.0.1:8000"), "url", "'127.0.0.1:8000' is no address"),
        (replace(SERVER, url="http://"), "url", "is no address"),
        (replace(SERVER, url="http://host:port"), "url", "is no address"),
        (replace(SERVER, url="http://host:99999"), "url", "is no address"),
        (replace(SERVER, url="http://[::1"), "url", "is no address"),
        (replace(SERVER, url="http://me:pass@host"), "url", "holds a password"),
        (replace(SERVER, reload=Reload.in_place), "reload", "is for engine=vllm"),
        (replace(SERVER, python="python"), "python", "is for engine=vllm, and engine=server is given"),
        (replace(SERVER, args={"a": 1}), "args", "is for engine=vllm"),
        (replace(VLLM, url="http://host"), "url", "is for engine=server"),
        (replace(VLLM, models={"base": "x"}), "models", "is for engine=server"),
        (replace(EngineConfig(), args={"a": 1}), "args", "engine=transformers is given"),
        (replace(VLLM, python=None), "python", "missing; give the interpreter"),
        (replace(VLLM, python="no/such/python"), "python", "there is no program 'no/such/python'"),
        (replace(VLLM, args=["a"]), "args", "give names and values"),
        (replace(SERVER, models="base"), "models", "give names and values"),
        (replace(VLLM, args={"api-key": "x"}), "args.api-key", "is set by forgetbench itself"),
        (replace(VLLM, args={"enable_lora": True}), "args.enable_lora", "is set by forgetbench itself"),
        (replace(SERVER, key="sk-123"), "key", "give the name of the environment variable"),
        (replace(SERVER, in_flight=0), "in_flight", "0"),
        (replace(SERVER, tries=0), "tries", "0"),
        (replace(SERVER, check_items=0), "check_items", "0"),
        (replace(SERVER, timeout_s=0.0), "timeout_s", "give a number above 0"),
        (replace(SERVER, start_minutes=float("inf")), "start_minutes", "give a number above 0"),
        (replace(SERVER, tolerance=float("nan")), "tolerance", "give a number above 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_told_with_its_key(engine: EngineConfig, key: str, message: str) -> None:
    (problem,) = [problem for problem in problems(engine) if problem[0] == f"engine.{key}"]
    assert message in problem[1]
    assert "sk-123" not in problem[1]
    assert "pass@" not in problem[1]


def test_what_only_transformers_does_is_refused_of_others() -> None:
    assert [key for key, _ in problems(SERVER, decodings=[Decoding.sample])] == ["matrix.decodings"]
    assert problems(EngineConfig(), decodings=[Decoding.sample]) == []
    config = EvalMatrixConfig(
        model=ModelConfig(path="x", quantisation=list(Quantisation)[-1]),
        matrix=MatrixConfig(datasets=["target"]),
        engine=SERVER,
    )
    assert [problem.key for problem in engine_problems(config)] == ["model.quantisation"]


def test_several_processes_of_one_command_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forgetbench.commands import eval_matrix
    from forgetbench.core.errors import UserError
    from forgetbench.core.processes import ProcessGroup

    config = EvalMatrixConfig(
        name="x",
        outputs=str(tmp_path),
        model=ModelConfig(path="embedded:tiny"),
        data=DataConfig(stages=[StageConfig(set="fashion_naming")]),
        matrix=MatrixConfig(datasets=["fashion_naming"], limit=2),
        engine=SERVER,
    )
    monkeypatch.setattr(eval_matrix, "join_process_group", lambda: ProcessGroup(rank=0, size=2))
    with pytest.raises(UserError, match="one process fills a server; start the command without torchrun"):
        eval_matrix.eval_matrix(config, tmp_path)
