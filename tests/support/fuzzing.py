"""What tests of arbitrary input share: how many examples they try, and bytes and structures that no one meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

FEW, MANY = 20, 1000
"""Examples of a test: of the quick run, and of the long one under `make test-all`."""


def examples(n: int) -> settings:
    """The same examples every time, however slow the machine is."""
    return settings(
        max_examples=n,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )


few_and_many = pytest.mark.parametrize("n", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
"""The numbers of examples; for a test that runs its property by `examples(n)`."""
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", " ", "\0", "\ud800", "{question}", "a.png", "../a", "${x}", "1e999"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS


def structures(keys: SearchStrategy[str]) -> SearchStrategy[Any]:
    """Values as JSON holds them, of mappings with such keys."""
    return st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=12
    )


@st.composite
def damaged(draw: Any, content: bytes) -> bytes:
    """Bytes of a valid file, a few of them cut out, replaced or doubled."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(changed)))
        end = min(len(changed), start + draw(st.integers(0, 12)))
        changed[start:end] = draw(st.sampled_from([b"", changed[start:end] * 2]) | st.binary(max_size=8))
    return bytes(changed)


def as_json(value: Any) -> bytes:
    """JSON as Python writes it: NaN, infinities and halves of characters included."""
    return json.dumps(value).encode()
