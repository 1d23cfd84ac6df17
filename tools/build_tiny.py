"""Make the folder of the embedded base model without weights: configuration, tokenizer, processor, chat template.

    python -m tools.build_tiny            writes forgetbench/embedded/tiny; then `make base-model` trains the weights

A small LLaVA: CLIP vision tower over 32x32 pictures (16 patches of 8x8), two-layer projector, Llama decoder, and a
byte-level BPE tokenizer trained on the embedded world's training text, which has no unknown token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from forgetbench.core.paths import EMBEDDED
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.sources import load_samples

FOLDER = EMBEDDED / "tiny"
VOCABULARY = 1536
PATCH = 8
PAD, END, IMAGE = "<pad>", "</s>", "<image>"
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %} {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'user' %} ASSISTANT:{% else %}</s>{% endif %}"
    "{% endfor %}"
)


def training_text() -> Iterator[str]:
    """The base model's training data as the template would render it, repeated as it occurs."""
    catalogue = Catalogue()
    for leaf in catalogue.leaves("world"):
        for sample in load_samples(leaf.manifest, leaf.split):
            yield f"USER: <image>\n{sample.prompt} ASSISTANT: {sample.answer}"


def byte_level(
    text: Iterable[str], split: PreTokenizer, specials: Sequence[str], vocabulary: int, **kwargs: object
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, with which any text can be written.

    Args:
        text: what it learns from.
        split: cuts text into the units that are merged in.
        specials: special tokens, in the order of their ids.
        vocabulary: tokens in all.
        kwargs: which special token is the padding, the end, and so on.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **kwargs)


def small_llava(
    tokenizer: PreTrainedTokenizerFast, side: int, vision: dict[str, Any], text: dict[str, Any]
) -> tuple[LlavaConfig, LlavaProcessor]:
    """The configuration and processor of a LLaVA over square pictures in patches of 8x8.

    Args:
        tokenizer: has the image token.
        side: pixels along a picture's edge.
        vision: sizes of the CLIP tower.
        text: sizes of the Llama decoder.
    """
    pixels = CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor = LlavaProcessor(
        image_processor=pixels,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision, image_size=side, patch_size=PATCH),
        text_config=LlamaConfig(
            **{
                "vocab_size": len(tokenizer),
                "tie_word_embeddings": True,
                "pad_token_id": tokenizer.pad_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "bos_token_id": None,
                **text,
            }
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(side // PATCH) ** 2,
        tie_word_embeddings=True,
    )
    return config, processor


def main() -> None:
    """Write the folder."""
    # List markers and words are units before merging, so that each of the world's words is one token.
    unit = Regex(r"\n[A-Z]\.| ?\(?[A-Z][,.)]+| ?\w+(?:-\w+)*| ?[^\w\s]+|\s")
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(unit, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    named = {"pad_token": PAD, "eos_token": END, "extra_special_tokens": {"image_token": IMAGE}}
    tokenizer = byte_level(training_text(), split, (PAD, END, IMAGE), VOCABULARY, **named)
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": 128,
    }
    text = {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "max_position_embeddings": 512,
        "initializer_range": 0.06,  # about 1 / sqrt(hidden_size); the usual 0.02 is for models ten times as wide
    }
    config, processor = small_llava(tokenizer, 32, vision, text)
    processor.save_pretrained(FOLDER)
    config.save_pretrained(FOLDER)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id).save_pretrained(FOLDER)
    print(f"{FOLDER}: vocabulary {len(tokenizer)}")


if __name__ == "__main__":
    main()
