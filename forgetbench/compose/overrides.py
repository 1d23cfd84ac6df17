"""Overrides as text: read them, and name a folder after them."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from forgetbench.config import SweepConfig
from forgetbench.config.result import without_result
from forgetbench.core.errors import UserError, reason
from forgetbench.core.override_text import in_quotes
from forgetbench.core.secrets import is_secret

_PAIRS = (("[", "]"), ("{", "}"), ("(", ")"))
_SHOWN = 60
"""Letters of an argument that is too long to be shown."""
MAX_FOLDER_NAME = 150
"""Bytes. File systems stop at 255; leave room for temporary suffixes."""


def folder_name(*items: str) -> str:
    """Join overrides into one folder name that is readable, safe and valid unquoted in a Hydra override."""
    joined = "--".join(item for item in items if item)
    plain = re.sub(r"[\[\]{}()'\"\s]", "", joined).replace(",", "+")
    name = re.sub(r"[^\w.+-]", "-", plain).strip(".-") or "point"
    if len(name.encode()) > MAX_FOLDER_NAME:
        digest = hashlib.sha256(joined.encode()).hexdigest()[:8]
        name = f"{name.encode()[: MAX_FOLDER_NAME - 9].decode(errors='ignore')}-{digest}"
    return name


def run_folder(run: str | None, default: str) -> str:
    """The folder that a command works in: the given run's, or `default`."""
    return run or default


def left_out_of_names(*others: str) -> list[str]:
    """Keys that a folder's name does not spell: those that decide no result, and `others`."""
    return [*others, *without_result(SweepConfig)]


def environment_variable(name: str, *default: str | None) -> str | None:
    """OmegaConf's own `oc.env`, less the variables that are secrets: configurations are written to disk.

    Raises:
        UserError: the variable is called like a token, a key, a secret or a password.
    """
    if is_secret(name):
        raise UserError(
            f"${{oc.env:{name}}}: {name} is called like a secret, and configurations are written to disk (run.json, "
            "cards, reports). Leave it in the environment, where the libraries that need it find it."
        )
    return oc.env(name, *default)


def register_resolvers() -> None:
    """Make these functions known to configurations; a program that calls a command gets its own `oc.env` back."""
    OmegaConf.register_new_resolver("oc.env", environment_variable, replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("without_result", left_out_of_names, replace=True)


# At import, too: a launcher's worker process imports this module when it unpickles the task.
register_resolvers()


_TOKEN = re.compile(r"""'(?:\\.|[^'])*'|"(?:\\.|[^"])*"|[\[\]{}(),:]|[^\[\]{}(),:'"]+|['"]""")
"""A text in quotes, a sign that holds lists and mappings together, or a run of anything else."""


def quoted(value: str) -> str:
    """A value in quotes of Hydra's grammar, its interpolations escaped."""
    return in_quotes(value).replace("${", "\\${")


def as_argument(key: str, value: str) -> str:
    """The shell argument that sets a key to exactly this text."""
    quoted_value = quoted(value) if "'" in value or '"' in value else f'"{quoted(value)[1:-1]}"'
    return shlex.quote(f"{key}={quoted_value}")


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them, one by one, so that an error names the faulty override.

    Hydra's grammar knows the letters a to z, and no `=`, brackets or `~` inside a text without quotes. Where such a
    value can mean nothing but itself, it is taken as it is.

    Raises:
        UserError: an override cannot be read; the message shows an argument that can.
    """
    parser = OverridesParser.create()
    return [_parsed(parser, line) for line in overrides]


def _parsed(parser: OverridesParser, line: str) -> Override:
    if not line.partition("=")[0].strip(" +~"):
        raise UserError(f"{line}: there is no key before the =; write key=value.")
    try:
        return parser.parse_override(line)
    except HydraException as error:
        key, _, value = line.partition("=")
        if readable := _quoted_where_needed(value):
            with suppress(HydraException):
                return parser.parse_override(f"{key}={readable}")
        raise UserError(f"{line}: not readable as key=value: {_unreadable(key, value)}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise UserError(f"{line[:_SHOWN]}...: not readable as key=value ({reason(error)}).") from error


def _unreadable(key: str, value: str) -> str:
    """What is probably wrong with a value that Hydra cannot read, and what to write."""
    pairs = [f"{opening} and {closing}" for opening, closing in _PAIRS if value.count(opening) != value.count(closing)]
    if pairs:
        cause = f"{pairs[0]} are not in pairs; add or drop one."
    elif value.count("'") % 2 or value.count('"') % 2:
        cause = "a quote has no partner; add or drop one."
    elif value.endswith(",") or ",," in value:
        cause = "nothing stands before or after a comma; drop it."
    else:
        cause = "a sign is in the way."
    advice = f"A value with such signs needs quotes of its own inside those of the shell: {as_argument(key, value)}"
    return f"{cause} {advice}"


def _quoted_where_needed(value: str) -> str:
    """A value that Hydra cannot read, with the quotes that it lacks; empty where these could be set in two ways."""
    if value[:1] + value[-1:] in ("[]", "{}"):
        return "".join(map(_quoted_text, _TOKEN.findall(value)))
    closing = {"[": "]", "{": "}"}.get(value[:1])
    if value[:1] in ("'", '"') or (closing and ("," in value or closing not in value)):
        return ""
    if "," not in value:
        return quoted(_expanded(value))
    # Several values of a sweep, none of which is more than a text.
    return "" if re.search(r"[\[\]{}()'\"]", value) else ",".join(map(_quoted_text, value.split(",")))


def _quoted_text(token: str) -> str:
    """A token in quotes, unless it needs none, has some already, or is a bracket, comma or colon."""
    text = token.strip()
    is_plain = re.fullmatch(r"[\w./+*%@$?|:-]*", text, re.ASCII)
    return token if is_plain or re.fullmatch(r"[\[\]{}(),:]|'.*'|\".*\"", text, re.DOTALL) else quoted(_expanded(text))


def _expanded(value: str) -> str:
    """A path with the home folder in place of a `~` that no shell has replaced."""
    if not value.startswith("~"):
        return value
    try:
        return str(Path(value).expanduser())
    except RuntimeError:  # no such user
        return value
