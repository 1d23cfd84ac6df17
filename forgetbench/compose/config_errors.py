"""What OmegaConf says of a value or a key, said in our words."""

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


def in_our_words(message: str, key: str) -> str:
    """What is wrong with a value, and what is expected instead.

    Args:
        message: the first line of what OmegaConf raised.
        key: the key that was given the value.
    """
    for pattern, said in _SAID:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return said(found, key)
    return message


def fields_of(schema: str) -> list[str]:
    """The keys that a class of the configuration declares; none of an unknown class."""
    known = {**vars(configs), **{own.__name__: own for own in SCHEMAS.values()}}
    kind = known.get(schema)
    return [field.name for field in fields(kind)] if isinstance(kind, type) and is_dataclass(kind) else []


def _kind(found: re.Match[str], key: str) -> str:
    return f"{_KINDS[found['kind']]} is expected, not {_shown(found['given'])}."


def _truth(found: re.Match[str], key: str) -> str:
    return f"true or false is expected, not {_shown(found['given'])}."


def _member(found: re.Match[str], key: str) -> str:
    return f"there is no '{found['given']}'; it may be {found['known']}."


def _null(found: re.Match[str], key: str) -> str:
    return "null is no value of this key; give one, or leave the key out."


def _list(found: re.Match[str], key: str) -> str:
    whole, bracket, _ = key.partition("[")
    if bracket:
        return f"each element is a list itself; write {whole}=[[a,b],[c,d]]."
    return f"a list is expected; write {key}=[a,b], or {key}=[a] for one."


def _text(found: re.Match[str], key: str) -> str:
    return f"a text is expected; one in brackets needs quotes of its own: {as_argument(key, '[...]')}"


def _mapping(found: re.Match[str], key: str) -> str:
    return f"keys with values are expected, {key}={{<key>: <value>}}."


def _group(found: re.Match[str], key: str) -> str:
    if found["kind"] in ("str", "int", "float", "bool"):
        return f"{_shown(found['given'])} is no value of this key."
    names = fields_of(found["kind"])
    listed = f" ({', '.join(names)})" if names else ""
    return f"this key has keys of its own{listed}, and {_shown(found['given'])} is none of them; give one by name."


def _unknown(found: re.Match[str], key: str) -> str:
    names = fields_of(found["schema"])
    return f"there is no such key. {nearest(found['given'], names, names)}"


def _no_reference(found: re.Match[str], key: str) -> str:
    return f"${{{found['given']}}} refers to a key that is not there; a text with ${{ in it is written \\${{."


def _no_resolver(found: re.Match[str], key: str) -> str:
    return f"${{{found['given']}:...}} is no function that a value can use."


def _unset(found: re.Match[str], key: str) -> str:
    return f"the environment has no variable {found['given']}; set it, or write ${{oc.env:{found['given']},<default>}}."


def _above(found: re.Match[str], key: str) -> str:
    return "its value refers to keys that hold this one; refer to one value."


def _circle(found: re.Match[str], key: str) -> str:
    return "its value refers to itself."


def _no_option(found: re.Match[str], key: str) -> str:
    return f"{found['group']}={found['given']}: there is no such option."


def _shown(given: str) -> str:
    return "null" if given == "None" else f"'{given}'"


_SAID: list[tuple[str, Callable[[re.Match[str], str], str]]] = [
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
"""What OmegaConf's sentences look like, and how each is said."""
