"""One command at a time in a folder: the second waits, a killed one stands in nobody's way, nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from forgetbench.core.locks import only_command


def test_the_second_command_says_whom_it_waits_for_and_goes_on_after_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, order, stderr = tmp_path / "run", list[str](), ""

    def second() -> None:
        with only_command(folder):
            order.append("second")

    waiting = threading.Thread(target=second)
    with only_command(folder):
        waiting.start()
        while "\n" not in stderr:
            stderr += capsys.readouterr().err
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert stderr.startswith(f"{folder}: process ")
    assert "is at work on it; this one waits for it to end" in stderr
    assert list(tmp_path.iterdir()) == []


def test_another_folder_is_free_and_a_link_is_the_folder_that_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, link = tmp_path / "run", tmp_path / "elsewhere" / "link"
    folder.mkdir()
    link.parent.mkdir()
    link.symlink_to(folder)
    with only_command(link):
        assert {path.name for path in tmp_path.glob(".*")} == {".run.holder", ".run.lock"}
        with only_command(tmp_path / "run2"):
            pass
    assert capsys.readouterr().err == ""


HOLD = """
import sys, time
from pathlib import Path
from forgetbench.core.files import replacing
from forgetbench.core.locks import only_command

folder = Path(sys.argv[1])
with only_command(folder), replacing(folder) as temporary:
    temporary.mkdir()
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_frees_its_lock_and_what_it_left_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".run.notes.tmp").touch()  # nobody's but the user's
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout as stdout:
        assert stdout.readline() == b"held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    left = {path.suffix for path in tmp_path.iterdir()}
    assert left == {".lock", ".holder", ".tmp"}
    with only_command(tmp_path / "run"):
        pass
    assert capsys.readouterr().err == ""
    assert [path.name for path in tmp_path.iterdir()] == [".run.notes.tmp"]


def test_an_error_frees_the_lock(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), only_command(tmp_path / "run"):
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_itself_and_a_place_where_nothing_can_be_made_are_not_waited_for(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with only_command(loop) as is_only:
        assert is_only
    with pytest.raises(OSError, match=r"\.out\.lock"), only_command(Path("/proc/out")):
        pass
