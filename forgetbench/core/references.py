"""References of configuration files, `${recipe.lr}`: to keys of the same configuration alone.

OmegaConf's `${name:...}` calls functions that read the environment and Hydra's state. Files may be untrusted, so they
may refer to keys only. A resolved value is text, and is never resolved again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from forgetbench.core.errors import UserError

_KEY = re.compile(r"\$\{\s*\.*\s*(?!hydra\b)[A-Za-z_]\w*(?:\.\w+|\[\w+\])*\s*\}", re.ASCII)
"""A reference to one key; `hydra` holds the paths and the environment of this machine."""
_MARK = re.compile(r"(\\*)\$\{")


def texts(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The dotted keys and values of all texts of nested content, keys of mappings among the texts."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            inside = f"{key}.{name}".lstrip(".")
            if isinstance(name, str) and "${" in name:
                yield inside, name
            yield from texts(value, inside)
    elif isinstance(content, list | tuple):
        for place, value in enumerate(content):
            yield from texts(value, f"{key}[{place}]")
    elif isinstance(content, str):
        yield key, content


def check_references(content: Any, where: object) -> None:
    """Refuse what a file refers to besides keys.

    Args:
        content: of the file, nothing in it resolved.
        where: the file.

    Raises:
        UserError: names the file and the key.
    """
    for key, value in texts(content):
        if "${" in _KEY.sub("", value) or "\\${" in value:
            raise UserError(
                f"{where}: `{key}: {value}`: a file may refer to keys of the same configuration, such as "
                "${recipe.lr}, and to nothing else (docs/safety.md). Give such a value on the command line."
            )


def literal(content: Any) -> Any:
    """Nested content escaped for OmegaConf: a `${` in it stays text."""
    if isinstance(content, Mapping):
        return {name: literal(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [literal(value) for value in content]
    return _MARK.sub(r"\1\1\\${", content) if isinstance(content, str) else content
