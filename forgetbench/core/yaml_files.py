"""Read YAML files that may be anybody's: with no more in them than their size warrants, and every key once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

from forgetbench.core.errors import UserError, reason
from forgetbench.core.reading import MIB, read_text

MAX_BYTES = 16 * MIB
MAX_DEPTH = 32
"""Lists and mappings in each other."""
MAX_VALUES = 200_000
"""Texts, numbers, lists and mappings, those that an alias repeats counted each time: ten aliases of ten aliases, nine
times over, are a billion."""
_INT64 = 2**63
_UNSAFE = re.compile("[\0\ud800-\udfff]")


class _KeysOnce(SafeConstructor):
    """Refuses a key that is written twice, of which PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                problem = f"the key '{key.value}' is on line {lines[key.value]} already"
                raise ConstructorError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Loader(_KeysOnce, yaml.SafeLoader):
    pass


_FastLoader: Any = type("_FastLoader", (_KeysOnce, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), {})
"""With libyaml where PyYAML has it: eight times as fast, but its messages say less and miss the line by one."""


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        UserError: it cannot be read, or holds more than is allowed; names the file.
    """
    return parse_yaml(read_text(path, MAX_BYTES), path)


def parse_yaml(text: str, where: object) -> Any:
    """What a YAML text holds.

    Raises:
        UserError: as `read_yaml` does.
    """
    try:
        _check_size(text)
        content = _load(text)
        _check_values(content)
    except Exception as error:  # PyYAML's constructors raise whatever Python does
        raise UserError(f"{where}: {_error_text(error)}") from error
    return content


def _error_text(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1} is not readable as YAML: {error.problem}."
    return f"not readable as YAML: {reason(error)}."


def _load(text: str) -> Any:
    """Parse YAML; errors come from PyYAML's parser in Python, which says more."""
    try:
        return yaml.load(text, _FastLoader)
    except yaml.YAMLError:
        return yaml.load(text, _Loader)


def _check_size(text: str) -> None:
    """Count values without making them: a parser that makes them would go as deep as they are nested.

    Raises:
        ValueError: they are too many, or too deep.
        yaml.YAMLError: it is no YAML; `_load` says why.
    """
    sizes: dict[str, int] = {}
    above: list[tuple[str | None, int]] = []
    total = 0
    for event in _events(text):
        match event:
            case yaml.AliasEvent():
                if event.anchor in {anchor for anchor, _ in above}:
                    raise ValueError(f"the alias *{event.anchor} stands inside of what it repeats")
                total += sizes.get(str(event.anchor), 0)
            case yaml.CollectionStartEvent():
                above.append((event.anchor, total))
                total += 1
            case yaml.CollectionEndEvent():
                anchor, before = above.pop()
                sizes[anchor or ""] = total - before
            case yaml.ScalarEvent():
                total += 1
                sizes[event.anchor or ""] = 1
        if len(above) > MAX_DEPTH:
            raise ValueError(f"lists and mappings are nested more than {MAX_DEPTH} deep")
        if total > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values, with those that aliases repeat")


def _events(text: str) -> Any:
    """The parser's events up to an error, which loading meets again and reports better."""
    try:
        yield from yaml.parse(text, _FastLoader)
    except yaml.YAMLError:
        return


def _check_values(content: Any, key: str = "") -> None:
    """Refuse what no file, table or tokenizer can hold.

    Raises:
        ValueError: names the key.
    """
    if isinstance(content, dict):
        for name, value in content.items():
            _check_values(name, "a key")
            _check_values(value, f"{key}.{name}".lstrip("."))
    elif isinstance(content, list | tuple):
        for value in content:
            _check_values(value, key)
    elif isinstance(content, str) and _UNSAFE.search(content):
        raise ValueError(f"`{key}` holds half a character, or the character NUL".encode("ascii", "replace").decode())
    elif isinstance(content, int) and not -_INT64 <= content < _INT64:
        raise ValueError(f"`{key}` is a number beyond 64 bits")
