"""The configurations of the shipped checkpoints as their publishers wrote them, as far as sizes go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 336,
    "projection_dim": 768,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
    "vision_use_head": False,
}
SMALL_SIGLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}
NAVIT = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
}


def text(
    hidden: int, inner: int, layers: int, heads: int, pairs: int, vocabulary: int, tied: bool, **more: Any
) -> dict[str, Any]:
    """A decoder, in the words that all of them share."""
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": pairs,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        **more,
    }


def onevision(decoder: dict[str, Any]) -> Any:
    """LLaVA-OneVision, whose tower leaves its last layer out."""
    return transformers.LlavaOnevisionConfig(
        vision_config={**SIGLIP, "num_hidden_layers": 26, "image_size": 384},
        text_config={"model_type": "qwen2", **decoder},
        tie_word_embeddings=decoder["tie_word_embeddings"],
    )


def qwen2_vl() -> Any:
    """Qwen2-VL, whose tower's hidden_size is that of the decoder."""
    return transformers.Qwen2VLConfig(
        vision_config={
            "depth": 32,
            "embed_dim": 1280,
            "hidden_size": 1536,
            "num_heads": 16,
            "mlp_ratio": 4,
            "patch_size": 14,
        },
        text_config=text(1536, 8960, 28, 12, 2, 151936, True),
        tie_word_embeddings=True,
    )


def qwen2_5_vl(decoder: dict[str, Any]) -> Any:
    """Qwen2.5-VL."""
    return transformers.Qwen2_5_VLConfig(
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": decoder["hidden_size"],
            "patch_size": 14,
        },
        text_config=decoder,
        tie_word_embeddings=decoder["tie_word_embeddings"],
    )


def qwen3_vl(decoder: dict[str, Any]) -> Any:
    """Qwen3-VL, with three mergers of DeepStack."""
    return transformers.Qwen3VLConfig(
        vision_config={
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": decoder["hidden_size"],
            "patch_size": 16,
            "deepstack_visual_indexes": [5, 11, 17],
            "num_position_embeddings": 2304,
        },
        text_config={"head_dim": 128, **decoder},
        tie_word_embeddings=True,
    )


def internvl() -> Any:
    """InternVL3, whose tower is InternViT."""
    return transformers.InternVLConfig(
        vision_config={
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": [448, 448],
            "patch_size": [14, 14],
            "attention_bias": True,
            "use_qk_norm": False,
            "norm_type": "layer_norm",
        },
        text_config={"model_type": "qwen2", **text(896, 4864, 24, 14, 2, 151674, False)},
        tie_word_embeddings=False,
    )


def minicpm() -> Any:
    """MiniCPM-V 4.6, whose decoder alternates linear and full attention."""
    return transformers.MiniCPMV4_6Config(
        vision_config={**NAVIT, "image_size": 980},
        text_config={
            "model_type": "qwen3_5_text",
            **text(1024, 3584, 24, 8, 2, 248094, True, head_dim=256),
            **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 16),
            **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 128),
        },
        tie_word_embeddings=True,
    )


def smol(kind: Any, decoder: dict[str, Any]) -> Any:
    """SmolVLM, by either name; its head is a tensor of its own."""
    return kind(
        vision_config=SMALL_SIGLIP,
        text_config={"model_type": "llama", "head_dim": 64, **decoder},
        scale_factor=4,
        tie_word_embeddings=False,
    )


CONFIGS: dict[str, Callable[[], Any]] = {
    "llava-hf/llava-1.5-7b-hf": lambda: transformers.LlavaConfig(
        vision_config=CLIP, text_config={"model_type": "llama", **text(4096, 11008, 32, 32, 32, 32064, False)}
    ),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": lambda: onevision(text(896, 4864, 24, 14, 2, 152000, True)),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": lambda: onevision(text(3584, 18944, 28, 28, 4, 152128, False)),
    "Qwen/Qwen2-VL-2B-Instruct": qwen2_vl,
    "Qwen/Qwen2.5-VL-3B-Instruct": lambda: qwen2_5_vl(text(2048, 11008, 36, 16, 2, 151936, True)),
    "Qwen/Qwen2.5-VL-7B-Instruct": lambda: qwen2_5_vl(text(3584, 18944, 28, 28, 4, 152064, False)),
    "Qwen/Qwen3-VL-2B-Instruct": lambda: qwen3_vl(text(2048, 6144, 28, 16, 8, 151936, True)),
    "Qwen/Qwen3-VL-4B-Instruct": lambda: qwen3_vl(text(2560, 9728, 36, 32, 8, 151936, True)),
    "OpenGVLab/InternVL3-1B-hf": internvl,
    "HuggingFaceTB/SmolVLM-256M-Instruct": lambda: smol(
        transformers.Idefics3Config, text(576, 1536, 30, 9, 3, 49280, False)
    ),
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": lambda: smol(
        transformers.SmolVLMConfig, text(960, 2560, 32, 15, 5, 49280, False)
    ),
    "HuggingFaceM4/Idefics3-8B-Llama3": lambda: transformers.Idefics3Config(
        vision_config={**NAVIT, "image_size": 364},
        text_config={"model_type": "llama", **text(4096, 14336, 32, 32, 8, 128259, False)},
        scale_factor=2,
        tie_word_embeddings=False,
    ),
    "google/paligemma2-3b-mix-224": lambda: transformers.PaliGemmaConfig(
        vision_config={**SIGLIP, "image_size": 224, "projection_dim": 2304},
        text_config={"model_type": "gemma2", **text(2304, 9216, 26, 8, 4, 257216, True, head_dim=256)},
        projection_dim=2304,
        hidden_size=2304,
    ),
    "google/gemma-3-4b-it": lambda: transformers.Gemma3Config(
        vision_config={**SIGLIP, "image_size": 896},
        text_config=text(2560, 10240, 34, 8, 4, 262208, True, head_dim=256),
        mm_tokens_per_image=256,
    ),
    "openbmb/MiniCPM-V-4.6": minicpm,
}
