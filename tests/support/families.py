"""Tiny checkpoints of real architectures, randomly initialised and saved as their publishers save them.

Each builder writes weights, configuration, tokenizer, chat template and processor into a folder that
`forgetbench.models.load.load_model` reads; pictures take few tokens, so a forward pass takes milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tools.build_tiny import byte_level, small_llava

LINES = (
    "What is in this picture? Answer with the option's letter from the given choices directly.",
    "A. red\nB. green\nC. blue\nD. yellow\nE. black",
    "Is the colour red? Answer yes or no.",
    "User: Assistant: USER: ASSISTANT: user assistant system The answer is dark red, light blue.",
)
SPECIALS = ("<pad>", "<s>", "</s>")

# As SmolVLM-256M's: a first token of its own, a space after the role only before text.
END_OF_UTTERANCE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# As Qwen2.5-VL's: a system turn of its own, and a line break after the end of every turn.
CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou answer.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Qwen3-VL's: no system turn unless one is given.
CHATML_PLAIN = CHATML[: CHATML.index("{% if loop.first")] + CHATML[CHATML.index("<|im_start|>{{ message['role']") :]
# As MiniCPM-V 4.6's: a reply opens with an empty thought, asked for or written.
CHATML_THOUGHT = (
    CHATML_PLAIN.replace("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>\n")
    .replace("{% for part", "{% if message['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{% for part")
    .replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}")
)
# As InternVL3's: a line break after every picture.
CHATML_CONTEXT = CHATML_PLAIN.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")
# As LLaVA-OneVision's: all pictures first, no line break between turns, and a space after the role of a turn that the
# prompt for a reply lacks.
PICTURES_FIRST = (
    "{% for message in messages %}<|im_start|>{{ message['role'] + ' ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + part['text'] }}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Gemma 3's: the reply's role is `model`.
TURNS = (
    "<bos>{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else 'user' }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "vision_use_head": False,
}


def tokenizer(specials: tuple[str, ...], pad: str, end: str, **kwargs: object) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that can write any text."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return byte_level(LINES, split, specials, 420, pad_token=pad, eos_token=end, **kwargs)


def text_sizes(tok: PreTrainedTokenizerFast, **more: object) -> dict[str, object]:
    """Sizes of a two-layer decoder for one tokenizer."""
    return {
        "vocab_size": len(tok),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "pad_token_id": tok.pad_token_id,
        "eos_token_id": tok.eos_token_id,
        "bos_token_id": None,
        "initializer_range": 0.2,
        **more,
    }


def save(folder: Path, config: object, model_class: type, processor: object, tok: PreTrainedTokenizerFast) -> Path:
    """Initialise the model from a fixed seed and write everything."""
    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                # The usual 0.02 gives an almost constant output, on which nothing could be told apart.
                parameter.normal_(0.0, 0.15)
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def publish(
    folder: Path,
    config: object,
    model_class: type,
    tok: PreTrainedTokenizerFast,
    pixels: object,
    processor: str,
    template: str,
    **settings: object,
) -> Path:
    """Write everything of a family whose processor class needs torchvision: its files as the Hub has them."""
    tok.chat_template = None
    save(folder, config, model_class, tok, tok)
    described = {**pixels.to_dict(), "processor_class": processor}
    described["image_processor_type"] = type(pixels).__name__.removesuffix("Pil")
    (folder / "preprocessor_config.json").write_text(json.dumps(described, default=str))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": processor, **settings}))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    return folder


def llava(folder: Path, vision_feature_layer: int = -1) -> Path:
    """CLIP, two-layer projector, Llama with a tied head: 4 tokens per picture."""
    tok = tokenizer((*SPECIALS, "<image>"), "<pad>", "</s>", extra_special_tokens={"image_token": "<image>"})
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "projection_dim": 32,
    }
    config, processor = small_llava(tok, 16, vision, text_sizes(tok))
    config.vision_feature_layer = vision_feature_layer
    return save(folder, config, transformers.LlavaForConditionalGeneration, processor, tok)


def tiled_tokenizer() -> PreTrainedTokenizerFast:
    """Knows the places of tiles, as Idefics3's and SmolVLM's."""
    rows = tuple(f"<row_{row}_col_{col}>" for row in range(1, 4) for col in range(1, 4))
    names = ("<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>")
    return tokenizer(
        (*SPECIALS, *names, *rows),
        "<pad>",
        "<end_of_utterance>",
        bos_token="<|im_start|>",
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "end_of_utterance_token": "<end_of_utterance>",
            "global_image_token": "<global-img>",
        },
    )


TILES = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}, "do_image_splitting": True}


def tiled_config(config_class: type, tok: PreTrainedTokenizerFast, **sizes: object) -> object:
    """Sizes of an Idefics3 or SmolVLM: 4 tokens per tile."""
    return config_class(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 16,
            "patch_size": 4,
        },
        text_config=transformers.LlamaConfig(**text_sizes(tok, **sizes)),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tok.pad_token_id,
        tie_word_embeddings=False,
    )


def idefics3(folder: Path, **sizes: object) -> Path:
    """SmolVLM-256M's type: a picture becomes a varying number of tiles, 4 tokens each; may have other `sizes`."""
    tok = tiled_tokenizer()
    pixels = transformers.Idefics3ImageProcessorPil(**TILES)
    processor = transformers.Idefics3Processor(
        image_processor=pixels, tokenizer=tok, image_seq_len=4, chat_template=END_OF_UTTERANCE
    )
    config = tiled_config(transformers.Idefics3Config, tok, **sizes)
    return save(folder, config, transformers.Idefics3ForConditionalGeneration, processor, tok)


def smolvlm(folder: Path) -> Path:
    """SmolVLM2's type: Idefics3's tiles; its processor also counts videos' frames in words, with num2words."""
    tok = tiled_tokenizer()
    pixels = transformers.SmolVLMImageProcessorPil(**TILES)
    config = tiled_config(transformers.SmolVLMConfig, tok)
    model = transformers.SmolVLMForConditionalGeneration
    return publish(folder, config, model, tok, pixels, "SmolVLMProcessor", END_OF_UTTERANCE, image_seq_len=4)


def llava_onevision(folder: Path) -> Path:
    """One picture becomes an overview and tiles with line breaks between rows; several become overviews."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
    extra = {"image_token": "<image>", "video_token": "<video>"}
    tok = tokenizer(names, "<|endoftext|>", "<|im_end|>", extra_special_tokens=extra)
    grid = [[16, 16], [16, 32], [32, 16]]
    pixels = transformers.LlavaOnevisionImageProcessorPil(size={"height": 16, "width": 16}, image_grid_pinpoints=grid)
    config = transformers.LlavaOnevisionConfig(
        vision_config={**SIGLIP, "patch_size": 8},
        text_config={"model_type": "qwen2", **text_sizes(tok, tie_word_embeddings=True)},
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
        tie_word_embeddings=True,
    )
    settings = {"num_image_tokens": 4, "vision_feature_select_strategy": "full", "image_token": "<image>"}
    model = transformers.LlavaOnevisionForConditionalGeneration
    return publish(folder, config, model, tok, pixels, "LlavaOnevisionProcessor", PICTURES_FIRST, **settings)


def internvl(folder: Path) -> Path:
    """A picture becomes tiles and an overview, 4 tokens each, between two tokens of their own."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>")
    tok = tokenizer(
        names,
        "<|endoftext|>",
        "<|im_end|>",
        extra_special_tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    )
    pixels = transformers.GotOcr2ImageProcessorPil(
        size={"height": 16, "width": 16}, crop_to_patches=True, min_patches=1, max_patches=3
    )
    config = transformers.InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": [16, 16],
            "patch_size": [4, 4],
        },
        text_config={"model_type": "qwen2", **text_sizes(tok, tie_word_embeddings=True)},
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    model = transformers.InternVLForConditionalGeneration
    return publish(folder, config, model, tok, pixels, "InternVLProcessor", CHATML_CONTEXT, image_seq_length=4)


def minicpmv(folder: Path, version: str = "4_6") -> Path:
    """MiniCPM-V: pictures packed end to end, a decoder that alternates linear and full attention; 3-D places in 4.7."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
    marks = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    }
    tok = tokenizer((*names, *marks.values()), "<|endoftext|>", "<|im_end|>", extra_special_tokens=marks)
    pixels = transformers.MiniCPMV4_6ImageProcessorPil(scale_resolution=16, patch_size=4, max_slice_nums=4)
    places = {
        "image_start_id": "<image>",
        "image_end_id": "</image>",
        "slice_start_id": "<slice>",
        "slice_end_id": "</slice>",
        "newline_id": tok.tokenize("\n")[0],
    }
    config = getattr(transformers, f"MiniCPMV{version}Config")(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 16,
            "patch_size": 4,
        },
        insert_layer_id=0,
        text_config={
            "model_type": "qwen3_5_text",
            **text_sizes(tok, tie_word_embeddings=True),
            "head_dim": 16,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.25,
                "mrope_section": [1, 1, 0],
            },
        },
        image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tok.convert_tokens_to_ids("<|video_pad|>"),
        tie_word_embeddings=True,
        **({key: tok.convert_tokens_to_ids(token) for key, token in places.items()} if version == "4_7" else {}),
    )
    model = getattr(transformers, f"MiniCPMV{version}ForConditionalGeneration")
    return publish(folder, config, model, tok, pixels, f"MiniCPMV{version}Processor", CHATML_THOUGHT)


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Tokens of Qwen2-VL and its successors."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    vision = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    return tokenizer((*names, *vision), "<|endoftext|>", "<|im_end|>")


def qwen_pixels() -> object:
    """Pictures at their own resolution, in blocks of 8x8 pixels."""
    size = {"shortest_edge": 64, "longest_edge": 1024}
    return transformers.Qwen2VLImageProcessorPil(patch_size=4, temporal_patch_size=2, merge_size=2, size=size)


def qwen_ids(tok: PreTrainedTokenizerFast) -> dict[str, int]:
    """What configurations call the tokens of pictures."""
    tokens = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    keys = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return dict(zip(keys, tok.convert_tokens_to_ids(list(tokens)), strict=True))


QWEN_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
QWEN_VISION = {"depth": 2, "num_heads": 4, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}


def qwen2_vl(folder: Path, **sizes: object) -> Path:
    """Pictures at their own resolution, 3-D positions, a processor with a video half; may have other `sizes`."""
    tok = qwen_tokenizer()
    text = text_sizes(tok, **{"rope_parameters": QWEN_ROPE, "tie_word_embeddings": True, **sizes})
    config = transformers.Qwen2VLConfig(
        vision_config={**QWEN_VISION, "embed_dim": 32, "hidden_size": text["hidden_size"], "mlp_ratio": 2},
        text_config=text,
        tie_word_embeddings=True,
        **qwen_ids(tok),
    )
    model = transformers.Qwen2VLForConditionalGeneration
    return publish(folder, config, model, tok, qwen_pixels(), "Qwen2VLProcessor", CHATML)


def qwen3_vl(folder: Path) -> Path:
    """As Qwen2-VL, and the tower's first layer also feeds the decoder's (DeepStack)."""
    tok = qwen_tokenizer()
    config = transformers.Qwen3VLConfig(
        vision_config={
            **QWEN_VISION,
            "hidden_size": 32,
            "intermediate_size": 48,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        text_config=text_sizes(
            tok, head_dim=8, rope_parameters={**QWEN_ROPE, "mrope_interleaved": True}, tie_word_embeddings=True
        ),
        tie_word_embeddings=True,
        **qwen_ids(tok),
    )
    model = transformers.Qwen3VLForConditionalGeneration
    return publish(folder, config, model, tok, qwen_pixels(), "Qwen3VLProcessor", CHATML_PLAIN)


def qwen2_5_vl(folder: Path) -> Path:
    """As Qwen2-VL, with windowed vision."""
    tok = qwen_tokenizer()
    config = transformers.Qwen2_5_VLConfig(
        vision_config={
            **QWEN_VISION,
            "hidden_size": 32,
            "intermediate_size": 48,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 32,
        },
        text_config=text_sizes(tok, rope_parameters=QWEN_ROPE, tie_word_embeddings=True),
        tie_word_embeddings=True,
        **qwen_ids(tok),
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration
    publish(folder, config, model, tok, qwen_pixels(), "Qwen2_5_VLProcessor", CHATML)
    # As published: sampling, and a penalty that greedy decoding must not inherit.
    generation = json.loads((folder / "generation_config.json").read_text())
    generation |= {"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.5}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def paligemma(folder: Path) -> Path:
    """A prefix language model without a chat template: picture and prompt attend to each other both ways."""
    locations = tuple(f"<loc{i:04}>" for i in range(1024)) + tuple(f"<seg{i:03}>" for i in range(128))
    tok = tokenizer((*SPECIALS, "<image>"), "<pad>", "</s>", bos_token="<s>")
    tok.add_tokens(list(locations))
    pixels = transformers.SiglipImageProcessorPil(size={"height": 16, "width": 16})
    pixels.image_seq_length = 4
    processor = transformers.PaliGemmaProcessor(image_processor=pixels, tokenizer=tok)
    config = transformers.PaliGemmaConfig(
        vision_config={**SIGLIP, "patch_size": 8, "projection_dim": 32},
        # Gemma scales its embeddings up; a tied random head would only ever repeat the last token.
        text_config={"model_type": "gemma", "head_dim": 8, **text_sizes(tok, tie_word_embeddings=False)},
        tie_word_embeddings=False,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
        pad_token_id=tok.pad_token_id,
        eos_token_id=tok.eos_token_id,
        bos_token_id=tok.bos_token_id,
    )
    return save(folder, config, transformers.PaliGemmaForConditionalGeneration, processor, tok)


def gemma3(folder: Path) -> Path:
    """Pictures see themselves both ways, told by token types; alternate layers have a sliding window."""
    names = (
        "<bos>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<start_of_image>",
        "<end_of_image>",
        "<image_soft>",
    )
    tok = tokenizer(
        ("<pad>", *names),
        "<pad>",
        "<end_of_turn>",
        bos_token="<bos>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft>",
        },
    )
    pixels = transformers.Gemma3ImageProcessorPil(size={"height": 16, "width": 16})
    processor = transformers.Gemma3Processor(
        image_processor=pixels, tokenizer=tok, image_seq_length=4, chat_template=TURNS
    )
    config = transformers.Gemma3Config(
        vision_config={**SIGLIP, "patch_size": 4},
        text_config={
            **text_sizes(tok, tie_word_embeddings=False),
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        mm_tokens_per_image=4,
        image_token_index=tok.convert_tokens_to_ids("<image_soft>"),
        boi_token_index=tok.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tok.convert_tokens_to_ids("<end_of_image>"),
        tie_word_embeddings=False,
    )
    return save(folder, config, transformers.Gemma3ForConditionalGeneration, processor, tok)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "llava": partial(llava, vision_feature_layer=-2),
    "llava_onevision": llava_onevision,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "internvl": internvl,
    "paligemma": paligemma,
    "gemma3": gemma3,
    "minicpmv4_6": minicpmv,
    "minicpmv4_7": partial(minicpmv, version="4_7"),
}
MARKED = [pytest.param(name, marks=pytest.mark.slow) if name == "minicpmv4_7" else name for name in FAMILIES]
"""All of them, to parametrize with; MiniCPM-V 4.7 is 4.6 but for a few lines, and slow."""
