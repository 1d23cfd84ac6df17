"""Files of a model before they are read: whole, or refused by name with what is wrong and what to do."""

from __future__ import annotations

import json
from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.core.paths import leads_out

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_POINTER = b"version https://git-lfs.github.com/spec/"
"""What Git LFS writes in place of a file that it has not fetched."""
_SETTINGS = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json"),
)
"""Files beside the weights that loading reads."""


def check_content(path: Path) -> None:
    """Refuse a file that has no content of its own.

    Raises:
        UserError: it is empty, a Git LFS pointer, or a link to a place outside of its folder and of the Hub's cache.
    """
    if leads_out(path.parent, path):
        raise UserError(f"{path} is a link that leads out of its folder; copy the file, or name the folder it is in.")
    with path.open("rb") as file:
        start = file.read(len(_POINTER))
    if start == _POINTER:
        raise UserError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder, or download it again."
        )
    if not start:
        raise UserError(f"{path} is empty; copy or download it again.")


def check_safetensors(path: Path) -> None:
    """Refuse a file of tensors that is not whole; none of its values is read.

    Raises:
        UserError: it is empty, a Git LFS pointer, cut short or no safetensors at all.
    """
    from safetensors import SafetensorError, safe_open

    check_content(path)
    try:
        with safe_open(path, "pt"):
            pass
    except SafetensorError as error:
        raise UserError(
            f"{path} cannot be read as safetensors ({error}): it was cut short or damaged; copy or download it again."
        ) from error


def check_settings(folder: Path) -> None:
    """Refuse a folder whose configuration, tokenizer or template is a Git LFS pointer or empty.

    Raises:
        UserError: names the file.
    """
    for path in (folder / name for name in _SETTINGS):
        if path.is_file():
            check_content(path)


def check_weights(folder: Path, may_lack: bool = False) -> None:
    """Refuse a folder whose weights are not whole.

    Args:
        folder: a model's; one without safetensors is left to what loads it.
        may_lack: files that an index names need not be there yet (the Hub's cache).

    Raises:
        UserError: names the first file that is not there or not whole.
    """
    if (folder / SINGLE).is_file():
        check_safetensors(folder / SINGLE)
        return
    for name in indexed(folder):
        path = folder / name
        if path.is_file():
            check_safetensors(path)
        elif not may_lack:
            raise UserError(f"{folder / INDEX} names {name}, which is not in {folder}; copy the whole folder.")


def indexed(folder: Path) -> list[str]:
    """Names of the files that a folder's index spreads the weights over; none without an index.

    Raises:
        UserError: the index cannot be read, or names files elsewhere.
    """
    path = folder / INDEX
    if not path.is_file():
        return []
    check_content(path)
    try:
        content = json.loads(path.read_text("utf-8"))
        names = sorted(set(content["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as an index ({error}); copy or download it again.") from error
    if wrong := [name for name in names if not isinstance(name, str) or Path(name).name != name or "\\" in name]:
        raise UserError(f"{path} names {wrong[0]}, which is not in {folder}; copy the whole folder.")
    return names
