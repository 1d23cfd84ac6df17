"""Config groups and their options, read from file names alone, so that `--help` needs neither Hydra nor torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from forgetbench.core.paths import shipped

GROUPS = {
    "finetune": ("model", "data", "recipe", "method", "strategy"),
    "eval_matrix": ("model", "data", "matrix", "engine"),
    "score": ("data", "matrix"),
    "sweep": ("sweep", "model", "data", "recipe", "method", "strategy", "matrix", "engine", "launcher"),
}
"""The config groups of each command."""

MOST_NAMED = 10
"""Names that a message lists at most."""

USER_CONF = Path("conf")
"""Your own configs, in the working folder: conf/recipe/<name>.yaml and so on."""
USER_MANIFESTS = ("data_manifests",)
"""Your own manifests, in the working folder, unless `manifests=[...]` says otherwise."""


def config_files(group: str) -> dict[str, Path]:
    """Option -> YAML file of one config group; a shipped file goes before a user's."""
    folders = (USER_CONF / group, shipped("conf") / group)
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def manifest_files(folders: Iterable[str | Path] = USER_MANIFESTS) -> dict[str, Path]:
    """Name -> manifest, shipped or in `folders`; a user's goes before a shipped one."""
    all_folders = (shipped("data_manifests"), *map(Path, folders))
    return {path.stem: path for folder in all_folders for path in sorted(folder.glob("*.yaml"))}


def manifest_names(folders: Iterable[str] = USER_MANIFESTS) -> list[str]:
    """Names of the shipped manifests and of those in `folders`."""
    return sorted(manifest_files(folders))


def options(group: str, manifests: Iterable[str] = USER_MANIFESTS) -> list[str]:
    """What `group=` may be; every manifest is an option of `data`."""
    names = set(config_files(group))
    return sorted(names.union(manifest_names(manifests)) if group == "data" else names)


def nearest(given: str, known: Sequence[str], fallback: Sequence[str], lists_all: str = "") -> str:
    """A sentence naming what was probably meant, or else what there is.

    Args:
        given: what was typed.
        known: the valid names.
        fallback: the names to list where none is similar; of many, the ten most similar.
        lists_all: the command that shows the others, for the sentence.
    """
    last = given.rpartition(".")[2]
    close = difflib.get_close_matches(given, known, n=2, cutoff=0.75)
    # A key is often given without its group: `lr` for `recipe.lr`.
    close = close or [key for key in known if key.rpartition(".")[2] == last][:3]
    if close:
        return f"Did you mean {' or '.join(close)}?"
    if len(fallback) <= MOST_NAMED:
        return f"Known: {', '.join(fallback)}." if fallback else ""
    alike = sorted(fallback, key=lambda name: -difflib.SequenceMatcher(None, given, name).ratio())[:MOST_NAMED]
    listed = f" ({lists_all} lists them)" if lists_all else ""
    return f"Known: {', '.join(alike)}, and {len(fallback) - len(alike)} more{listed}."
