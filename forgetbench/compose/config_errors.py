"""OmegaConf's errors about a value or a key, reworded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass

from forgetbench import config as configs
from forgetbench.compose.overrides import as_argument
from forgetbench.core.options import nearest
from forgetbench.methods.registry import SCHEMAS

_TEXT = r"'?(?P<given>.*?)'?"
_KINDS = {"Integer": "a whole number", "Float": "a number such as 0.5 or 1e-4"}


def reworded(message: str, key: str) -> str:
    """What is wrong with a value, and what is expected instead.

    Args:
        message: the first line of what OmegaConf raised.
        key: the key that was given the value.
    """
    for pattern, rewording in _REWORDINGS:
        if match := re.fullmatch(pattern, message, re.DOTALL):
            return rewording(match, key)
    return message


def fields_of(schema: str) -> list[str]:
    """The keys that a class of the configuration declares; empty for an unknown class."""
    classes = {**vars(configs), **{schema_class.__name__: schema_class for schema_class in SCHEMAS.values()}}
    kind = classes.get(schema)
    return [field.name for field in fields(kind)] if isinstance(kind, type) and is_dataclass(kind) else []


def _kind(match: re.Match[str], key: str) -> str:
    return f"{_KINDS[match['kind']]} is expected, not {_shown(match['given'])}."


def _truth(match: re.Match[str], key: str) -> str:
    return f"true or false is expected, not {_shown(match['given'])}."


def _member(match: re.Match[str], key: str) -> str:
    return f"there is no '{match['given']}'; it may be {match['known']}."


def _null(match: re.Match[str], key: str) -> str:
    return "null is no value of this key; give one, or leave the key out."


def _list(match: re.Match[str], key: str) -> str:
    whole, bracket, _ = key.partition("[")
    if bracket:
        return f"each element is a list itself; write {whole}=[[a,b],[c,d]]."
    return f"a list is expected; write {key}=[a,b], or {key}=[a] for one."


def _text(match: re.Match[str], key: str) -> str:
    return f"a text is expected; one in brackets needs quotes of its own: {as_argument(key, '[...]')}"


def _mapping(match: re.Match[str], key: str) -> str:
    return f"keys with values are expected, {key}={{<key>: <value>}}."


def _group(match: re.Match[str], key: str) -> str:
    if match["kind"] in ("str", "int", "float", "bool"):
        return f"{_shown(match['given'])} is no value of this key."
    names = fields_of(match["kind"])
    listed = f" ({', '.join(names)})" if names else ""
    return f"this key has keys of its own{listed}, and {_shown(match['given'])} is none of them; give one by name."


def _unknown(match: re.Match[str], key: str) -> str:
    names = fields_of(match["schema"])
    return f"there is no such key. {nearest(match['given'], names, names)}"


def _no_reference(match: re.Match[str], key: str) -> str:
    return f"${{{match['given']}}} refers to a key that is not there; a text with ${{ in it is written \\${{."


def _no_resolver(match: re.Match[str], key: str) -> str:
    return f"${{{match['given']}:...}} is no function that a value can use."


def _unset(match: re.Match[str], key: str) -> str:
    return f"the environment has no variable {match['given']}; set it, or write ${{oc.env:{match['given']},<default>}}."


def _above(match: re.Match[str], key: str) -> str:
    return "its value refers to keys that hold this one; refer to one value."


def _circle(match: re.Match[str], key: str) -> str:
    return "its value refers to itself."


def _no_option(match: re.Match[str], key: str) -> str:
    return f"{match['group']}={match['given']}: there is no such option."


def _shown(given: str) -> str:
    return "null" if given == "None" else f"'{given}'"


_REWORDINGS: list[tuple[str, Callable[[re.Match[str], str], str]]] = [
    (rf"Value {_TEXT} of type '.*' could not be converted to (?P<kind>Integer|Float)", _kind),
    (rf"Value {_TEXT} is not a valid bool .*", _truth),
    (rf"Invalid value {_TEXT}, expected one of \[(?P<known>.*)\]", _member),
    (r"(field|child) '.*' is not Optional", _null),
    (r".* is not optional and cannot be assigned None", _null),
    (r"Incompatible value 'None' for field of type .*", _null),
    (r".*is not a ListConfig.*", _list),
    (r"Cannot merge DictConfig with ListConfig", _list),
    (r"Cannot convert '(list|dict|ListConfig|DictConfig)' to string.*", _text),
    (r"Cannot merge ListConfig with DictConfig", _mapping),
    (r"Cannot assign .* to (Dict|dict)\[.*", _mapping),
    (r"Invalid type assigned: \S+ is not a subclass of (?P<kind>\S+)\. value: (?P<given>.*)", _group),
    (r"Key '(?P<given>.+)' not in '(?P<schema>.+)'", _unknown),
    (r"Interpolation key '(?P<given>.+)' not found", _no_reference),
    (r"Unsupported interpolation type (?P<given>.+)", _no_resolver),
    (r".*Environment variable '(?P<given>[^']+)' not found.*", _unset),
    (r"Interpolation to parent node detected", _above),
    (r"Recursive interpolation detected", _circle),
    (r"In '[^']+': Could not find '(?P<group>.+)/(?P<given>[^/]+)'", _no_option),
]
"""Patterns of OmegaConf's messages, and the function that rewords each."""
