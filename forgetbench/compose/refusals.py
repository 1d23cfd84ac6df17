"""Turn what Hydra and OmegaConf refuse into one message that names the key, the file and the fix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from forgetbench.compose.config_errors import reworded
from forgetbench.compose.launchers import missing_plugin
from forgetbench.compose.overrides import as_argument, left_out_of_names
from forgetbench.core.errors import UserError
from forgetbench.core.options import GROUPS, MOST_NAMED, USER_CONF, config_files, nearest, options
from forgetbench.core.paths import shipped
from forgetbench.core.yaml_files import read_yaml
from forgetbench.methods.base import Method
from forgetbench.methods.operation import Operation
from forgetbench.methods.registry import SCHEMAS
from forgetbench.runs.scored import FILE, LAST

PLUGINS = "Launchers come as extras: pip install 'forgetbench[joblib]', [slurm] or [ray]."

_YAML = ".yaml"


def check_choice(command: str, group: str, given: str, manifests: Sequence[str]) -> None:
    """Refuse an option that a config group does not have."""
    known = options(group, manifests)
    if given in known:
        return
    if group == "model" and "/" in given and not given.endswith(_YAML):
        raise UserError(f"model={given}: a folder or a Hub id is given with `model=local model.path={given}`.")
    if (stem := PurePath(given).name.removesuffix(_YAML)) in known:
        raise UserError(f"{group}={given}: options have no folder and no ending; write {group}={stem}.")
    lists_all = "`forgetbench data list --all`" if group == "data" else f"`forgetbench {_typed(command)} --help`"
    there_is = nearest(given, known, known, lists_all)
    if given in ("", "null"):
        raise UserError(f"{group}={given}: '{group}' needs an option; leave it out for the default. {there_is}")
    where = f"conf/{group}/{given}.yaml" + (f" or data_manifests/{given}.yaml" if group == "data" else "")
    see_all = "" if lists_all in there_is else f"; {lists_all} lists all"
    raise UserError(
        f"{group}={given}: '{group}' has no option '{given}'. {there_is}\n"
        f"An option of your own is a file {where}{see_all}."
    )


def several_options(command: str, group: str, given: Sequence[Any]) -> UserError:
    """The refusal of a list of options where a group takes one."""
    names = [str(option) for option in given]
    grid = f"; a run for each is `forgetbench sweep {group}={','.join(names)}`" if len(names) > 1 else ""
    if group == "matrix" and command != "sweep":
        grid = f"; datasets to score are matrix.datasets=[{','.join(names)}]"
    return UserError(f"{group}=[{','.join(names)}]: '{group}' takes one option, without brackets{grid}.")


def several_values(command: str, key: str, line: str) -> UserError:
    """The refusal of values with commas between them where one configuration runs."""
    value = line.partition("=")[2]
    listed = "these sets one after the other" if key == "data" else "a list"
    ways = [f"{key}=[{value}] for {listed}"] if key == "data" or key not in (*GROUPS[command], "seed") else []
    if key.partition(".")[0] != "matrix":  # a sweep has one matrix
        ways.append(f"forgetbench sweep {key}={value} for a run with each")
    ways.append(f"or, for a text with a comma in it: {as_argument(key, value)}")
    written = ",\n  ".join(ways)
    return UserError(f"{line}: several values, but `{_typed(command)}` runs one configuration. Write\n  {written}")


def _typed(command: str) -> str:
    """A command's name as it is typed."""
    return command.replace("_", "-")


def bare_word(command: str, word: str, manifests: Sequence[str]) -> UserError:
    """The refusal of an argument without `=`."""
    if word[-1:] in ("}", "]", ")", ",") or word in ("=", ":"):
        return UserError(f"'{word}' is not an override. Blanks part words: put all of key=value in quotes, 'key=...'.")
    owners = [group for group in GROUPS[command] if word in options(group, manifests)]
    meant = (
        f"Did you mean {' or '.join(f'{group}={word}' for group in owners)}?"
        if owners
        else "Write key=value, without blanks."
    )
    return UserError(f"'{word}' is not an override. {meant}")


def keys(config: Any, above: str = "") -> list[str]:
    """Every key of a composed config that holds a value, dotted."""
    paths = []
    for key in config:
        child = config._get_node(key)
        if isinstance(child, DictConfig) and not child._is_missing() and not child._is_none():
            paths.extend(keys(child, f"{above}{key}."))
        else:
            paths.append(f"{above}{key}")
    return paths


def knows(config: Any, key: str) -> bool:
    """Whether the schemas of a composed config declare `key`; keys of plain mappings are free."""
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


def unknown_key(command: str, key: str, config: DictConfig) -> UserError:
    """The refusal of a key that no schema declares."""
    known = [name for name in keys(config) if not name.startswith("hydra.") and knows(config, name)]
    group, _, rest = key.partition(".")
    close = nearest(
        key, [*GROUPS[command], *known], [name for name in known if name.startswith(f"{group}.")], "`--cfg`"
    )
    owners = [schema for schema in SCHEMAS if schema.startswith("method/") and _declares(schema, rest)]
    others = [_typed(name) for name, groups in GROUPS.items() if group in groups]
    if group == "method" and owners and "Did you mean" not in close:
        named = ", ".join(name.replace("/", "=") for name in owners[:MOST_NAMED])
        close = f"It is a key of {named}."
    elif others and group not in GROUPS[command]:
        close = f"`{_typed(command)}` has no '{group}'; {', '.join(others)} {'has' if len(others) == 1 else 'have'}."
    hints = " ".join(filter(None, (close, "" if "--cfg" in close else "`--cfg` prints every key.")))
    return UserError(f"{key} (command line): there is no such key. {hints}")


def _declares(schema: str, key: str) -> bool:
    return key in getattr(SCHEMAS[schema], "__dataclass_fields__", {})


def same_folder(folder: str, first: Sequence[str], second: Sequence[str]) -> UserError:
    """The refusal of two points that would share a folder."""
    decides = [
        {word for word in point if word.partition("=")[0] not in left_out_of_names()} for point in (first, second)
    ]
    if decides[0] == decides[1]:
        return UserError(
            f"Two points are the same training ({folder}): {' '.join(first)} and {' '.join(second)}.\n"
            "Sweep over keys of the recipe, data, model, method or seed; the matrix is one for all points."
        )
    return UserError(
        f"Two points would share the folder {folder}: {' '.join(first)} and {' '.join(second)} differ in signs that no "
        "folder's name has. Run them as two sweeps with names of their own (name=...)."
    )


def explain(error: Exception, given: Mapping[str, str], choices: Mapping[str, str | None]) -> UserError:
    """The refusal of a value, from the innermost cause of what Hydra or OmegaConf raised.

    Args:
        error: what was raised.
        given: the keys of the command line, each with its value as it was typed.
        choices: the option of every config group.
    """
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return UserError(f"{mark.name}, line {mark.line + 1}: not readable as YAML: {error.problem}.")
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__ or chain[-1])
    text = "\n".join(str(link) for link in chain)
    # OmegaConf's outermost error has the formatted message; its causes say less.
    shown = next((link for link in chain if isinstance(link, OmegaConfBaseException)), error)
    file = re.search(r"In '([^']+)': ", text)
    message = (str(shown).strip().splitlines() or [""])[0]
    if plugin := missing_plugin(text):
        return UserError(plugin)
    match = re.search(r"full_key: (\S+)", text)
    if not match:
        plugins = f"\n{PLUGINS}" if "hydra/" in message else ""
        return UserError(reworded(message, "<key>") + plugins)
    key = full_key(match.group(1), message, given)
    message = reworded(message, key)
    if file:
        return UserError(f"{key} (conf/{file.group(1)}.yaml): {message}")
    return UserError(f"{key} ({origin(key, given, choices)}): {message}")


def full_key(key: str, message: str, given: Mapping[str, str]) -> str:
    """A key in full; OmegaConf names an element of an element by its place alone, and a reference by who reads it."""
    if reference := re.match(r"(?:Interpolation key '|Unsupported interpolation type )([^']+)", message):
        return next((other for other, value in given.items() if f"${{{reference.group(1)}" in value), key)
    nested = [other for other in given if "." in other]
    return f"{nested[0]}[{key}]" if key.isdigit() and len(nested) == 1 else key


def origin(key: str, given: Iterable[str], choices: Mapping[str, str | None]) -> str:
    """Where the value of a key comes from: the command line or a file."""
    key = re.sub(r"\[(\d+)\]", r".\1", key)
    if any(key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.") for other in given):
        return "command line"
    group = key.partition(".")[0]
    choice = choices.get(group)
    if choice is None:
        return "default"
    if (group, choice) == ("matrix", LAST):
        return FILE
    if group == "data" and choice not in config_files("data"):
        return f"data_manifests/{choice}.yaml"
    return f"conf/{group}/{choice}.yaml"


def check_shadowing(choices: Mapping[str, str | None]) -> None:
    """Refuse a user's file that Hydra would ignore in favour of a shipped file."""
    for group, choice in choices.items():
        user_file, shipped_file = (folder / group / f"{choice}.yaml" for folder in (USER_CONF, shipped("conf")))
        if user_file.is_file() and shipped_file.is_file() and user_file.read_bytes() != shipped_file.read_bytes():
            raise UserError(f"{user_file}: '{choice}' is the name of a shipped {group}; rename your file.")


def check_operation(method: Method, recipe: str) -> None:
    """Refuse an operation after training on a recipe that is for another method, which would be trained plainly.

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
