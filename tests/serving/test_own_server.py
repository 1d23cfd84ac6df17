"""A vLLM of forgetbench's own: started, started again, ended with it, whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from forgetbench.config import Engine, EngineConfig
from forgetbench.core.errors import UserError
from forgetbench.serving import keeper
from tests.support.server import FakeVllm
from tests.support.server_knobs import SOUND, Knobs
from tests.support.serving import Answers, Scorer, assert_equal, of


def vllm(folder: Path, knobs: Knobs = SOUND) -> FakeVllm:
    return FakeVllm(folder / "fake", knobs)


def engine(fake: FakeVllm, **more: object) -> EngineConfig:
    return EngineConfig(name=Engine.vllm, python=str(fake.python), start_minutes=1.0, **more)


@pytest.fixture
def letters(own: Answers) -> Answers:
    return of(own, ["letters"])


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def servers_of(fake: FakeVllm) -> list[int]:
    """Processes with the fake interpreter's folder in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(fake.python.parent.parent).encode() in path.read_bytes() and is_running(int(path.parent.name)):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_for(is_there: object, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if is_there():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_it_dies_in_the_middle_and_no_finished_batch_is_asked_twice(
    scorer: Scorer, letters: Answers, tmp_path: Path
) -> None:
    fake = vllm(tmp_path, Knobs(die_after=8, deaths=1))
    found = scorer.score(engine(fake, in_flight=2, args={"max_model_len": 256}), ["letters"], batch_size=1)
    assert_equal(found, letters)
    assert len(fake.starts) == 2
    assert fake.starts[0] == fake.starts[1]
    assert fake.starts[0][fake.starts[0].index("--max-model-len") + 1] == "256"
    assert servers_of(fake) == []
    assert not list(scorer.outputs.glob("*served*"))
    log = (scorer.outputs / "tables/engine.log").read_text()
    assert log.count("$ ") == log.count("Serving base at ") == 2
    findings = list(scorer.outputs.glob(".engines/*.json"))
    assert len(findings) == 1
    # The second command has everything; the third has the findings, and compares nothing.
    again = scorer.into(scorer.outputs)
    assert_equal(again.score(engine(fake, args={"max_model_len": 256}), ["letters"], batch_size=1), letters)
    assert (again.loads, len(fake.starts)) == (0, 2)


def test_findings_are_reused_for_the_same_settings_and_found_out_again_when_damaged(
    scorer: Scorer, tmp_path: Path
) -> None:
    def table() -> list[str]:
        return pd.read_csv(scorer.outputs / "tables/engine.csv")["dataset"].tolist()

    sound, off = vllm(tmp_path / "a"), vllm(tmp_path / "b", Knobs(offset=-1.0))
    scorer.score(engine(sound), ["texts"])
    scorer.score(engine(off, check_items=2), ["texts"], decodings=["greedy"], max_new_tokens=2)  # nobody asks again
    (finding,) = scorer.outputs.glob(".engines/*.json")
    before = finding.read_text()
    finding.write_text(before[: len(before) // 2])
    with pytest.raises(UserError, match="gives log-probabilities up to 1"):
        scorer.score(engine(off), ["texts"], decodings=["greedy"], max_new_tokens=1)
    finding.write_text(before)
    with pytest.raises(UserError, match="gives log-probabilities up to 1"):  # of other settings nothing is known
        scorer.score(engine(off, args={"quantization": "fp8"}), ["texts"], decodings=["greedy"], max_new_tokens=1)
    assert table() == ["texts"]


def test_one_that_dies_again_and_again_is_told_with_its_cause(scorer: Scorer, tmp_path: Path) -> None:
    fake = vllm(tmp_path, Knobs(die_after=2))
    with pytest.raises(UserError, match=r"letters: vLLM has died 4 times at one checkpoint; .*engine.log ends with:"):
        scorer.score(engine(fake, in_flight=2, tries=9), ["letters"])
    assert servers_of(fake) == []


def test_one_that_does_not_start_is_told_with_its_cause(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    fake = vllm(tmp_path, Knobs(start_error="ValueError: no such model, by hf_verysecret"))
    with pytest.raises(UserError, match=r"vLLM ended before it was ready; .*engine.log ends with:") as refused:
        scorer.score(engine(fake), ["letters"])
    assert "ValueError: no such model, by <HF_TOKEN>" in str(refused.value)


def test_an_interpreter_without_vllm_is_refused(scorer: Scorer) -> None:
    asked = EngineConfig(name=Engine.vllm, python=sys.executable)
    with pytest.raises(UserError, match="there is no vLLM in its environment"):
        scorer.score(asked, ["letters"])


COMMAND = [
    *("eval-matrix", "name=killed", "model=tiny", "threads=1", "matrix.datasets=[fashion_naming]", "matrix.limit=20"),
    *("matrix.batch_size=1", "matrix.representation.enabled=false", "engine=vllm", "engine.in_flight=2"),
]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[FakeVllm, subprocess.Popen[str], Path]]:
    """A command whose slow server has begun to answer."""
    fake = vllm(tmp_path, Knobs(delay_s=0.5))
    command = [sys.executable, "-m", "forgetbench", *COMMAND, f"engine.python={fake.python}"]
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    try:
        assert wait_for(lambda: list(tmp_path.glob("outputs/killed/engine.log")) and servers_of(fake))
        assert wait_for(lambda: b"Serving" in (tmp_path / "outputs/killed/engine.log").read_bytes())
        time.sleep(0.3)
        yield fake, process, tmp_path
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_the_server(started: tuple[FakeVllm, subprocess.Popen[str], Path]) -> None:
    fake, process, folder = started
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert servers_of(fake) == []
    assert not list(folder.glob("outputs/.*served*"))


def test_a_kill_ends_the_server_and_the_next_command_clears_up(
    started: tuple[FakeVllm, subprocess.Popen[str], Path],
) -> None:
    fake, process, folder = started
    (left,) = folder.glob("outputs/.*served*")
    process.kill()
    process.wait()
    assert wait_for(lambda: not servers_of(fake))
    variables = [re.findall(rb"VLLM_API_KEY=(\w+)", path.read_bytes()) for path in folder.rglob("*") if path.is_file()]
    assert not any(variables)
    again = [sys.executable, "-m", "forgetbench", *COMMAND[:5], "matrix.limit=1", "engine=transformers"]
    subprocess.run(again, cwd=folder, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": sys.path[0]})
    assert not left.exists()


def test_what_ignores_being_asked_is_killed_with_all_that_it_started() -> None:
    program = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']); "
        "print(one.pid, flush=True); time.sleep(99)"
    )
    command = [sys.executable, keeper.__file__, "0.3", sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as kept:
        assert kept.stdin
        assert kept.stdout
        grandchild = int(kept.stdout.readline())
        assert is_running(grandchild)
        kept.stdin.close()
        assert kept.wait(30) == 128 + signal.SIGKILL
    assert wait_for(lambda: not is_running(grandchild), 10)


def test_a_program_that_is_not_there_is_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, keeper.__file__, "1", "/no/such/program"],
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "OSError: /no/such/program cannot be started (No such file or directory)\n",
    )
