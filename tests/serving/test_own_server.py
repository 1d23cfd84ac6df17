"""A vLLM of forgetbench's own: started, started again, ended with it, whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from forgetbench.config import Engine, EngineConfig
from forgetbench.core.errors import UserError
from forgetbench.serving import supervisor
from tests.support.server import ROOT, FakeVllm
from tests.support.server_knobs import SOUND, Knobs
from tests.support.serving import Answers, Scorer, assert_equal, of


def vllm(folder: Path, knobs: Knobs = SOUND) -> FakeVllm:
    return FakeVllm(folder / "fake", knobs)


def engine(fake: FakeVllm, **more: object) -> EngineConfig:
    return EngineConfig(name=Engine.vllm, python=str(fake.python), start_minutes=1.0, **more)


@pytest.fixture
def letters(transformers_answers: Answers) -> Answers:
    return of(transformers_answers, ["letters"])


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def servers_of(fake: FakeVllm) -> list[int]:
    """Processes with the fake interpreter's folder in their environment."""
    processes = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(fake.python.parent.parent).encode() in path.read_bytes() and is_running(int(path.parent.name)):
                processes.append(int(path.parent.name))
        except OSError:
            continue
    return processes


def wait_for(is_there: Callable[[], object], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if is_there():
            return True
        time.sleep(0.05)
    return False


def test_it_dies_in_the_middle_and_no_finished_batch_is_asked_twice(
    scorer: Scorer, letters: Answers, tmp_path: Path
) -> None:
    fake = vllm(tmp_path, Knobs(die_after=8, deaths=1))
    answers = scorer.score(engine(fake, in_flight=2, args={"max_model_len": 256}), ["letters"], batch_size=1)
    assert_equal(answers, letters)
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


LIGHT = """
import http.server, os, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        ACTION

port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
DIES = 'print("RuntimeError: the GPU is gone", flush=True); os._exit(9)'
HANGS = 'print("asked", flush=True); time.sleep(99)'


def light(folder: Path, action: str) -> FakeVllm:
    """One without a model, which starts at once and does the same at every request."""
    fake = vllm(folder)
    (fake.python.parents[1] / "site/vllm/entrypoints/openai/api_server.py").write_text(LIGHT.replace("ACTION", action))
    return fake


def test_one_that_dies_again_and_again_is_told_with_its_cause(scorer: Scorer, tmp_path: Path) -> None:
    fake = light(tmp_path, DIES)
    message = (
        r"vLLM has died 4 times at one checkpoint; .*engine.log ends with:\n(.*\n)*  RuntimeError: the GPU is gone"
    )
    with pytest.raises(UserError, match=message):
        scorer.score(engine(fake, tries=9), ["letters"])
    assert (scorer.outputs / "tables/engine.log").read_text().count("$ ") == 4
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


def test_ctrl_c_ends_the_server_and_clears_up(scorer: Scorer, tmp_path: Path, ctrl_c: None) -> None:
    fake, main, log = light(tmp_path, HANGS), threading.get_ident(), scorer.outputs / "tables/engine.log"

    def interrupt() -> None:
        wait_for(lambda: log.exists() and "asked" in log.read_text())
        assert servers_of(fake)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        scorer.score(engine(fake), ["letters"])
    assert servers_of(fake) == []
    assert not list(scorer.outputs.glob(".*served*"))


def test_a_kill_ends_the_server_and_the_next_command_clears_up(scorer: Scorer, tmp_path: Path) -> None:
    fake = light(tmp_path, HANGS)
    command = ["eval-matrix", "name=killed", "model=tiny", "threads=1", "matrix.datasets=[fashion_naming]"]
    command += ["matrix.limit=1", "engine=vllm", f"engine.python={fake.python}"]
    variables, log = os.environ | {"PYTHONPATH": str(ROOT)}, tmp_path / "outputs/killed/engine.log"
    process = subprocess.Popen([sys.executable, "-m", "forgetbench", *command], cwd=tmp_path, env=variables)
    try:
        assert wait_for(lambda: log.exists() and "asked" in log.read_text())
        (pid, *_) = servers_of(fake)
        key = re.findall(rb"VLLM_API_KEY=(\w+)", Path(f"/proc/{pid}/environ").read_bytes())[0]
    finally:
        process.kill()
        process.wait()
    assert wait_for(lambda: not servers_of(fake))
    assert len(key) == 32
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and key in path.read_bytes()]
    (left,) = (tmp_path / "outputs").glob(".*served*")
    (fake.python.parents[1] / "site/vllm/entrypoints/openai/api_server.py").write_text("raise ValueError('no GPU')")
    with pytest.raises(UserError, match="ValueError: no GPU"):
        scorer.into(tmp_path / "outputs").score(engine(fake), ["letters"])
    assert not left.exists()


def test_what_ignores_being_asked_is_killed_with_all_that_it_started() -> None:
    program = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']); "
        "print(one.pid, flush=True); time.sleep(99)"
    )
    command = [sys.executable, supervisor.__file__, "0.3", sys.executable, "-c", program]
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
        [sys.executable, supervisor.__file__, "1", "/no/such/program"],
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "OSError: /no/such/program cannot be started (No such file or directory)\n",
    )
