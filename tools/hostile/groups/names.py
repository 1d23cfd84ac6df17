"""Names of runs, folders and files, and other values on the command line."""

from __future__ import annotations

from collections.abc import Iterator

from tools.hostile.case import Case, Ends, Place


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, value in _NAMES.items():
        yield Case(f"name is {what}", ("finetune", f"name={value}", *_SHORT), _nothing)
    yield Case("name of 200 letters", ("finetune", f"name={'n' * 200}", *_SHORT), _nothing, Ends.works)
    for what, value in _OUTPUTS.items():
        yield Case(f"outputs is {what}", ("finetune", "name=x", f"outputs={value}", *_SHORT), _outputs)


_SHORT = ("recipe.steps=1", "recipe.batch_size=2", "threads=1")
_NAMES = {
    "256 letters": "n" * 256,
    "5000 letters": "n" * 5000,
    "above": "../x",
    "absolute": "/elsewhere/x",
    "a dot": ".",
    "two dots": "..",
    "hidden": ".x",
    "empty": "''",
    "an escape sequence": "'\x1b[31mred'",
    "a line break": "'a\nb'",
}
_OUTPUTS = {"a file": "file", "a loop": "loop", "in proc": "/proc/forgetbench", "a device": "/dev/null", "empty": "''"}


def _nothing(_: Place) -> None:
    """No file is needed."""


def _outputs(place: Place) -> None:
    place.write("file", "text")
    (place.folder / "loop").symlink_to("loop")
