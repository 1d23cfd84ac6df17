"""Two identical commands on one run: the second waits, then sees what the first has made."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest

from forgetbench.commands.export import export
from forgetbench.commands.finetune import finetune, operate
from forgetbench.core.errors import UserError
from forgetbench.core.locks import only_command
from forgetbench.methods.wise_ft import WiseFT
from tests.support.toys import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(world: World) -> Path:
    return world.train("trained", "smolvlm")


def after(folder: Path, command: Callable[[], None], first: Callable[[], None]) -> None:
    """What happens when a command is started while another, the first, is at work on the folder."""
    raised: list[BaseException] = []

    def second() -> None:
        try:
            command()
        except UserError as error:
            raised.append(error)

    waiting = threading.Thread(target=second)
    with only_command(folder), redirect_stderr(StringIO()) as stderr:
        waiting.start()
        while "this one waits" not in stderr.getvalue():
            assert waiting.is_alive(), raised
            time.sleep(0.01)
        first()
    waiting.join()
    if raised:
        raise raised[0]


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_second_finetune_sees_the_finished_run(
    world: World, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = world.outputs / "again"
    after(
        folder,
        lambda: finetune(world.config("again", "smolvlm"), folder),
        lambda: shutil.copytree(trained, folder) and None,
    )
    assert f"{folder}: already trained (2 steps)." in capsys.readouterr().out.replace("\n", "")
    assert list(stamps(folder).values()) == list(stamps(trained).values())


def test_the_lock_that_a_kill_left_goes_from_a_finished_run_unless_another_command_holds_it(
    world: World, trained: Path
) -> None:
    folder = Path(shutil.copytree(trained, world.outputs / "left"))
    left = folder.with_name(".left.lock")
    with only_command(folder):
        finetune(world.config("left", "smolvlm"), folder)
        assert left.exists()
    left.touch()
    finetune(world.config("left", "smolvlm"), folder)
    assert not left.exists()


def test_a_second_operation_makes_no_variant_again(world: World, trained: Path) -> None:
    folder, other = (Path(shutil.copytree(trained, world.outputs / name)) for name in ("operated", "other"))
    operation = WiseFT(alphas=[0.5])
    operate(operation, other, 1)
    made = stamps(other / "checkpoints")
    after(
        folder,
        lambda: operate(operation, folder, 1),
        lambda: shutil.copytree(other, folder, dirs_exist_ok=True) and None,
    )
    assert sorted(stamps(folder / "checkpoints").values()) == sorted(made.values())
    assert any("@wise_ft" in name for name in made)


def test_a_second_export_is_refused_once_the_first_is_there(world: World, trained: Path) -> None:
    to = world.folder / "exported"
    with pytest.raises(UserError, match="exported exists already"):
        after(to, lambda: export(trained, to, False), to.mkdir)
    assert list(to.iterdir()) == []
