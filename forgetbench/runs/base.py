"""The model that a run was trained from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from forgetbench.core.errors import UserError
from forgetbench.runs.run_file import RunFile, model_config

if TYPE_CHECKING:
    from forgetbench.models.load import LoadedModel


def load_base(run: RunFile, folder: Path) -> LoadedModel:
    """The model that a run was trained from.

    Raises:
        UserError: its weights are not those any more.
    """
    from forgetbench.models.load import load_model

    model = model_config(run)
    loaded = load_model(model, run.config["seed"])
    if loaded.digest != run.model_digest:
        raise UserError(f"{folder}: model.path={model.path} no longer holds the weights it was trained from.")
    return loaded
