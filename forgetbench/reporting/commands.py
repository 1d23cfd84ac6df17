"""The shell line that makes a run again, from its configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from forgetbench.core.nested import leaves

_PLAIN = re.compile(r"[A-Za-z_][\w./:@-]*")
_NOT_GIVEN = {"name", "method", "run"}
_WHOLE = ("lr",)
"""Free to hold any keys (a learning rate per part): one value."""


def training_command(name: str, config: Mapping[str, Any]) -> str:
    """`forgetbench finetune` with every key of a run's configuration, so that later defaults do not change it."""
    method = config["method"]["name"]
    words = ["forgetbench", "finetune", f"name={_value(name)}", f"method={method}"]
    words += [f"{key}={_value(value)}" for key, value in leaves(config, whole=_WHOLE) if _is_given(key, config)]
    words += [f"method.{key}={_value(value)}" for key, value in leaves(config["method"], whole=_WHOLE) if key != "name"]
    return " ".join(map(shlex.quote, words))


def import_command(name: str, folder: str, config: Mapping[str, Any]) -> str:
    """`forgetbench import` of the checkpoints that a run was made of."""
    given = ((key, value) for key, value in leaves(config, whole=_WHOLE) if key.partition(".")[0] in {"model", "data"})
    words = ["forgetbench", "import", folder, f"name={_value(name)}", *(f"{key}={_value(one)}" for key, one in given)]
    return " ".join(map(shlex.quote, words))


def _is_given(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a key can be set: not a strategy that there is none of, nor steps that no stage goes by."""
    if key == "strategy":
        return config[key] is not None
    if key == "recipe.steps":
        return not all(stage.get("steps") or stage.get("epochs") for stage in config["data"]["stages"])
    return key.partition(".")[0] not in _NOT_GIVEN


def _value(value: Any) -> str:
    """A value in Hydra's grammar of overrides."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_value(key)}:{_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_value, value)) + "]"
    if isinstance(value, str) and not _is_word(value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)


def _is_word(text: str) -> bool:
    return bool(_PLAIN.fullmatch(text)) and text.lower() not in {"null", "true", "false", "nan", "inf"}
