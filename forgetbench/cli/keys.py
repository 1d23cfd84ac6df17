"""A command's configuration keys and what they mean, read from the sources of its dataclasses.

The sources are parsed, not imported: importing the dataclasses would import OmegaConf and slow `--help` down.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from forgetbench.core.paths import PACKAGE

SOURCES = (PACKAGE / "config", PACKAGE / "core" / "records.py")
"""Where the dataclasses are, and the enums of their fields."""
MAX_DEFAULT = 24
"""Characters; a longer default is left to `--cfg`."""


@dataclass(frozen=True)
class Key:
    """One key of a configuration."""

    path: str
    """As it is overridden, such as recipe.lr; `data.stages[].set` is a key of each element of a list."""
    meaning: str
    """The docstring under the field, the members of an enum and the default; empty without a docstring."""
    members: tuple[str, ...] = ()
    """The allowed values of a choice: the members of an enum, or true and false; else empty."""

    @property
    def group(self) -> str:
        """The top-level key above this one; `run` for top-level keys without sub-keys."""
        first, dot, _ = self.path.partition(".")
        return first if dot or first == "method" else "run"


def keys(config: str, sources: tuple[Path, ...] = SOURCES) -> list[Key]:
    """Every key of a configuration, in the order of its fields.

    Args:
        config: name of its class.
        sources: folders and files that hold the class and those of its fields.
    """
    return list(_keys(config, "", _classes(sources)))


def _keys(config: str, prefix: str, classes: Mapping[str, ast.ClassDef]) -> Iterator[Key]:
    for field in _fields(config, classes):
        path = prefix + field.name
        if field.kind in classes and _fields(field.kind, classes):
            if field.of_list:
                yield Key(path, field.doc)
            yield from _keys(field.kind, f"{path}[]." if field.of_list else f"{path}.", classes)
        else:
            members = _members(classes[field.kind]) if field.kind in classes else []
            yield Key(path, _meaning(field, members), ("true", "false") if field.kind == "bool" else tuple(members))


@dataclass(frozen=True)
class _Field:
    name: str
    kind: str
    """The annotation's last name: `Schedule` in `list[Schedule]` and in `Schedule | None`."""
    of_list: bool
    doc: str
    default: str
    """As YAML; empty without a default, or where it is not worth showing."""


def _meaning(field: _Field, members: Sequence[str]) -> str:
    default = f"default {field.default}" if 0 < len(field.default) <= MAX_DEFAULT else ""
    message = "; ".join(part for part in (", ".join(members), default) if part)
    return f"{field.doc} [{message}]" if field.doc and message else field.doc


@cache
def _classes(sources: tuple[Path, ...]) -> dict[str, ast.ClassDef]:
    files = [path for source in sources for path in (sorted(source.rglob("*.py")) if source.is_dir() else [source])]
    bodies = [ast.parse(path.read_text("utf-8")).body for path in files]
    return {node.name: node for body in bodies for node in body if isinstance(node, ast.ClassDef)}


def _bases(node: ast.ClassDef) -> list[str]:
    return [base.id for base in node.bases if isinstance(base, ast.Name)]


def _members(node: ast.ClassDef) -> list[str]:
    """The values of an enum; empty for another class."""
    if "StrEnum" not in _bases(node):
        return []
    values = [statement.value for statement in node.body if isinstance(statement, ast.Assign)]
    return [str(value.value) for value in values if isinstance(value, ast.Constant)]


def _fields(config: str, classes: Mapping[str, ast.ClassDef]) -> list[_Field]:
    """Fields of a dataclass, inherited ones included; empty for an enum."""
    node = classes[config]
    by_name = {field.name: field for base in _bases(node) if base in classes for field in _fields(base, classes)}
    for statement, next_statement in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            by_name[name] = _field(name, statement.annotation, statement.value, _text(next_statement))
    return list(by_name.values())


def _field(name: str, annotation: ast.expr, value: ast.expr | None, doc: str) -> _Field:
    of_list = isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "list"
    kinds = [node.id for node in ast.walk(annotation) if isinstance(node, ast.Name) and node.id != "list"]
    return _Field(name, kinds[0] if kinds else "", of_list, doc, _default(value))


def _text(statement: ast.stmt | None) -> str:
    """The string that stands after a field, on one line."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return re.sub(r"\s+", " ", str(statement.value.value)).strip()
    return ""


def _default(value: ast.expr | None) -> str:
    """A default as it would be written in YAML: of a value, or of a call such as `field(default=..., metadata=...)`."""
    match value:
        case ast.Call(args=[first, *_]):
            return _default(first)
        case ast.Call(keywords=keywords):
            by_keyword = {keyword.arg: keyword.value for keyword in keywords}
            return _default(by_keyword.get("default") or by_keyword.get("default_factory"))
        case ast.Lambda(body=body):
            return _default(body)
        case ast.List(elts=elements) if elements:
            return f"[{', '.join(map(_default, elements))}]"
        case ast.Attribute(attr=member):
            return member
    return _scalar(value.value) if isinstance(value, ast.Constant) else ""


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, int | str) else ""
