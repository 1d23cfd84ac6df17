"""The settings of a PEFT adapter, adapter_config.json, as another version of peft or an editor left them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError, reason
from forgetbench.core.json_files import read_json
from forgetbench.models.weight_files import check_content

FILE = "adapter_config.json"
_MOST_RANK = 2**16
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
    if not isinstance(kind, str):
        raise UserError(f"{path} says no peft_type, so what its tensors are is not known; copy it again.")
    schema: Any = {kind_of_peft.value: schema for kind_of_peft, schema in PEFT_TYPE_TO_CONFIG_MAPPING.items()}.get(kind)
    if schema is None:
        raise UserError(f"{path}: peft {peft.__version__} knows no adapter of peft_type={kind}; a later one may.")
    if lacking := [key for key in _DECISIVE.get(str(kind), ()) if content.get(key) is None]:
        raise UserError(f"{path} lacks {' and '.join(lacking)}, which its tensors do not tell; copy it again.")
    _check_numbers(path, content)
    known = {field.name for field in dataclasses.fields(schema) if field.init}
    try:
        config = schema(**{key: value for key, value in content.items() if key in known})
    except Exception as error:  # each kind checks its values in its own way
        raise UserError(f"{path}: peft does not take these settings ({reason(error)}).") from error
    return AdapterSettings(config, {key: value for key, value in content.items() if key not in known and value})


def _check_numbers(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a rank or scale that peft would take and fail on later, or take memory for.

    Raises:
        UserError: names the key.
    """
    rank, scale = content.get("r"), content.get("lora_alpha")
    if rank is not None and not (type(rank) is int and 1 <= rank <= _MOST_RANK):
        raise UserError(f"{path}: r is {rank!r:.60}, and a whole number from 1 to {_MOST_RANK} is expected.")
    if scale is not None and not (isinstance(scale, int | float) and abs(scale) < math.inf):
        raise UserError(f"{path}: lora_alpha is {scale!r:.60}, and a number is expected.")
    if content.get("layer_replication"):
        raise UserError(f"{path}: layer_replication repeats layers, so the result is no change of the base's weights.")
