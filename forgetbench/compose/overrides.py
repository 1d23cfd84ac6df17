"""Overrides as text: read them, and name a folder after them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from forgetbench.config import SweepConfig
from forgetbench.config.result import without_result
from forgetbench.core.errors import UserError

MAX_FOLDER_NAME = 150
"""File systems stop at 255 bytes; leave room for temporary suffixes."""


def folder_name(*items: str) -> str:
    """Join overrides into one folder name that is readable, safe and valid unquoted in a Hydra override."""
    joined = "--".join(item for item in items if item)
    plain = re.sub(r"[\[\]{}()'\"\s]", "", joined).replace(",", "+")
    name = re.sub(r"[^\w.+-]", "-", plain).strip(".-") or "point"
    if len(name) > MAX_FOLDER_NAME:
        digest = hashlib.sha256(joined.encode()).hexdigest()[:8]
        name = f"{name[: MAX_FOLDER_NAME - 9]}-{digest}"
    return name


def run_folder(run: str | None, own: str) -> str:
    """The folder that a command works in: that of the run it was given, or its own."""
    return run or own


def left_out_of_names(*others: str) -> list[str]:
    """Keys that a folder's name does not spell: those that decide no result, and `others`."""
    return [*others, *without_result(SweepConfig)]


# At import, not in a function: a launcher's worker process imports this module when it unpickles the task.
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
OmegaConf.register_new_resolver("without_result", left_out_of_names, replace=True)


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them, one by one, so that a refusal names the one at fault."""
    parser, parsed = OverridesParser.create(), []
    for line in overrides:
        try:
            parsed.append(parser.parse_override(line))
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{line}: not readable as key=value ({reason}). Quote a value with spaces or commas."
            ) from error
    return parsed
