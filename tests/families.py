"""Tiny checkpoints of real architectures, randomly initialised and saved as their publishers save them.

Each builder writes weights, configuration, tokenizer, chat template and processor into a folder that
`forgetbench.models.load.load_model` reads; pictures take few tokens, so a forward pass takes milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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


def llava(folder: Path) -> Path:
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
    return save(folder, config, transformers.LlavaForConditionalGeneration, processor, tok)


def idefics3(folder: Path) -> Path:
    """SmolVLM-256M's type: a picture becomes a varying number of tiles, 4 tokens each."""
    rows = tuple(f"<row_{row}_col_{col}>" for row in range(1, 4) for col in range(1, 4))
    names = (
        "<|im_start|>",
        "<end_of_utterance>",
        "<fake_token_around_image>",
        "<image>",
        "<global-img>",
        *rows,
    )
    tok = tokenizer(
        (*SPECIALS, *names),
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
    pixels = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 16}, do_image_splitting=True
    )
    processor = transformers.Idefics3Processor(
        image_processor=pixels, tokenizer=tok, image_seq_len=4, chat_template=END_OF_UTTERANCE
    )
    config = transformers.Idefics3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 16,
            "patch_size": 4,
        },
        text_config=transformers.LlamaConfig(**text_sizes(tok)),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tok.pad_token_id,
        tie_word_embeddings=False,
    )
    return save(folder, config, transformers.Idefics3ForConditionalGeneration, processor, tok)


def qwen2_5_vl(folder: Path) -> Path:
    """Pictures at their own resolution, 3-D positions, windowed vision, a processor with a video half."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    vision = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tok = tokenizer((*names, *vision), "<|endoftext|>", "<|im_end|>")
    pixels = transformers.Qwen2VLImageProcessorPil(
        patch_size=4, temporal_patch_size=2, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    tok.chat_template = CHATML
    config = transformers.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 32,
        },
        text_config=text_sizes(
            tok,
            rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            tie_word_embeddings=True,
        ),
        image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tok.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tok.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tok.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    save(folder, config, transformers.Qwen2_5_VLForConditionalGeneration, tok, tok)
    # The processor itself needs torchvision, so its file is written as the Hub has it.
    described = {**pixels.to_dict(), "processor_class": "Qwen2_5_VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(described, default=str))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHATML}))
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
    "llava": llava,
    "idefics3": idefics3,
    "qwen2_5_vl": qwen2_5_vl,
    "paligemma": paligemma,
    "gemma3": gemma3,
}
