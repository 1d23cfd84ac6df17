"""Tell the modules of a part apart by the names that families of transformers 5.23 give their parameters.

| module      | what it is called                                                                                  |
|---|---|
| attention   | self_attn, attn, attention (qkv in one tensor, too), linear_attn, cross_attn; with biases          |
| mlp_gate_up | gate_proj, up_proj, both in gate_up_proj; the first layer of a block without a gate (fc1); w1, w3  |
| mlp_down    | down_proj, fc2, w2; experts of a mixture as the block of a single one                              |
| norms       | every normalisation, also that of queries and keys inside of attention                             |
| embeddings  | tokens; of pictures, patches, their places and class tokens                                        |
| head        | lm_head, unless it is the embeddings' tensor                                                       |
| mlp         | of a projector, its linear layers, however many                                                    |
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
    """The number of the layer that a live name is in, counted from 0 in its stack; None if it is in none."""
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def stack_of(name: str) -> str | None:
    """The name of the stack that a live name's layer is in; None if it is in none."""
    match = _LAYER.search(name)
    return name[: match.start(1)] if match else None


@cache
def module_of(name: str, part: str) -> str | None:
    """The module of its part that a live parameter name belongs to; None if the name is not known.

    Args:
        name: of a parameter, or of an adapter's.
        part: that it belongs to.
    """
    if part == "projector":
        return _of_projector(name)
    if name.startswith("lm_head."):
        return "head"
    if match := _LAYER.search(name):
        return _in_layer(name[match.end() :])
    within = _PREFIX.sub("", name)
    return _language(within) if part == "language" else _vision(within)


def _in_layer(within: str) -> str | None:
    """Of a name behind the layer's number."""
    if _NORM.search(within):
        return "norms"
    kinds = {"other": _OTHER_IN_LAYER, "attention": _ATTENTION, "mlp_gate_up": _GATE_UP, "mlp_down": _DOWN}
    return next((module for module, pattern in kinds.items() if pattern.search(within)), None)


def _language(within: str) -> str | None:
    if _NORM.search(within):
        return "norms"
    return "embeddings" if within.startswith("embed_tokens.") else None


def _vision(within: str) -> str | None:
    within = within.removeprefix("encoder.")
    if within.startswith("head."):
        return "other"
    if _NORM.search(within):
        return "norms"
    return "embeddings" if _VISION_EMBEDDINGS.match(within) else None


def _of_projector(name: str) -> str:
    if _PROJECTOR_OTHER.search(name):
        return "other"
    if _NORM.search(name):
        return "norms"
    return "attention" if _ATTENTION.search(name) else "mlp"
