"""Tiny classification sets in the layouts they are published in, and a tiny random CLIP."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
FLOWERS = ("rose", "tulip", "daisy", "lily", "iris", "poppy", "lotus", "orchid", "peony", "aster", "violet", "thistle")


def tiny_clip(folder: Path) -> Path:
    """CLIP with random weights, a tokenizer of single letters and pictures of 16 x 16, saved as its publisher saves."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({word: index for index, word in enumerate(words)}, [], model_max_length=77)
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**SIZES, "vocab_size": len(words), "max_position_embeddings": 77, **ends},
        vision_config={**SIZES, "image_size": 16, "patch_size": 8},
        projection_dim=16,
        initializer_factor=20.0,  # wide enough that pictures and names differ
    )
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def tiny_siglip(folder: Path) -> SiglipModel:
    """SigLIP with random weights, saved with its processor; returns the model."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = Tokenizer(models.BPE({word: index for index, word in enumerate([*letters, "<pad>"])}, []))
    vocabulary.pre_tokenizer = pre_tokenizers.ByteLevel()
    names = ["input_ids"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=vocabulary, pad_token="<pad>", model_max_length=32, model_input_names=names
    )
    torch.manual_seed(0)
    text = {**SIZES, "vocab_size": len(letters) + 1, "max_position_embeddings": 32, "pad_token_id": len(letters)}
    config = SiglipConfig(text_config=text, vision_config={**SIZES, "image_size": 16, "patch_size": 8})
    model = SiglipModel(config).eval()
    model.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def picture(key: str) -> bytes:
    """A PNG of random blocks; the same for the same key."""
    draw = random.Random(key)
    held = io.BytesIO()
    Image.frombytes("RGB", (4, 4), draw.randbytes(48)).resize((20, 18), Image.Resampling.NEAREST).save(held, "PNG")
    return held.getvalue()


def put(path: Path) -> None:
    """Write a picture; its place decides what it shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture("/".join(path.parts[-3:])))


def flowers(folder: Path, each: int = 4) -> Path:
    """Flowers102's pictures in one folder, listed as VLMClassifier does, by paths of another machine."""
    lines = []
    for number in range(each * len(FLOWERS)):
        name = f"image_{number + 1:05}.jpg"
        put(folder / "jpg" / name)
        split = "train" if number % 2 else "test"
        label = FLOWERS[number // each]
        lines.append(json.dumps({"image": f"./data/Flowers102/jpg/{name}", "label": label, "split": split}))
    (folder / "flowers.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def table(path: Path, labels: list[int], names: list[str] | None = None) -> None:
    """A table as the Hub writes it: pictures as a struct, the classes' names in the schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = [
        {"image": {"bytes": picture(f"{path.name} {row}"), "path": f"{row}.jpg"}, "label": label}
        for row, label in enumerate(labels)
    ]
    made = pa.Table.from_pylist(rows)
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(made, path, row_group_size=2)
