"""Make the folder of the embedded base model without weights: configuration, tokenizer, processor, chat template.

    python -m tools.build_tiny            writes forgetbench/embedded/tiny; then `make base-model` trains the weights

A small LLaVA: CLIP vision tower over 32x32 pictures (16 patches of 8x8), two-layer projector, Llama decoder, and a
byte-level BPE tokenizer trained on the embedded world's training text, which has no unknown token.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from forgetbench.data.catalogue import Catalogue
from forgetbench.data.sources import load_samples
from forgetbench.paths import EMBEDDED

FOLDER = EMBEDDED / "tiny"
VOCABULARY = 1536
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


def build_tokenizer() -> PreTrainedTokenizerFast:
    r"""Train the byte-level tokenizer; any text can be written with it.

    List markers ("\\nA.") and words are units before merging, so that each of the world's words is one token.
    """
    tokenizer = Tokenizer(models.BPE())
    unit = Regex(r"\n[A-Z]\.| ?\(?[A-Z][,.)]+| ?\w+(?:-\w+)*| ?[^\w\s]+|\s")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(unit, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, extra_special_tokens={"image_token": IMAGE}
    )


def main() -> None:
    """Write the folder."""
    tokenizer = build_tokenizer()
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    pixels = CLIPImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor = LlavaProcessor(
        image_processor=pixels,
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
            projection_dim=128,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=512,
            initializer_range=0.06,  # about 1 / sqrt(hidden_size); the usual 0.02 is for models ten times as wide
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        ),
        image_token_index=image_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=16,
        tie_word_embeddings=True,
    )
    processor.save_pretrained(FOLDER)
    config.save_pretrained(FOLDER)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id).save_pretrained(FOLDER)
    print(f"{FOLDER}: vocabulary {len(tokenizer)}")


if __name__ == "__main__":
    main()
