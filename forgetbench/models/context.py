"""The context length of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Context:
    """The context length of a model's language part."""

    length: int | None
    """Number of positions the model was made for; None if its configuration does not say."""
    is_hard: bool
    """Whether longer inputs are impossible, because position embeddings are learned and not computed."""


def context_of(config: Any) -> Context:
    """The context of a model, from its configuration.

    The length is `max_position_embeddings`, or the original length times the factor if rotary positions are stretched
    (YaRN).
    """
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    rotary = getattr(text, "rope_parameters", None)
    stretch = rotary if isinstance(rotary, dict) else {}
    original, factor = stretch.get("original_max_position_embeddings"), stretch.get("factor")
    if length is not None and original and factor:
        length = max(length, int(original * factor))
    return Context(length, is_hard=rotary is None and getattr(text, "rope_theta", None) is None)
