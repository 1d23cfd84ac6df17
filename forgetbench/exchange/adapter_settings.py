"""The settings of a PEFT adapter, adapter_config.json, as another version of peft or an editor left them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.exchange.json_files import read_json
from forgetbench.models.weight_files import check_content

FILE = "adapter_config.json"
_DECISIVE = {"LORA": ("r", "lora_alpha")}
"""Keys that the tensors do not tell, and that peft would fill with defaults of its own."""


@dataclass(frozen=True)
class AdapterSettings:
    """What an adapter's file says."""

    config: Any
    """A PeftConfig of the adapter's own kind."""
    left_out: Mapping[str, Any]
    """Keys with a value that the installed peft does not know."""

    @property
    def kind(self) -> str:
        """Such as `lora`."""
        return str(self.config.peft_type.value).lower()


def read_settings(folder: Path) -> AdapterSettings:
    """Read an adapter's settings.

    Raises:
        UserError: the file is damaged, of a kind that the installed peft does not know, or of values that it refuses.
    """
    import peft
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    path = folder / FILE
    check_content(path)
    content = read_json(path)
    kind = content.get("peft_type")
    if kind is None:
        raise UserError(f"{path} lacks peft_type, so what its tensors are is not known; copy it again.")
    schema: Any = {one.value: schema for one, schema in PEFT_TYPE_TO_CONFIG_MAPPING.items()}.get(kind)
    if schema is None:
        raise UserError(f"{path}: peft {peft.__version__} knows no adapter of peft_type={kind}; a later one may.")
    if lacking := [key for key in _DECISIVE.get(str(kind), ()) if content.get(key) is None]:
        raise UserError(f"{path} lacks {' and '.join(lacking)}, which its tensors do not tell; copy it again.")
    known = {field.name for field in dataclasses.fields(schema) if field.init}
    try:
        config = schema(**{key: value for key, value in content.items() if key in known})
    except Exception as error:  # each kind checks its values in its own way
        raise UserError(f"{path}: peft does not take these settings ({_first_line(error)}).") from error
    return AdapterSettings(config, {key: value for key, value in content.items() if key not in known and value})


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
