"""Turn what Hydra and OmegaConf refuse into one message that names the key, the file and the fix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from forgetbench import config as configs
from forgetbench.compose.launchers import missing_plugin
from forgetbench.compose.overrides import as_argument
from forgetbench.core.errors import UserError
from forgetbench.core.options import GROUPS, USER_CONF, config_files, nearest, options
from forgetbench.core.paths import shipped
from forgetbench.core.yaml_files import read_yaml
from forgetbench.methods.base import Method
from forgetbench.methods.operation import Operation
from forgetbench.methods.registry import SCHEMAS

PLUGINS = "Launchers and sweepers come as extras: pip install 'forgetbench[joblib]', [slurm], [ray] or [optuna]."


def check_choice(command: str, group: str, given: str, manifests: Sequence[str]) -> None:
    """Refuse an option that a config group does not have."""
    known = options(group, manifests)
    if given not in known:
        where = f"conf/{group}/{given}.yaml" + (f" or data_manifests/{given}.yaml" if group == "data" else "")
        raise UserError(
            f"{group}={given}: '{group}' has no option '{given}'. {nearest(given, known, known)}\n"
            f"An option of your own is a file {where}; `forgetbench {command.replace('_', '-')} --help` lists all."
        )


def bare_word(command: str, word: str, manifests: Sequence[str]) -> UserError:
    """The refusal of an argument without `=`."""
    owners = [group for group in GROUPS[command] if word in options(group, manifests)]
    meant = f"Did you mean {' or '.join(f'{group}={word}' for group in owners)}?" if owners else "Write key=value."
    return UserError(f"'{word}' is not an override. {meant}")


def keys(config: Any, above: str = "") -> list[str]:
    """Every key of a composed config that holds a value, dotted."""
    found = []
    for key in config:
        child = config._get_node(key)
        if isinstance(child, DictConfig) and not child._is_missing() and not child._is_none():
            found.extend(keys(child, f"{above}{key}."))
        else:
            found.append(f"{above}{key}")
    return found


def knows(config: Any, key: str) -> bool:
    """Whether the schemas of a composed config declare `key`; what a plain mapping holds is free."""
    for part in key.split("."):
        if not isinstance(config, DictConfig):
            return False
        declared = OmegaConf.get_type(config)
        if declared in (dict, None):
            return True
        if part not in getattr(declared, "__dataclass_fields__", {}):
            return False
        config = config._get_node(part)
    return True


def unknown_key(key: str, config: DictConfig) -> UserError:
    """The refusal of a key that no schema declares."""
    known = [name for name in keys(config) if not name.startswith("hydra.") and knows(config, name)]
    group = key.partition(".")[0]
    close = nearest(key, known, [name for name in known if name.startswith(f"{group}.")])
    hints = " ".join(filter(None, (close, "`--cfg` prints every key.")))
    return UserError(f"{key} (command line): there is no such key. {hints}")


def explain(error: Exception, given: Iterable[str], choices: Mapping[str, str | None]) -> UserError:
    """The refusal of a value, from the innermost cause of what Hydra or OmegaConf raised."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return UserError(f"{mark.name}, line {mark.line + 1}: not readable as YAML: {error.problem}.")
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__ or chain[-1])
    text = "\n".join(str(link) for link in chain)
    # The outermost of OmegaConf's is the formatted one; what it was raised from says less.
    shown = next((link for link in chain if isinstance(link, OmegaConfBaseException)), error)
    found = re.search(r"full_key: (\S+)", text)
    file = re.search(r"In '([^']+)': ", text)
    message = str(shown).strip().splitlines()[0]
    if "is not a ListConfig" in message:
        message = "a list is expected; write [a,b]."
    if found and re.match(r"Cannot convert '(list|dict)' to string", message):
        message = f"a text is expected; one in brackets needs quotes of its own: {as_argument(found.group(1), '[...]')}"
    if unknown := re.match(r"Key '(.+)' not in '(.+)'", message):
        known = {**vars(configs), **{schema.__name__: schema for schema in SCHEMAS.values()}}
        fields = list(getattr(known.get(unknown.group(2)), "__dataclass_fields__", {}))
        message = f"there is no such key. {nearest(unknown.group(1), fields, fields)}"
    if plugin := missing_plugin(text):
        return UserError(plugin)
    if "hydra/" in message:
        message += f"\n{PLUGINS}"
    if not found:
        return UserError(message)
    key = found.group(1)
    if file:
        return UserError(f"{key} (conf/{file.group(1)}.yaml): {message}")
    return UserError(f"{key} ({origin(key, given, choices)}): {message}")


def origin(key: str, given: Iterable[str], choices: Mapping[str, str | None]) -> str:
    """Where the value of a key comes from: the command line or a file."""
    if any(key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.") for other in given):
        return "command line"
    group = key.partition(".")[0]
    choice = choices.get(group)
    if choice is None:
        return "default"
    if group == "data" and choice not in config_files("data"):
        return f"data_manifests/{choice}.yaml"
    return f"conf/{group}/{choice}.yaml"


def check_shadowing(choices: Mapping[str, str | None]) -> None:
    """Refuse a file of the user's that Hydra would pass over for a shipped one."""
    for group, choice in choices.items():
        own, ours = (folder / group / f"{choice}.yaml" for folder in (USER_CONF, shipped("conf")))
        if own.is_file() and ours.is_file() and own.read_bytes() != ours.read_bytes():
            raise UserError(f"{own}: '{choice}' is the name of a shipped {group}; rename your file.")


def check_operation(method: Method, recipe: str) -> None:
    """Refuse to train plainly, for an operation after training, what the recipe means for a method of its own.

    Raises:
        UserError: names the two commands that do it.
    """
    if not isinstance(method, Operation):
        return
    content = read_yaml(config_files("recipe")[recipe])
    if any("override /method" in str(entry) for entry in content.get("defaults", ())):
        raise UserError(
            f"recipe={recipe} is for a method of its own, but method={method.name} alone would train it plainly. "
            f"Train it first (forgetbench finetune recipe={recipe} name=<name>), then give run=outputs/<name>."
        )
