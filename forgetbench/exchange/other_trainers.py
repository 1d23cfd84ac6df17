"""What another trainer's checkpoint changed of its base: tensors by live name, and nothing but tensors."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoTokenizer

from forgetbench.config import Dtype, ModelConfig, Quantisation, Weights
from forgetbench.core.errors import UserError, reading
from forgetbench.core.json_files import AGAIN
from forgetbench.core.limits import limited
from forgetbench.core.nested import differing_keys
from forgetbench.core.records import PARTS
from forgetbench.exchange.adapter import TENSORS, quiet_peft
from forgetbench.exchange.adapter_settings import FILE, read_settings
from forgetbench.exchange.layouts import ExternalCheckpoint
from forgetbench.models.declared import check_finite
from forgetbench.models.load import LoadedModel, check_declared, load_model
from forgetbench.models.parts import part_of
from forgetbench.models.pretrained import from_pretrained
from forgetbench.models.tensors import fingerprint
from forgetbench.models.weight_files import CONFIG, check_settings

_NOT_ARCHITECTURE = {
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "use_cache", "pad_token_id",
    "bos_token_id", "eos_token_id", "_attn_implementation", "attn_implementation", "_attn_implementation_autoset",
    "hidden_size", "vocab_size", "tie_word_embeddings", "auto_map", "quantization_config",
}  # fmt: skip
"""Settings that trainers write without changing what the weights compute, or that tensors' shapes tell better."""


@dataclass(frozen=True)
class Changed:
    """A checkpoint beside its base."""

    delta: Mapping[str, Tensor]
    """fp32 values of every tensor that differs in a bit."""
    trained: frozenset[str]
    """Those of them that differ by more than the rounding of the base to the checkpoint's type."""
    added: Mapping[str, int]
    """Parameters of an adapter, by part; empty for full weights."""
    method: str


def changed(loaded: LoadedModel, config: ModelConfig, seed: int, checkpoint: ExternalCheckpoint) -> Changed:
    """Compare a checkpoint with its base, both as transformers loads them.

    Args:
        loaded: the base.
        config: of the base.
        seed: of the base, if its weights are drawn.
        checkpoint: full weights, or an adapter, which is merged.

    Raises:
        UserError: more than tensors' values differs.
    """
    _check_tokens(loaded, checkpoint.path)
    if checkpoint.is_adapter:
        tuned, added, method = _merged(load_model(config, seed).model.float(), checkpoint.path)
    else:
        tuned, added, method = _full(loaded.model, config, checkpoint.path), {}, "plain"
    base = dict(loaded.model.named_parameters())
    live = dict(tuned.named_parameters())
    if wrong := sorted(base.keys() ^ live.keys()) or [name for name in base if base[name].shape != live[name].shape]:
        sizes = " and ".join(
            str(tuple(parameters[wrong[0]].shape)) if wrong[0] in parameters else "absent"
            for parameters in (base, live)
        )
        raise UserError(
            f"{checkpoint.path} has other tensors than the base {config.path}, such as {wrong[0]} ({sizes}): a resized "
            "vocabulary or another architecture. Give the base that training started from (model.path=...), with the "
            "same vocabulary."
        )
    delta = {name: live[name].detach() for name in base if not _same(live[name], base[name])}
    return Changed(delta, frozenset(name for name in delta if not _is_rounding(live[name], base[name])), added, method)


def _same(first: Tensor, second: Tensor) -> bool:
    """Equal to the bit."""
    return torch.equal(first.detach().float().view(torch.int32), second.detach().float().view(torch.int32))


def _is_rounding(tuned: Tensor, base: Tensor) -> bool:
    """Whether saving in 16 bits explains the whole difference."""
    return any(_same(tuned, base.to(kind)) for kind in (torch.bfloat16, torch.float16))


def _plain(config: ModelConfig) -> ModelConfig:
    """The same model, uncompressed fp32."""
    return replace(config, dtype=Dtype.fp32, quantisation=Quantisation.none)


def _full(base: Any, config: ModelConfig, path: Path) -> Any:
    """The model of a checkpoint with full weights."""
    described = replace(
        _plain(config), path=str(path), revision=None, weights=Weights.pretrained, trust_remote_code=False
    )
    if not (path / CONFIG).is_file():
        raise UserError(f"{path} has no {CONFIG}, so what its weights are of is not known; copy the whole folder.")
    check_declared(described)
    model, loading_info = from_pretrained(
        AutoModelForImageTextToText,
        described,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # told below, by live name
        output_loading_info=True,
    )
    kinds = base.config.model_type, model.config.model_type
    if kinds[0] != kinds[1]:
        raise UserError(f"{path} is a {kinds[1]} model, and the base {config.path} a {kinds[0]}; give its own base.")
    sizes = [f"{key[0]} {tuple(key[1])} for {tuple(key[2])}" for key in loading_info["mismatched_keys"]]
    lacking = [*sizes, *sorted(loading_info["missing_keys"]), *sorted(loading_info["unexpected_keys"])]
    if lacking:
        raise UserError(f"{path}: its weights do not fit its own config.json, such as {lacking[0]}; save it again.")
    check_finite(model, str(path))
    others = sorted(differing_keys(base.config.to_dict(), model.config.to_dict(), ignored=_NOT_ARCHITECTURE))
    if others:
        raise UserError(
            f"{path}: its config.json differs from that of the base {config.path} in {', '.join(others[:5])}, so "
            "the same weights would compute something else. Give a base with these settings (model.path=...)."
        )
    return model


def _merged(model: Any, path: Path) -> tuple[Any, dict[str, int], str]:
    """A base with an adapter merged into it, the adapter's parameters by part, and its kind."""
    from peft import PeftModel
    from safetensors.torch import load_file

    settings = read_settings(path)
    if settings.config.is_prompt_learning:
        raise UserError(
            f"{path}: a {settings.kind} adapter changes the prompt and not the weights, so it cannot be merged."
        )
    known, tied = set(map(id, model.parameters())), _tied(model)
    with reading(path / TENSORS, AGAIN):
        stored = _fingerprints(load_file(path / TENSORS))
    _check_patterns(model, settings.config, path)
    try:
        with quiet_peft():
            tuned = PeftModel.from_pretrained(model, str(path), config=settings.config, local_files_only=True)
    except Exception as error:  # peft and torch raise many classes on tensors or settings that do not fit
        raise _mismatch_error(path, " ".join(str(error).split("\n\t")[:2])) from error
    check_finite(tuned, str(path))
    _check_untied(tuned, tied, path)
    # peft writes the embeddings along where they or the head are adapted, though they are as in the base.
    least, most = (_fingerprints(_state_of(tuned, with_embeddings)) for with_embeddings in (False, True))
    if not least <= stored <= most:
        raise _mismatch_error(path, "some of its tensors have no place in the model, or the other way round")
    added = dict.fromkeys(PARTS, 0)
    for name, parameter in tuned.named_parameters():
        if id(parameter) not in known:
            added[part_of(name.removeprefix("base_model.model."))] += parameter.numel()
    kind = "dora" if getattr(settings.config, "use_dora", False) else settings.kind
    return tuned.merge_and_unload(), added, kind


def _check_patterns(model: nn.Module, config: Any, path: Path) -> None:
    """Refuse a pattern of modules that is none, or that takes for ever to look for.

    Raises:
        UserError: names the key.
    """
    for key in ("target_modules", "exclude_modules"):
        pattern = getattr(config, key, None)
        if isinstance(pattern, str):
            with reading(f"{path / FILE}: {key}", AGAIN), limited():
                compiled = re.compile(pattern)
                for name, _ in model.named_modules():
                    compiled.fullmatch(name)


def _state_of(tuned: Any, with_embeddings: bool) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    state: dict[str, Tensor] = get_peft_model_state_dict(tuned, save_embedding_layers=with_embeddings)
    return state


def _fingerprints(tensors: Mapping[str, Tensor]) -> set[bytes]:
    return {fingerprint(value.float()) for value in tensors.values()}


def _tied(model: nn.Module) -> set[int]:
    """Ids of the parameters that two modules hold, such as those of embeddings that are the head, too."""
    every = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return {identity for identity, count in every.items() if count > 1}


def _check_untied(tuned: nn.Module, tied: Collection[int], path: Path) -> None:
    """Refuse what trained one of two modules that share a tensor: merged, it would change the other one as well.

    Raises:
        UserError: names the module.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, module in tuned.named_modules():
        if isinstance(module, BaseTunerLayer):
            inner = module.get_base_layer()
        elif isinstance(module, AuxiliaryTrainingWrapper):
            inner = module.original_module
        else:
            continue
        if any(id(parameter) in tied for parameter in inner.parameters()):
            raise UserError(
                f"{path}: the adapter trained {name.removeprefix('base_model.model.')}, but head and embeddings of the "
                "base are one tied tensor, so it cannot be merged without changing both. Train without lm_head and "
                "embed_tokens among the adapter's modules."
            )


def _mismatch_error(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path}: the adapter does not fit the base ({reason}). Is model.path the model that it was trained on? If its "
        "names are those of an older transformers, merge it there (merge_and_unload, save_pretrained) and import that."
    )


def _check_tokens(loaded: LoadedModel, path: Path) -> None:
    """Refuse a checkpoint whose tokenizer gives other tokens than its base's."""
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return
    check_settings(path)
    with reading(f"{path}: its tokenizer", AGAIN):
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    if _tokens(tokenizer) != _tokens(loaded.processor.tokenizer):
        raise UserError(
            f"{path}: its tokenizer is not that of the base {loaded.name} (added tokens, another vocabulary). Give a "
            "base with the same tokenizer (model.path=...)."
        )


def remarks(loaded: LoadedModel, config: ModelConfig, checkpoint: ExternalCheckpoint) -> list[str]:
    """What is no reason to refuse a checkpoint, but may not be meant: another base's name, another chat template."""
    texts = []
    if checkpoint.is_adapter:
        settings = read_settings(checkpoint.path)
        if settings.left_out:
            left_out = ", ".join(f"{key}={value}" for key, value in sorted(settings.left_out.items()))
            texts.append(
                f"its adapter_config.json has keys that the installed peft does not know and that are left out "
                f"({left_out}); if they change what the adapter computes, import it with a later peft."
            )
        named = str(settings.config.base_model_name_or_path or config.path)
        if Path(named).name.lower() != Path(config.path).name.lower():
            texts.append(f"its adapter names {named} as its base, not {config.path}.")
    template = checkpoint.path / "chat_template.jinja"
    ours = loaded.processor.chat_template or getattr(loaded.processor.tokenizer, "chat_template", None)
    if template.is_file() and template.read_text("utf-8").strip() != str(ours).strip():
        texts.append(
            f"its chat template is not the base's, which prompts are made with; model.chat_template={template}"
        )
    return texts


def _tokens(tokenizer: Any) -> dict[str, Any]:
    """What turns text into tokens; how batches are padded and cut is left out."""
    described: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return {key: value for key, value in described.items() if key not in ("padding", "truncation")}
