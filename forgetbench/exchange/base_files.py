"""Files beside the weights of a run's base: in its folder, or in the Hub's cache, where loading the base has put it."""

from __future__ import annotations

from pathlib import Path

from forgetbench.config import ModelConfig
from forgetbench.models.pretrained import resolve_path


def base_file(model: ModelConfig, name: str) -> Path | None:
    """One file of the base; None where it has none, or none that is on this machine."""
    folder = Path(resolve_path(model.path))
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model.path, name, revision=model.revision)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None
