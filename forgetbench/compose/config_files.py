"""Read configuration files so that none can do more than choose values: a file may be somebody else's.

The command line may say whatever Hydra knows. Launchers are programs for a cluster, and so trusted like one; what is
made of them is checked with the rest (`compose.targets`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from forgetbench.core.errors import UserError
from forgetbench.core.options import GROUPS
from forgetbench.core.paths import shipped
from forgetbench.core.references import check_references
from forgetbench.core.yaml_files import read_yaml

_LAUNCHERS = ("launcher", "hydra/launcher")
_OF_GROUPS = {"schema", *(group for groups in GROUPS.values() for group in groups)} - {"launcher"}
"""Groups that a file's defaults may name."""
_OF_SWEEPERS = {"hydra/sweeper", "hydra/sweeper/sampler"}
_SWEEPER = {
    *("params", "search_space", "sampler", "direction", "n_trials", "n_jobs", "max_failure_rate", "study_name"),
    "max_batch_size",
}
"""Keys of hydra.sweeper that a sweep's file may give; others name code or files."""
_ENTRY = re.compile(r"(?:(?:override|optional) )*(/?)(\w+(?:/[\w.+-]+)*)(?:@([\w.]+))?", re.ASCII)
_OPTION = re.compile(r"[^/\\:~$]+")
_INSIDE = ("outputs", "run", "name")
"""Keys that name output folders: in a file, below the working folder only."""
_CODE = ("_target_", "_partial_", "_args_", "()", "trust_remote_code")
"""Keys that name code, or allow it to be run."""


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's reader of files, which refuses what a file may not say; Hydra registers it by its class name."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Read and check one file.

        Raises:
            UserError: names the file and the key.
        """
        path, folder = Path(self.path) / self._normalize_file_name(config_path), os.path.realpath(self.path)
        if not Path(os.path.realpath(path)).is_relative_to(folder):
            raise UserError(f"{path}: outside of {self.path}, where configurations are; copy it there.")
        content = read_yaml(path)
        if content is not None and not (isinstance(content, dict) and all(isinstance(key, str) for key in content)):
            raise UserError(f"{path}: a mapping of keys to values is expected, such as `lr: 1e-4`.")
        config_result = super().load_config(config_path)
        is_root = "/" not in config_path and folder == os.path.realpath(shipped("conf"))
        if not is_root and not config_path.startswith(tuple(f"{group}/" for group in _LAUNCHERS)):
            shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
            for problem in _problems(config_result, config_path.partition("/")[0], shown):
                raise UserError(f"{path}: {problem} (docs/safety.md).")
        return config_result


@contextmanager
def files_checked() -> Iterator[None]:
    """Have Hydra read files with `FileConfigSource`; restore the reader of the calling program afterwards."""
    Plugins.instance()  # registers Hydra's own
    readers, scheme = SourcesRegistry.instance().types, FileConfigSource.scheme()
    replaced_reader = readers[scheme]
    readers[scheme] = FileConfigSource
    try:
        yield
    finally:
        readers[scheme] = replaced_reader


def _problems(config_result: ConfigResult, group: str, path: Path) -> Iterator[str]:
    content = OmegaConf.to_container(config_result.config)
    check_references(content, path)
    if not isinstance(content, dict):
        return
    package = (config_result.header.get("package") or "").removeprefix("_global_.")
    if package.partition(".")[0] == "hydra" or group == "hydra":
        yield f"a file of the package `{package or 'hydra'}`; give keys of hydra on the command line"
    for entry in content.get("defaults") or ():
        if not _is_choice(entry, group):
            yield f"`defaults: {entry}`: a file may choose among {', '.join(sorted(_OF_GROUPS - {'schema'}))}"
    for key, value in content.items():
        if str(key).partition(".")[0] == "hydra":
            yield from _hydra_problems(value, group)
        if key in _INSIDE and not _is_inside(value):
            yield f"`{key}: {value}`: a file may name folders below the working folder; give others on the command line"
    for key, value in _nested(content):
        if key.rpartition(".")[2] in _CODE and value not in (None, False):
            yield f"`{key}: {value}` would run code; a file may not ask for it"


def _is_choice(entry: Any, group: str) -> bool:
    """Whether an entry of a defaults list takes an option of a group of ours, or another file of the same folder."""
    if isinstance(entry, str):
        name, options = entry, []
    elif isinstance(entry, Mapping) and len(entry) == 1:
        name, chosen = next(iter(entry.items()))
        options = chosen if isinstance(chosen, list) else [chosen]
    else:
        return False
    match = _ENTRY.fullmatch(str(name))
    if match is None or any(part.strip(".") == "" for part in match[2].split("/")):
        return False
    if (match[3] or "").removeprefix("_global_.").partition(".")[0] == "hydra":
        return False
    is_known = not match[1] or match[2].partition("/")[0] in _OF_GROUPS
    is_known = is_known or (group == "sweep" and match[2] in _OF_SWEEPERS)
    return is_known and all(option is None or (isinstance(option, str) and _is_name(option)) for option in options)


def _is_name(option: str) -> bool:
    return _OPTION.fullmatch(option) is not None and option.strip(".") != ""


def _is_inside(value: Any) -> bool:
    path = Path(str(value))
    return value is None or not (path.is_absolute() or ".." in path.parts or str(value).startswith("~"))


def _hydra_problems(content: Any, group: str) -> Iterator[str]:
    """Problems of a file's `hydra:`, which may hold a sweep's parameters only."""
    sweeper = content.get("sweeper") if isinstance(content, dict) and group == "sweep" else None
    if not isinstance(sweeper, dict) or set(content) != {"sweeper"}:
        given = ", ".join(f"hydra.{key}" for key in content) if isinstance(content, dict) else "hydra"
        yield f"`{given}`: of Hydra's own keys a sweep's file may give hydra.sweeper, and other files none"
        return
    if unknown := sorted(str(key) for key in set(sweeper) - _SWEEPER):
        yield f"`hydra.sweeper.{unknown[0]}`: a file may give {', '.join(sorted(_SWEEPER))}"
    for name in ("params", "search_space"):
        swept = sweeper.get(name)
        for key, value in swept.items() if isinstance(swept, dict) else ():
            if str(key).lstrip("+~").startswith("hydra") or "$" in f"{key}{value}":
                yield f"`hydra.sweeper.{name}.{key}: {value}`: a file may sweep over values of the run's own keys"


def _nested(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values at any depth, those of mappings included."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            inside = f"{key}.{name}".lstrip(".")
            yield inside, value
            yield from _nested(value, inside)
    elif isinstance(content, list):
        for place, value in enumerate(content):
            yield from _nested(value, f"{key}[{place}]")
