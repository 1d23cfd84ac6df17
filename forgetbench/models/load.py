"""Load any model with AutoModelForImageTextToText and AutoProcessor, in the configured dtype."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights
from transformers import AutoModelForImageTextToText

from forgetbench.config import Dtype, ModelConfig, Quantisation, Weights
from forgetbench.core.errors import UserError, reading
from forgetbench.core.json_files import AGAIN
from forgetbench.models.declared import check_against_weights, check_finite
from forgetbench.models.parts import linear_layers
from forgetbench.models.precision import resolve_attention
from forgetbench.models.pretrained import (
    base_file,
    check_base_weights,
    from_pretrained,
    load_config,
    load_processor,
)
from forgetbench.models.processor_check import check_pictures, check_tokens
from forgetbench.models.tensors import tensor_bytes
from forgetbench.models.weight_files import CONFIG

if not sys.stderr.isatty():
    transformers.utils.logging.disable_progress_bar()  # not useful in a log file

_REUSES_PREFIX = {
    *("llava", "llava_onevision", "idefics3", "smolvlm", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl"),
    *("paligemma", "gemma3"),
}
_WIDTHS = {Dtype.fp32: torch.float32, Dtype.bf16: torch.bfloat16}
_GENERATION_SETTINGS = (
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "bad_words_ids"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "sequence_bias"),
    *("min_length", "min_new_tokens", "guidance_scale", "exponential_decay_length_penalty", "watermarking_config"),
)
"""Settings of a generation_config.json that change greedy decoding; earlier versions applied them."""
_INCIDENTAL = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures"}


@dataclass(frozen=True)
class LoadedModel:
    """A model with its processor, and the digest of everything that its outputs depend on."""

    model: Any
    """A PreTrainedModel in evaluation mode; its weights have the dtype `model.dtype`, or are packed."""
    processor: Any
    name: str
    digest: str
    """sha256 over the weights, the configuration and the processor."""
    inputs_digest: str
    """sha256 over tokenizer, template and image processor, which turn prompts and pictures into inputs."""
    reuses_prefix: bool
    """Several answers may reuse the cached prefix of picture and question (tested for its family)."""
    keeps_logits: bool
    """Its forward takes `logits_to_keep`, so that logits are computed for answer positions only."""


def load_model(config: ModelConfig, seed: int = 0) -> LoadedModel:
    """Load a model and its processor.

    Args:
        config: the model's path and settings.
        seed: for `weights: random`.

    Raises:
        UserError: the path holds no such model, the Hub cannot be reached, or a required package is not installed.
    """
    config = resolve_attention(config)
    processor = load_processor(config)
    settings, source = load_config(config), f"model.path={config.path}"
    check_tokens(processor, settings, source)
    inputs = _input_settings(processor, config)
    check_pictures(processor, settings, source)
    if config.weights is Weights.random:
        torch.manual_seed(seed)
        with _config_errors(config):
            model = AutoModelForImageTextToText.from_config(
                settings, attn_implementation=config.attention, dtype=torch.float32
            )
        for parameter in model.parameters():  # drawn in fp32, so that every dtype rounds the same numbers
            parameter.data = parameter.data.to(_WIDTHS[config.dtype])
    else:
        model = _load_pretrained(config)
    model.eval()
    return LoadedModel(
        model=model,
        processor=processor,
        name=config.name,
        digest=_digest(model, config, inputs),
        inputs_digest=_sha256(inputs),
        reuses_prefix=model.config.model_type in _REUSES_PREFIX,
        keeps_logits="logits_to_keep" in inspect.signature(model.forward).parameters,
    )


def _load_pretrained(config: ModelConfig) -> Any:
    """Load stored weights; refuse missing tensors, which transformers would initialise at random with a warning."""
    check_base_weights(config)
    check_declared(config)
    model, loading_info = from_pretrained(
        AutoModelForImageTextToText,
        config,
        attn_implementation=config.attention,
        dtype=_WIDTHS[config.dtype],
        output_loading_info=True,
        use_safetensors=True,  # loading a pickle would run its code
        **(_nf4_settings(config) if config.quantisation is Quantisation.nf4 else {}),
    )
    missing = sorted({*loading_info["missing_keys"], *(str(key) for key in loading_info["mismatched_keys"])})
    if missing:
        raise UserError(
            f"model.path={config.path} lacks weights for {len(missing)} tensors, such as {missing[0]}; "
            "is it the checkpoint of another architecture?"
        )
    if unexpected := sorted(loading_info["unexpected_keys"]):
        print(
            f"model.path={config.path} has {len(unexpected)} tensors that the model has no place for, such as "
            f"{unexpected[0][:80]!r}; they are left out.",
            file=sys.stderr,
        )
    check_finite(model, f"model.path={config.path}")
    _widen_buffers(model, config)
    return model


def empty_model(config: ModelConfig) -> Any:
    """Build the architecture on the meta device, without memory for weights.

    Raises:
        UserError: no model can be built from the configuration.
    """
    with _config_errors(config), torch.device("meta"):
        return AutoModelForImageTextToText.from_config(load_config(config))


def _config_errors(config: ModelConfig) -> AbstractContextManager[None]:
    """Report errors of transformers while it builds a model as errors in the configuration."""
    return reading(f"model.path={config.path}: its {CONFIG}", AGAIN)


def check_declared(config: ModelConfig) -> None:
    """Refuse a configuration that declares more parameters than the weights on this machine hold, before loading.

    Raises:
        UserError: gives both numbers.
    """
    if settings := base_file(config, CONFIG):
        check_against_weights(empty_model(config), settings.parent)


def _nf4_settings(config: ModelConfig) -> dict[str, Any]:
    """Settings to load the language model's linear layers in 4 bits (Dettmers et al. 2023, arXiv:2305.14314).

    The head is not quantised.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("model.quantisation=nf4 needs bitsandbytes: pip install 'forgetbench[bitsandbytes]'.")
    empty = empty_model(config)
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=[*linear_layers(empty, "vision"), *linear_layers(empty, "projector"), "lm_head"],
    )
    gpu = int(os.environ.get("LOCAL_RANK", "0"))
    return {"quantization_config": settings, "device_map": {"": gpu if torch.cuda.is_available() else "cpu"}}


def _widen_buffers(model: Any, config: ModelConfig) -> None:
    """Restore buffers in fp32, as in a model loaded in fp32; Gemma's embedding factor would otherwise be rounded."""
    narrow = [
        name for name, buffer in model.named_buffers() if buffer.is_floating_point() and buffer.element_size() < 4
    ]
    if not narrow:
        return
    with init_empty_weights(include_buffers=False):
        fp32_model = AutoModelForImageTextToText.from_config(load_config(config), dtype=torch.float32)
    stored = model.state_dict().keys()
    for name in narrow:
        owner, _, last = name.rpartition(".")
        value = (model if name in stored else fp32_model).get_buffer(name)
        setattr(model.get_submodule(owner), last, value.to(model.get_buffer(name).device, torch.float32))


def _digest(model: Any, config: ModelConfig, inputs: Mapping[str, Any]) -> str:
    """Digest of all that outputs depend on: weights, architecture, attention kernel, tokens, pictures, template."""
    settings = {
        "config": _without_incidental(model.config.to_dict()),
        "generation": _without_incidental(model.generation_config.to_dict()),
        # Cells of earlier versions, which applied these settings, must not match.
        **({"generation_settings": "ignored"} if _has_generation_settings(model.generation_config) else {}),
        "attention": config.attention,
        **inputs,
    }
    digest = hashlib.sha256(_sha256(settings).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        # The digest covers values only, not the dtype they are held in.
        digest.update(tensor_bytes(tensor.float() if tensor.is_floating_point() else tensor))
    return digest.hexdigest()


def _has_generation_settings(generation_config: Any) -> bool:
    """Whether a checkpoint's generation_config.json has settings that change greedy decoding."""
    return any(getattr(generation_config, name, None) for name in _GENERATION_SETTINGS)


def _input_settings(processor: Any, config: ModelConfig) -> dict[str, Any]:
    """All settings that model inputs depend on, for the digests."""
    tokenizer = processor.tokenizer
    system_prompt = {} if config.system_prompt is None else {"system_prompt": config.system_prompt}
    return system_prompt | {
        "max_pixels": config.max_pixels,
        "processor": [type(processor).__name__, _without_incidental(_value_settings(processor.to_dict()))],
        "special_tokens": _value_settings(tokenizer.special_tokens_map),
        "image_processor": [
            type(processor.image_processor).__name__,
            _without_incidental(processor.image_processor.to_dict()),
        ],
        "template": processor.chat_template or getattr(tokenizer, "chat_template", None),
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
    }


def _value_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are plain values; a processor also lists its components, which are digested separately."""
    kinds = (str, int, float, bool, list, type(None))
    return {key: value for key, value in settings.items() if isinstance(value, kinds)}


def _sha256(described: Any) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def _without_incidental(described: Any) -> Any:
    if isinstance(described, dict):
        return {key: _without_incidental(value) for key, value in described.items() if key not in _INCIDENTAL}
    return described
