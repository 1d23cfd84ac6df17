"""A vLLM of our own brings pictures to their size as this process does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from tests.support.server import FakeVllm


def test_vllm_is_told_to_resize_pictures_with_pillow_where_transformers_does_so_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fake = FakeVllm(tmp_path / "vllm")
    engine = ["engine=vllm", f"engine.python={fake.python}", "model.max_pixels=512"]
    matrix = ["matrix.datasets=[fashion_naming]", "matrix.limit=2", "matrix.decodings=[choice]"]
    given = ["eval-matrix", "model=tiny", "data=fashion_naming", "threads=1", *engine, *matrix]
    result = CliRunner().invoke(app, given, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    (arguments,) = fake.starts
    settings = json.loads(arguments[arguments.index("--mm-processor-kwargs") + 1])
    assert settings["use_fast"] is False  # torchvision, which it takes otherwise, gives other pixels
