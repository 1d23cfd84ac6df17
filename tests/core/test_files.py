"""Files are replaced whole; what a killed process left is told from what another is making, and removed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from forgetbench.core.errors import UserError
from forgetbench.core.files import naming, remove_leftovers, replacing, write_text

KILLED = """
import os, signal, sys
from pathlib import Path
from forgetbench.core.files import replacing

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

path, moment = Path(sys.argv[1]), sys.argv[2]
with replacing(path) as temporary:
    if moment != "file":
        temporary.mkdir()
        temporary = temporary / "part"
    temporary.write_text("new")
    if moment == "aside":
        Path.replace = die
    elif moment == "both":
        import shutil
        shutil.rmtree = die
    else:
        die()
"""


def killed(path: Path, moment: str) -> None:
    """Let a process be killed while it replaces a path."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), moment], check=False)
    assert done.returncode == -9


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("moment", ["file", "folder"])
def test_what_a_killed_process_was_making_goes_with_the_next_write_beside_it(tmp_path: Path, moment: str) -> None:
    killed(tmp_path / "a", moment)
    assert len(names(tmp_path)) == 1
    write_text(tmp_path / "b", "other")
    assert names(tmp_path) == ["b"]


def test_a_folder_that_a_killed_process_had_stepped_aside_is_put_back(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/part").write_text("old")
    killed(tmp_path / "a", "aside")
    assert "a" not in names(tmp_path)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a/part").read_text() == "old"


def test_a_folder_that_a_killed_process_had_replaced_stays_and_the_old_one_goes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    killed(tmp_path / "a", "both")
    assert len(names(tmp_path)) == 2
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a/part").read_text() == "new"


def test_what_a_running_process_is_making_stays(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
        remove_leftovers(tmp_path)
        assert names(tmp_path) == [temporary.name]
    of_another = temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", "-1-"))
    of_another.touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(["a", of_another.name])


def test_what_another_machine_left_goes_an_hour_after_its_last_change(tmp_path: Path) -> None:
    half = tmp_path / ".a.00000000-1-1234abcd.tmp"
    half.mkdir()
    (half / "part").touch()
    os.utime(half, (0, 0))
    remove_leftovers(tmp_path)
    assert half.exists()
    os.utime(half / "part", (0, 0))
    os.utime(half, (0, 0))
    remove_leftovers(tmp_path)
    assert not half.exists()


def test_a_user_s_own_hidden_files_are_no_leftovers(tmp_path: Path) -> None:
    hidden = [".notes.old", ".a.txt.tmp", ".a.1234abcd.tmp", "a.00000000-1-1234abcd.tmp"]
    for name in hidden:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    remove_leftovers(tmp_path, tmp_path / "absent")
    assert names(tmp_path) == sorted(hidden)


def test_an_interrupt_between_two_folders_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "a").mkdir()
    (tmp_path / "a/part").write_text("old")
    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a") as temporary:
        temporary.mkdir()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a/part").read_text() == "old"


def full(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_in_words(path: Path) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def full_at_its_temporary_name(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path / "part"))


@pytest.mark.parametrize("refuse", [full, full_in_words, full_at_its_temporary_name])
def test_a_full_disk_is_an_error_of_the_system_that_names_the_file(
    tmp_path: Path, refuse: Callable[[Path], None]
) -> None:
    with pytest.raises(OSError, match="No space left") as refused, replacing(tmp_path / "a") as temporary:
        refuse(temporary)
    assert (refused.value.errno, refused.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "picture.png"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        UserError("model.safetensors cannot be read (os error 5)"),
        ValueError("no number"),
    ],
    ids=["another file", "not a refusal", "a message", "no system's"],
)
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as passed, naming(Path("a")):
        raise error
    assert passed.value is error
