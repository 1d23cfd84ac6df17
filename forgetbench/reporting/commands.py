"""The shell command that repeats a run, from its configuration."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from forgetbench.core.nested import leaves
from forgetbench.core.override_text import as_text

_NOT_GIVEN = {"name", "method", "run"}
_WHOLE = ("lr",)
"""Keys whose mapping (a learning rate per part) is written as a single value."""


def training_command(name: str, config: Mapping[str, Any]) -> str:
    """`forgetbench finetune` with every key of a run's configuration, so that later defaults do not change it."""
    method = config["method"]["name"]
    words = ["forgetbench", "finetune", f"name={as_text(name)}", f"method={method}"]
    words += [f"{key}={as_text(value)}" for key, value in leaves(config, whole=_WHOLE) if _is_given(key, config)]
    words += [
        f"method.{key}={as_text(value)}" for key, value in leaves(config["method"], whole=_WHOLE) if key != "name"
    ]
    return " ".join(map(shlex.quote, words))


def import_command(name: str, folder: str, config: Mapping[str, Any]) -> str:
    """`forgetbench import` of the checkpoints that a run was made of."""
    given = ((key, value) for key, value in leaves(config, whole=_WHOLE) if key.partition(".")[0] in {"model", "data"})
    words = [
        "forgetbench",
        "import",
        folder,
        f"name={as_text(name)}",
        *(f"{key}={as_text(value)}" for key, value in given),
    ]
    return " ".join(map(shlex.quote, words))


def _is_given(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a key can be set: not a strategy that there is none of, nor steps that no stage goes by."""
    if key == "strategy":
        return config[key] is not None
    if key == "recipe.steps":
        return not all(stage.get("steps") or stage.get("epochs") for stage in config["data"]["stages"])
    return key.partition(".")[0] not in _NOT_GIVEN
