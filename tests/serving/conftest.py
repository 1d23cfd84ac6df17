"""One loaded model, a few sets, and what transformers answers, for all tests here."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from forgetbench.config import EngineConfig
from forgetbench.models.load import LoadedModel
from tests.support.server_app import StandIn
from tests.support.server_knobs import SOUND, Knobs
from tests.support.serving import Answers, Scorer, load_tiny, write_sets


@pytest.fixture(scope="session")
def tiny() -> LoadedModel:
    """Read-only."""
    return load_tiny()


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets") / "data")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Heed it, too, where a shell started the tests behind `&`, which has programs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def scorer(tiny: LoadedModel, sets: Path, tmp_path: Path) -> Scorer:
    return Scorer(sets, tiny, tmp_path / "outputs")


@pytest.fixture(scope="session")
def transformers_answers(tiny: LoadedModel, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What transformers answers to all sets."""
    return Scorer(sets, tiny, tmp_path_factory.mktemp("own")).score(EngineConfig())


class Standing:
    """Starts stand-in servers of the tiny model."""

    def __init__(self, tiny: LoadedModel) -> None:
        self._tiny = tiny

    def __call__(self, knobs: Knobs = SOUND) -> StandIn:
        return StandIn("embedded:tiny", knobs, loaded=self._tiny)


@pytest.fixture(scope="session")
def standing(tiny: LoadedModel) -> Standing:
    return Standing(tiny)
