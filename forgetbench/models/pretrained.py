"""Read what a model's folder or Hub id holds besides weights: configuration and processor."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from forgetbench.config import ModelConfig
from forgetbench.errors import UserError
from forgetbench.paths import EMBEDDED


def resolve_path(path: str) -> str:
    """Turn `embedded:<name>` into the folder inside the package; leave other paths alone."""
    if not path.startswith("embedded:"):
        return path
    folder = EMBEDDED / path.removeprefix("embedded:")
    if not folder.is_dir():
        raise UserError(f"model.path={path}: the package ships no such model (looked in {folder}).")
    return str(folder)


def load_config(config: ModelConfig) -> Any:
    """The model's own configuration (no weights are read)."""
    return from_pretrained(AutoConfig, config)


def load_processor(config: ModelConfig) -> Any:
    """Load the processor; without torchvision, an images-only one where the family also has a video processor."""
    cls: Any = AutoProcessor
    if importlib.util.find_spec("torchvision") is None:
        family = load_config(config).model_type
        name = PROCESSOR_MAPPING_NAMES.get(family)
        known = getattr(transformers, name, None) if isinstance(name, str) else None
        if known is not None and "video_processor" in known.get_attributes():
            cls = _without_video(known)
    processor = from_pretrained(cls, config)
    # A processor saved under an unknown class name comes back as a bare tokenizer, without a word.
    if not isinstance(processor, ProcessorMixin):
        raise UserError(
            f"model.path={config.path} gave a {type(processor).__name__}, not a processor with images; "
            "check its processor_config.json."
        )
    return processor


def _without_video(parent: Any) -> Any:
    attributes = [name for name in parent.get_attributes() if name != "video_processor"]
    members = {"get_attributes": classmethod(lambda cls: attributes)}
    return type(parent.__name__, (parent,), members)


def from_pretrained(cls: Any, config: ModelConfig, **kwargs: Any) -> Any:
    """What `cls` loads from the configured path.

    Raises:
        UserError: the path holds nothing of the kind, or it is on the Hub and out of reach.
    """
    path = resolve_path(config.path)
    try:
        return cls.from_pretrained(path, revision=config.revision, trust_remote_code=config.trust_remote_code, **kwargs)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0]
        if not Path(path).is_dir():
            reason = f"there is no such folder, and as a Hub id it cannot be had (downloaded? network up?): {reason}"
        raise UserError(f"Cannot load model.path={config.path}: {reason}") from error
