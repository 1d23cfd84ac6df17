"""One folder of tiny models and runs for all tests here."""

from __future__ import annotations

import pytest

from tests.support.toys import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))
