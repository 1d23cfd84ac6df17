"""`doctor`: each check on stand-ins, and the whole on this machine."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import tempfile
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.commands.doctor import machine
from forgetbench.commands.doctor.finding import State
from forgetbench.commands.doctor.self_test import EXPECTED, LOSS, TOLERANCE, compare


def declared(*required: str) -> Message:
    metadata = Message()
    metadata["Requires-Python"] = ">=3.11"
    for line in required:
        metadata["Requires-Dist"] = line
    return metadata


def versions_of(installed: dict[str, str], *required: str) -> dict[str, tuple[State, str]]:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    findings = machine.versions(lambda _: declared(*required), version)
    return {finding.check: (finding.state, finding.fix) for finding in findings}


def test_a_library_outside_its_range_is_a_warning_and_a_missing_one_a_failure() -> None:
    required = ("torch>=2.6", "peft>=0.18", "ruff>=1; extra == 'dev'")
    findings = versions_of({"torch": "2.5.1+cu124"}, *required)
    assert findings["torch"] == (State.warning, "pip install 'torch>=2.6'")
    assert findings["peft"] == (State.fails, "pip install 'peft>=0.18'")
    assert "ruff" not in findings
    sound = versions_of({"torch": "2.9.0+cu128", "peft": "0.18.0"}, *required)
    assert {state for state, _ in sound.values()} == {State.ok}


def gpu(has_bf16: bool) -> SimpleNamespace:
    card = SimpleNamespace(name="A card", total_memory=80 << 30)
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        get_device_properties=lambda _: card,
        is_bf16_supported=lambda: has_bf16,
    )
    return SimpleNamespace(cuda=cuda, get_num_threads=lambda: 4)


@pytest.mark.parametrize(("has_bf16", "state"), [(True, State.ok), (False, State.warning)])
def test_a_gpu_is_named_with_its_memory_and_whether_it_computes_in_bf16(has_bf16: bool, state: State) -> None:
    findings = {finding.check: finding for finding in machine.devices(gpu(has_bf16))}
    assert findings["gpu 0"].state is state
    assert "A card, 80 GiB, bf16" in findings["gpu 0"].message
    assert ("precision=fp32" in findings["gpu 0"].fix) == (not has_bf16)


def test_attention_names_the_kernels_that_run() -> None:
    with_flash, without = (next(iter(machine.attention(lambda has=has: has))).message for has in (True, False))
    assert with_flash == "eager, sdpa, flash_attention_2"
    assert without.startswith("eager, sdpa; flash_attention_2 needs")


def test_a_folder_that_cannot_be_written_fails_where_runs_go_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [sound] = machine.disk({"outputs": tmp_path / "not/there/yet"})
    assert "can be written" in sound.message
    assert list(tmp_path.iterdir()) == []

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    runs, cache = machine.disk({"outputs": tmp_path, "Hub cache": tmp_path})
    assert (runs.state, cache.state) == (State.fails, State.warning)
    assert "outputs=" in runs.fix


@pytest.mark.parametrize(
    ("free", "state"), [(machine.NO_DISK - 1, State.fails), (machine.NO_DISK, State.warning), (1 << 40, State.ok)]
)
def test_little_room_is_a_warning_and_none_a_failure(
    free: int, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    [finding] = machine.disk({"outputs": tmp_path})
    assert finding.state is state


@pytest.mark.parametrize(
    ("offline", "reason", "state", "message"),
    [
        (True, None, State.warning, "HF_HUB_OFFLINE is set"),
        (False, "no route", State.warning, "cannot be reached"),
        (False, None, State.ok, "answers"),
    ],
)
def test_the_hub_is_asked_and_a_token_is_never_shown(
    offline: bool, reason: str | None, state: State, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: offline)
    [finding] = machine.hub(lambda _: reason)
    assert finding.state is state
    assert message in finding.message
    assert "a token is set" in finding.message
    assert "hf_secret" not in repr(finding)


def test_an_encoding_that_lacks_letters_is_a_warning() -> None:
    assert [check.state for check in machine.encoding(["utf-8", "UTF8"])] == [State.ok]
    [finding] = machine.encoding(["utf-8", "ascii"])
    assert (finding.state, "PYTHONUTF8=1" in finding.fix) == (State.warning, True)


def test_extras_that_are_not_installed_say_what_they_are_for() -> None:
    def find(module: str) -> object:
        if module.startswith("hydra_plugins"):
            raise ModuleNotFoundError(module)
        return object() if module == "wandb" else None

    [finding] = machine.extras(find)
    assert finding.message.startswith("installed: wandb; not: joblib (points of a sweep in several processes)")
    assert finding.state is State.ok


def test_the_self_test_fails_where_the_loss_or_an_answer_is_another() -> None:
    assert [check.state for check in compare(LOSS + TOLERANCE / 2, EXPECTED, 8.0)] == [State.ok, State.ok]
    assert [check.state for check in compare(LOSS + 2 * TOLERANCE, EXPECTED, 8.0)] == [State.fails, State.ok]
    both_wrong = compare(float("nan"), {**EXPECTED, "digits_naming": 0.9}, 8.0)
    assert [check.state for check in both_wrong] == [State.fails, State.fails]
    assert [check.state for check in compare(LOSS, {}, 8.0)] == [State.ok, State.fails]


def test_this_machine_trains_and_scores_as_expected_and_no_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0, done.stdout
    states = {row["check"]: row["state"] for row in json.loads(done.stdout)}
    assert (states["training"], states["scoring"]) == ("ok", "ok")
    assert {"python", "extras", "cpu", "attention", "outputs", "hub", "encoding"} <= set(states)
    assert list(tmp_path.iterdir()) == []
