"""What an export has besides weights: the base's own files, so that whatever reads the base reads the export.

transformers 5 writes other files than publishers have: no preprocessor_config.json, the sizes of Qwen-VL's decoder in
a section of their own, `rope_parameters`, tokenizer classes that transformers 4 does not know. None of it trains.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from forgetbench.config import ModelConfig
from forgetbench.core.json_files import read_json
from forgetbench.models.load import LoadedModel
from forgetbench.models.pretrained import base_file
from forgetbench.models.weight_files import CONFIG, TOKENIZER

_GENERATION = "generation_config.json"
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_PROCESSOR = (
    *("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json", *_TEMPLATES),
    *(TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt"),
)
_WIDTH = ("dtype", "torch_dtype")


def copy_settings(loaded: LoadedModel, base: ModelConfig, to: Path) -> None:
    """Write configuration, generation settings, tokenizer and processor beside fp32 weights.

    Args:
        loaded: the model, whose configuration is in the folder as transformers writes it.
        base: where its files are.
        to: the folder.
    """
    if base.trust_remote_code:  # its files name others, of code
        loaded.processor.save_pretrained(to)
        return
    if source := base_file(base, CONFIG):
        described = {**_in_fp32(read_json(source)), "architectures": [type(loaded.model).__name__]}
        described.pop("auto_map", None)  # of code that was not run, and is not here
        (to / CONFIG).write_text(json.dumps(described, indent=2) + "\n", "utf-8")
    sources = {name: path for name in _PROCESSOR if (path := base_file(base, name))}
    if base.chat_template is not None or TOKENIZER not in sources:
        loaded.processor.save_pretrained(to)
        sources = {name: path for name, path in sources.items() if not (to / name).exists() and name not in _TEMPLATES}
    for name, source in sources.items():
        shutil.copyfile(source, to / name)
    if source := base_file(base, _GENERATION):
        shutil.copyfile(source, to / _GENERATION)


def _in_fp32(described: Any) -> Any:
    """A configuration whose weights, of every part, are stored in fp32."""
    if not isinstance(described, dict):
        return described
    return {key: "float32" if key in _WIDTH and entry else _in_fp32(entry) for key, entry in described.items()}
