"""Whatever a file of tensors says of itself, it is taken or refused by name; nothing else is raised."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forgetbench.core.errors import UserError
from forgetbench.exchange.adapter_settings import FILE, read_settings
from forgetbench.models.declared import LIMITS, check_sizes
from forgetbench.models.weight_files import INDEX, SINGLE, check_weights

NUMBERS = st.one_of(
    st.integers(-4, 64), st.sampled_from([2**31, 2**63, 2**64 - 1, 10**30, 0.5, float("nan"), float("inf")])
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=8,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(["F32", "BF16", "I64", "BOOL", "F33"]), ANYTHING),
        "shape": st.one_of(st.lists(NUMBERS, max_size=3), ANYTHING),
        "data_offsets": st.one_of(st.lists(NUMBERS, min_size=2, max_size=2), ANYTHING),
    },
)
HEADERS = st.one_of(ANYTHING, st.dictionaries(st.sampled_from(["a", "b", "__metadata__", ""]), TENSORS | ANYTHING))
KEYS = ("r", "lora_alpha", "target_modules", "modules_to_save", "rank_pattern", "layers_to_transform")
ADAPTERS = st.fixed_dictionaries(
    {"peft_type": st.one_of(st.sampled_from(["LORA", "IA3", "VERA", "PREFIX_TUNING", "BOFT"]), ANYTHING)},
    optional=dict.fromkeys(KEYS, ANYTHING),
)
SIZES = st.dictionaries(
    st.sampled_from(["text_config", "vision_config", "other"]),
    st.dictionaries(st.sampled_from(sorted(LIMITS)), ANYTHING),
)
QUICK = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LONG = settings(QUICK, max_examples=5000)


def taken_or_refused(content: bytes, path: Path, read: Any) -> None:
    path.write_bytes(content)
    with suppress(UserError):
        read(path.parent)


def headers(header: Any, length: int, data: bytes, folder: Path) -> None:
    raw = json.dumps(header).encode()
    content = struct.pack("<Q", max(0, len(raw) + length)) + raw + data
    taken_or_refused(content, folder / SINGLE, check_weights)


def indices(index: Any, folder: Path) -> None:
    (folder / SINGLE).unlink(missing_ok=True)
    taken_or_refused(json.dumps(index).encode(), folder / INDEX, check_weights)


def adapters(content: Any, folder: Path) -> None:
    taken_or_refused(json.dumps(content).encode(), folder / FILE, read_settings)


def sizes(content: Any, folder: Path) -> None:
    taken_or_refused(
        json.dumps(content).encode(), folder / "config.json", lambda folder: check_sizes(folder / "config.json")
    )


@QUICK
@given(header=HEADERS, length=st.sampled_from([0, 0, 0, -1, 1, 2**40]), data=st.binary(max_size=16))
def test_any_header_of_tensors_is_taken_or_refused(tmp_path: Path, header: Any, length: int, data: bytes) -> None:
    headers(header, length, data, tmp_path)


@QUICK
@given(index=st.one_of(ANYTHING, st.fixed_dictionaries({"weight_map": ANYTHING})))
def test_any_index_is_taken_or_refused(tmp_path: Path, index: Any) -> None:
    indices(index, tmp_path)


@QUICK
@given(content=st.one_of(ANYTHING, ADAPTERS))
def test_any_settings_of_an_adapter_are_taken_or_refused(tmp_path: Path, content: Any) -> None:
    adapters(content, tmp_path)


@QUICK
@given(content=st.one_of(ANYTHING, SIZES))
def test_any_declared_sizes_are_taken_or_refused(tmp_path: Path, content: Any) -> None:
    sizes(content, tmp_path)


@pytest.mark.slow
@LONG
@given(header=HEADERS, length=st.integers(-40, 2**63), data=st.binary(max_size=64))
def test_many_headers_of_tensors_are_taken_or_refused(tmp_path: Path, header: Any, length: int, data: bytes) -> None:
    headers(header, length, data, tmp_path)


@pytest.mark.slow
@LONG
@given(content=st.one_of(ANYTHING, ADAPTERS))
def test_many_settings_of_an_adapter_are_taken_or_refused(tmp_path: Path, content: Any) -> None:
    adapters(content, tmp_path)


@pytest.mark.slow
@LONG
@given(content=st.binary(max_size=200))
def test_any_bytes_in_place_of_tensors_are_taken_or_refused(tmp_path: Path, content: bytes) -> None:
    taken_or_refused(content, tmp_path / SINGLE, check_weights)
