"""Write tensors under the names of the publishers' files, which other programs and older versions know.

In memory transformers 5 has names of its own: `model.vision_tower.encoder` is `vision_tower.vision_model.encoder` on
disk. Its `save_pretrained` undoes the renamings that took place when the model was loaded. A model that was drawn at
random, or whose file already had the names of transformers 5, is thus not written as published: the level
`vision_model` of CLIP's and SigLIP's towers is lost, and vLLM and transformers 4 find no vision tower. Here every
renaming that transformers knows for the family is undone, used or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange

_FAMILIES = frozenset(
    {
        *("llava", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "smolvlm"),
        *("paligemma", "gemma3", "minicpmv4_6", "minicpmv4_7"),
    }
)
"""Families whose publishers' names were compared with what is written; others keep the names that they came with."""
_LEVEL = "vision_model"
"""Between a tower and its layers on disk, and nowhere in memory."""


def save_as_published(model: Any, to: Path) -> None:
    """Write a model's weights, configuration and generation settings.

    Args:
        model: a PreTrainedModel.
        to: the folder.
    """
    if model.config.model_type in _FAMILIES:
        model._weight_conversions = list(_renamings(model))  # what save_pretrained undoes
    model.save_pretrained(to)


def with_tower_levels(model: Any, names: list[str]) -> dict[str, str]:
    """Names of an adapter's tensors, and what they are called where towers have their published level.

    peft reads both; vLLM passes over an adapter's tensor whose name is none of its model's, without a word. Modules
    that trained in full keep theirs: peft reads those as in memory only, and vLLM takes none.

    Args:
        model: the PreTrainedModel below the adapter.
        names: as peft writes them.
    """
    towers = [
        ".".join(filter(None, ("base_model.model", change.base_model_prefix, change.scope_prefix)))
        for change in _renamings(model)
        if isinstance(change, PrefixChange)
    ]
    renamed = {}
    for name in names:
        tower = next((tower for tower in towers if name.startswith(f"{tower}.") and ".lora_" in name), None)
        renamed[name] = f"{tower}.{_LEVEL}.{name.removeprefix(f'{tower}.')}" if tower else name
    return renamed


def _renamings(model: Any) -> Iterator[Any]:
    """What transformers renames when it loads a published file of this model."""
    for change in get_model_conversion_mapping(model, add_legacy=False):
        # Other prefixes tell files of the same family apart, of which publishers write one kind only.
        if not isinstance(change, PrefixChange) or change.prefix_to_remove == _LEVEL:
            yield change
