"""Refuse a composed configuration that would make Hydra run code, or that holds a secret.

Hydra makes launchers, sweepers, callbacks and loggers of whatever class a configuration names. Here only classes of
Hydra or of an installed plugin are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from forgetbench.core.errors import UserError
from forgetbench.core.references import texts
from forgetbench.core.secrets import held_secret

_LOGGING = ("hydra.job_logging", "hydra.hydra_logging")
_CALLBACKS = re.compile(r"hydra\.experimental\.callbacks\.(LogJobReturnCallback|PickleJobInfoCallback)")
_LOGGERS = re.compile(
    r"logging\.((Stream|File|Null)Handler|Formatter|handlers\.(Rotating|TimedRotating)FileHandler)|"
    r"colorlog\.(Colored|TTYColored)?Formatter"
)
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


def check_targets(content: Mapping[str, Any]) -> None:
    """Refuse classes and functions that are not of Hydra or an installed plugin.

    Args:
        content: `resolved` of a composed configuration.

    Raises:
        UserError: names the key.
    """
    for key, value in _code_references(content):
        if not _is_known(key, value):
            raise UserError(
                f"{key}={value}: no class or function that forgetbench runs (docs/safety.md). Launchers and sweepers "
                "are chosen by name: launcher=<name>, hydra/sweeper=<name>."
            )


def check_secrets(content: Any) -> None:
    """Refuse a value that is, or holds, the value of a variable that is called like a secret.

    Raises:
        UserError: names the key and the variable.
    """
    for key, value in texts(content):
        if variable := held_secret(value):
            raise UserError(
                f"{key}: the value of {variable} stands in it, and configurations are written to disk (run.json, "
                "cards, reports). Leave it in the environment, where the libraries that need it find it."
            )


def resolved(config: DictConfig) -> dict[str, Any]:
    """The values of a configuration as commands will see them; Hydra's own as given, and resolved where that can be.

    Raises:
        OmegaConfBaseException: a key of the command cannot be resolved, or a key reads a secret.
    """
    hydra = {"hydra": OmegaConf.to_container(config.hydra)}
    values: dict[str, Any] = {**dict(_command_values(config)), **hydra}
    for key, value in texts(hydra):
        if "${" in value:
            try:
                values[key] = _plain(OmegaConf.select(config, key))
            except OmegaConfBaseException as error:  # such as the folder of a job that is not begun
                if refusal(error):
                    raise
    return values


def refusal(error: BaseException | None) -> UserError | None:
    """The UserError of one of our resolvers, if it caused this error."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _command_values(config: DictConfig) -> Iterator[tuple[str, Any]]:
    for key in config:
        if key != "hydra" and not OmegaConf.is_missing(config, key):
            yield str(key), _plain(config[key])


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _code_references(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Keys that name code, at any depth, with what they name."""
    if isinstance(content, Mapping):
        is_logging = key.startswith(_LOGGING)
        for name, value in content.items():
            inside = f"{key}.{name}".lstrip(".")
            last = str(name).rpartition(".")[2]
            if last in ("_target_", "()") or (is_logging and last == "class"):
                yield inside, str(value)
            yield from _code_references(value, inside)
    elif isinstance(content, list | tuple):
        for place, value in enumerate(content):
            yield from _code_references(value, f"{key}[{place}]")
    elif isinstance(content, str) and content.startswith("ext://") and key.startswith(_LOGGING):
        yield key, content


def _is_known(key: str, value: str) -> bool:
    if key.startswith(_LOGGING):
        return value in _STREAMS or _LOGGERS.fullmatch(value) is not None
    if key.startswith("hydra.callbacks.") and key.count(".") == 3:
        return _CALLBACKS.fullmatch(value) is not None
    kind: Any = {"hydra.launcher._target_": Launcher, "hydra.sweeper._target_": Sweeper}.get(key)
    plugins = Plugins.instance().discover(kind) if kind else ()
    return value in {f"{plugin.__module__}.{plugin.__name__}" for plugin in plugins}
