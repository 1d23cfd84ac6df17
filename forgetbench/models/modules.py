"""Divide parts into modules, by the parameter names of the model families in transformers 5.23.

| module      | names                                                                                              |
|---|---|
| attention   | self_attn, attn, attention (qkv in one tensor, too), linear_attn, cross_attn; with biases          |
| mlp_gate_up | gate_proj, up_proj, both in gate_up_proj; the first layer of a block without a gate (fc1); w1, w3  |
| mlp_down    | down_proj, fc2, w2; experts of a mixture as the block of a single one                              |
| norms       | every normalisation, also that of queries and keys inside of attention                             |
| embeddings  | tokens; of pictures, patches, their places and class tokens                                        |
| head        | lm_head, unless it is the embeddings' tensor                                                       |
| mlp         | all linear layers of a projector                                                                   |
| other       | routers, scales and gates of branches, short convolutions, a pooling head, line breaks of pictures |
"""

from __future__ import annotations

import re
from functools import cache

_LAYER = re.compile(r"\.(?:layers?|blocks)\.(\d+)\.")
_ENDS = r"(?:\.|_bias$|_blocks$|_scales$|$)"
_NORM = re.compile(r"(?:^|\.)(?:\w*norm\w*|ln_\w+|layrnorm)\.(?:weight|bias)$|(?:^|\.)\w*layrnorm\.")
_ATTENTION = re.compile(r"(?:^|\.)(?:self_attn|attn|attention|linear_attn|cross_attn|cross_attention)\.")
_MLP = r"^(?:mlp|feed_forward|ffn|block_sparse_moe|moe)\.(?:(?:experts|shared_experts?|shared_mlp)\.(?:\d+\.)?)?"
_GATE_UP = re.compile(_MLP + r"(?:gate_proj|up_proj|gate_up_proj|fc1|linear_fc1|linear_1|w1|w3|weights_in)" + _ENDS)
_DOWN = re.compile(_MLP + r"(?:down_proj|fc2|linear_fc2|linear_2|w2|weights_out)" + _ENDS)
_OTHER_IN_LAYER = re.compile(
    r"^(?:mlp|feed_forward|ffn|block_sparse_moe|moe)\.(?:gate|router|shared_expert_gate)\."
    r"|^(?:lambda_\d|gate_attn|gate_ffn|cross_attn_attn_gate|cross_attn_mlp_gate)$|^(?:layer_scale|ls)\w*\.|^conv\."
)
_VISION_EMBEDDINGS = re.compile(
    r"^(?:\w*embeddings?|\w*pos_embed|patch_embed|patch_conv|class_embedding|cls_token)(?:\.|$)"
)
_PREFIX = re.compile(r"^(?:model\.)?(?:language_model|text_model|vision_tower|vision_model|visual)\.")
_PROJECTOR_OTHER = re.compile(r"(?:^|\.)(?:image_newline|latents)$")


def layer_of(name: str) -> int | None:
    """Index, in its stack, of the layer that a parameter belongs to; None if it belongs to no layer."""
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def stack_of(name: str) -> str | None:
    """Name of the stack of layers that a parameter belongs to; None if it belongs to no layer."""
    match = _LAYER.search(name)
    return name[: match.start(1)] if match else None


@cache
def module_of(name: str, part: str) -> str | None:
    """The module that a parameter belongs to, by its name in the loaded model; None if the name is not known.

    Args:
        name: name of a parameter, or of an adapter's parameter.
        part: the part that it belongs to.
    """
    if part == "projector":
        return _projector_module(name)
    if name.startswith("lm_head."):
        return "head"
    if match := _LAYER.search(name):
        return _module_in_layer(name[match.end() :])
    within = _PREFIX.sub("", name)
    return _language_module(within) if part == "language" else _vision_module(within)


def _module_in_layer(within: str) -> str | None:
    """The module of a parameter in a layer, by the rest of its name after the layer's number."""
    if _NORM.search(within):
        return "norms"
    kinds = {"other": _OTHER_IN_LAYER, "attention": _ATTENTION, "mlp_gate_up": _GATE_UP, "mlp_down": _DOWN}
    return next((module for module, pattern in kinds.items() if pattern.search(within)), None)


def _language_module(within: str) -> str | None:
    if _NORM.search(within):
        return "norms"
    return "embeddings" if within.startswith("embed_tokens.") else None


def _vision_module(within: str) -> str | None:
    within = within.removeprefix("encoder.")
    if within.startswith("head."):
        return "other"
    if _NORM.search(within):
        return "norms"
    return "embeddings" if _VISION_EMBEDDINGS.match(within) else None


def _projector_module(name: str) -> str:
    if _PROJECTOR_OTHER.search(name):
        return "other"
    if _NORM.search(name):
        return "norms"
    return "attention" if _ATTENTION.search(name) else "mlp"
