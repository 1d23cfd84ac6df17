"""Check a model's files before they are read; errors name the file, the problem and the remedy."""

from __future__ import annotations

import os
from pathlib import Path

from forgetbench.core.errors import UserError, reading
from forgetbench.core.json_files import AGAIN, check_file, read_json
from forgetbench.core.paths import leads_out

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
_POINTER = b"version https://git-lfs.github.com/spec/"
"""First bytes of a Git LFS pointer, which stands for a file that was not fetched."""
_OBJECTS = (
    *(CONFIG, "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "chat_template.json", "video_preprocessor_config.json"),
)
"""JSON files of a model that loading reads; it would silently skip some of them if they are damaged."""
_OTHERS = (TOKENIZER, "added_tokens.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")
_TEMPLATE = "chat_template.jinja"


def check_content(path: Path) -> None:
    """Refuse a file without usable content.

    Raises:
        UserError: it is not a regular file, is empty, is a Git LFS pointer, or links to a place outside of its folder
            and of the Hub's cache.
    """
    if leads_out(path.parent, path):
        raise UserError(f"{path} is a link that leads out of its folder; copy the file, or name the folder it is in.")
    check_file(path)
    with reading(path, AGAIN), path.open("rb") as file:
        start = file.read(len(_POINTER))
    if start == _POINTER:
        raise UserError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder, or download it again."
        )
    if not start:
        raise UserError(f"{path} is empty; {AGAIN}.")


def check_safetensors(path: Path) -> None:
    """Refuse an incomplete safetensors file; tensor values are not read.

    Raises:
        UserError: it is empty, a Git LFS pointer, truncated, or not in the format safetensors.
    """
    from safetensors import SafetensorError, safe_open

    check_content(path)
    try:
        with safe_open(path, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as safetensors ({error}): it was cut short or damaged; {AGAIN}."
        ) from error


def check_settings(folder: Path) -> None:
    """Refuse a folder with invalid configuration, tokenizer or template files.

    Raises:
        UserError: names the file that is not a regular file, is empty, is a Git LFS pointer or holds no JSON object.
    """
    present = [folder / name for name in (*_OBJECTS, *_OTHERS, _TEMPLATE) if os.path.lexists(folder / name)]
    for path in present:
        check_content(path)
        if path.name in _OBJECTS:
            read_json(path)


def check_weights(folder: Path, may_lack: bool = False) -> None:
    """Refuse a folder with incomplete weights.

    Args:
        folder: a model's folder; without safetensors, nothing is checked.
        may_lack: whether files named in the index may be missing (the Hub's cache).

    Raises:
        UserError: names the first missing or incomplete file.
    """
    if os.path.lexists(folder / SINGLE):
        check_safetensors(folder / SINGLE)
        return
    for name in indexed(folder):
        path = folder / name
        if os.path.lexists(path):
            check_safetensors(path)
        elif not may_lack:
            raise UserError(f"{folder / INDEX} names {name}, which is not in {folder}; copy the whole folder.")


def indexed(folder: Path) -> list[str]:
    """Names of the weight files in a folder's index; empty without an index.

    Raises:
        UserError: the index cannot be read, or names files outside of the folder.
    """
    path = folder / INDEX
    if not os.path.lexists(path):
        return []
    check_content(path)
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{path} has no weight_map, so where the weights are is not known; {AGAIN}.")
    if elsewhere := [name for name in names.values() if not _is_beside(name)]:
        raise UserError(f"{path} names {elsewhere[0]!r}, which is not in {folder}; copy the whole folder.")
    return sorted(set(names.values()))


def _is_beside(name: object) -> bool:
    """Whether the name is that of a safetensors file in the same folder."""
    is_name = isinstance(name, str) and Path(name).name == name and name.isprintable() and "\\" not in name
    return is_name and str(name).endswith(".safetensors") and len(str(name)) < 256
