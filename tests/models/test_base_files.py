from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest

from forgetbench.config import ModelConfig
from forgetbench.models.pretrained import base_file


def test_a_hub_models_files_are_found_in_the_cache_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--someone--model/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("card")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    model = ModelConfig(path="someone/model", revision="abc")
    path = base_file(model, "README.md")
    assert path is not None
    assert path.read_text() == "card"
    assert base_file(model, "LICENSE") is None
    assert base_file(ModelConfig(path="someone/other"), "README.md") is None
    assert base_file(ModelConfig(path="no/such/folder"), "README.md") is None
    assert base_file(ModelConfig(path="embedded:tiny"), "README.md") is not None
