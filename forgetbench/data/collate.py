"""Turn samples into model inputs, one by one, and pad them into batches.

Every sample is processed alone, so what a batch contains can never change an item's tokens or pixels.

Shapes: B items, T prompt tokens, A answer tokens.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from cachetools import LRUCache
from torch import Tensor

from forgetbench.core.records import ImageRef, Sample
from forgetbench.data.pictures import decode_image

IGNORED = -100
PIXELS = ("pixel_values", "pixel_attention_mask")
"""Picture tensors that only a vision tower reads; by far the largest."""


@dataclass(frozen=True)
class Encoded:
    """One prompt, ready for a model."""

    tokens: dict[str, Tensor]
    """Per-token inputs, each (T,): input_ids, attention_mask, token types."""
    pictures: dict[str, Tensor]
    """The processor's picture tensors, as they came."""
    answer_type: int = 0
    """Token type of what follows the prompt."""

    @property
    def length(self) -> int:
        """Prompt tokens, picture tokens included."""
        return len(self.tokens["input_ids"])


class Encoder:
    """Renders prompts through a processor's chat template and remembers what it encoded."""

    def __init__(self, processor: Any, max_pixels: int | None = None, cache_bytes: int = 1 << 30) -> None:
        """Wrap a processor.

        Args:
            processor: any ProcessorMixin with a tokenizer and an image processor.
            max_pixels: shrink larger pictures first, and keep the image processor from enlarging them beyond it.
            cache_bytes: memory for encoded prompts, the least recently used dropped first; the last one stays.
        """
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.pad_id = next(i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0) if i is not None)
        # A processor that takes a suffix belongs to a prefix language model: it ends the prompt itself, and its
        # token types tell prompt (0) from answer (1). Elsewhere a token type of 1 means a picture.
        self._takes_suffix = "suffix" in inspect.signature(processor.__call__).parameters
        self.answer_type = int(self._takes_suffix)
        """Token type of answers."""
        self._max_pixels = max_pixels
        self._limits = {} if max_pixels is None else _limits(processor.image_processor, max_pixels)
        self._cache: LRUCache[tuple[str, tuple[ImageRef, ...]], Encoded] = LRUCache(
            cache_bytes, getsizeof=lambda encoded: min(_size(encoded), cache_bytes)
        )
        self.answer_ids = lru_cache(maxsize=65536)(self._answer_ids)

    def prompt(self, sample: Sample) -> Encoded:
        """The user's turn of one sample, remembered."""
        key = (sample.prompt, sample.images)
        if key not in self._cache:
            self._cache[key] = self.encode(sample)
        return self._cache[key]

    def encode(self, sample: Sample) -> Encoded:
        """Encode the user's turn of one sample."""
        text = self._head(sample.prompt, len(sample.images))
        pictures = [decode_image(image, self._max_pixels) for image in sample.images]
        bos = self.tokenizer.bos_token
        features = self.processor(
            text=[text],
            # Nested, as conversations give them: LLaVA-OneVision cuts one picture of a prompt into tiles, but not two.
            images=[pictures] if pictures else None,
            return_tensors="pt",
            # A template that writes its own first token must not be given a second one.
            add_special_tokens=not (bos and text.startswith(bos)),
            **(self._limits if pictures else {}),
        )
        features.pop("labels", None)  # some processors make them; those of a prompt say nothing
        shape = features["input_ids"].shape
        tokens = {key: value[0] for key, value in features.items() if value.shape == shape}
        pictures_in = {key: value for key, value in features.items() if key not in tokens}
        return Encoded(tokens, pictures_in, self.answer_type)

    def _head(self, prompt: str, n_images: int) -> str:
        """The text up to where the model answers."""
        if self._template is None:
            end = "" if self._takes_suffix else "\n"
            return (getattr(self.processor, "image_token", "<image>") * n_images) + prompt + end
        return str(
            self.processor.apply_chat_template([_user(prompt, n_images)], add_generation_prompt=True, tokenize=False)
        )

    @property
    def _template(self) -> str | None:
        template: str | None = self.processor.chat_template or self.tokenizer.chat_template
        return template

    def _answer_ids(self, answer: str, end: bool = True) -> tuple[int, ...]:
        """Token ids of an answer as the template would write it, optionally with its end-of-turn token.

        Tokenised after a prompt, then the prompt's ids are cut off: tokenisers that mark word starts would otherwise
        give an answer other ids than in running text.
        """
        answer = answer.strip()  # as many templates do
        head, tail = self._head("?", 0), answer
        if self._template is not None:
            reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
            whole = self.processor.apply_chat_template([_user("?", 0), reply], tokenize=False)
            if whole.startswith(head):
                tail = whole[len(head) :]
        tail = tail[: tail.find(answer) + len(answer)] + (self._turn_end(tail, answer) if end else "")
        head_ids = self.tokenizer(head, add_special_tokens=False)["input_ids"]
        whole_ids = self.tokenizer(head + tail, add_special_tokens=False)["input_ids"]
        if whole_ids[: len(head_ids)] == head_ids:
            return tuple(whole_ids[len(head_ids) :])
        return tuple(self.tokenizer(tail, add_special_tokens=False)["input_ids"])

    def _turn_end(self, tail: str, answer: str) -> str:
        end = tail[tail.find(answer) + len(answer) :].strip()
        return end or self.tokenizer.eos_token


def _limits(image_processor: Any, max_pixels: int) -> dict[str, Any]:
    """Settings of an image processor that would cut even a shrunk picture into as many tiles as ever."""
    if getattr(image_processor, "crop_to_patches", None) is not None:  # InternVL
        tile = image_processor.size["height"] * image_processor.size["width"]
        return {"max_patches": max(1, min(image_processor.max_patches, max_pixels // tile))}
    if getattr(image_processor, "max_image_size", None) is not None:  # Idefics3, SmolVLM
        return {"size": {"longest_edge": min(image_processor.size["longest_edge"], math.isqrt(max_pixels))}}
    return {}


_shared: dict[str, Encoder] = {}


def shared_encoder(processor: Any, max_pixels: int | None, digest: str) -> Encoder:
    """The process's encoder of one kind of inputs: points of a sweep train on what the first of them encoded.

    Args:
        processor: as for Encoder.
        max_pixels: as for Encoder.
        digest: of both; another one takes the place of the encoder before it.
    """
    if digest not in _shared:
        _shared.clear()
        _shared[digest] = Encoder(processor, max_pixels)
    return _shared[digest]


def _user(prompt: str, n_images: int) -> dict[str, Any]:
    pictures = [{"type": "image"}] * n_images
    return {"role": "user", "content": [*pictures, {"type": "text", "text": prompt}]}


def _size(encoded: Encoded) -> int:
    tensors = (*encoded.tokens.values(), *encoded.pictures.values())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def batch_prompts(
    encoded: Sequence[Encoded],
    pad_id: int,
    answers: Sequence[Sequence[int]] | None = None,
    without: Container[str] = (),
) -> dict[str, Tensor]:
    """Pad prompts on the left and, if given, answers on the right of them.

    Args:
        encoded: B prompts.
        pad_id: token id of the padding.
        answers: B token-id sequences to append.
        without: picture tensors to leave out.

    Returns:
        Model inputs: input_ids (B, T+A), attention_mask, picture tensors and, with answers, `labels` (B, A) for the
        last A positions, padding marked as ignored.
    """
    width = max(one.length for one in encoded)
    extra = max((len(answer) for answer in answers), default=0) if answers is not None else 0
    batch: dict[str, Tensor] = {}
    for key in encoded[0].tokens:
        fill = pad_id if key == "input_ids" else 0
        batch[key] = torch.stack([F.pad(one.tokens[key], (width - one.length, extra), value=fill) for one in encoded])
    if answers is not None:
        labels = torch.full((len(encoded), extra), IGNORED)
        for row, answer in enumerate(answers):
            ids = torch.tensor(answer, dtype=torch.long)
            labels[row, : len(ids)] = ids
            batch["input_ids"][row, width : width + len(ids)] = ids
            batch["attention_mask"][row, width : width + len(ids)] = 1
            if "token_type_ids" in batch:
                batch["token_type_ids"][row, width : width + len(ids)] = encoded[row].answer_type
        batch["labels"] = labels
    batch |= join_pictures(encoded, without)
    if not has_own_positions(batch):
        # Explicit positions make padding invisible.
        batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return batch


def has_own_positions(batch: Mapping[str, Any]) -> bool:
    """Whether the model computes positions itself: three-dimensional ones, where a picture's rows and columns count."""
    return "image_grid_thw" in batch or {"target_sizes", "mm_token_type_ids"} <= batch.keys()


def join_pictures(encoded: Sequence[Encoded], without: Container[str] = ()) -> dict[str, Tensor]:
    """The picture tensors of some prompts, in their order."""
    keys = {key: None for one in encoded for key in one.pictures if key not in without}
    tensors = {key: [one.pictures[key] for one in encoded if key in one.pictures] for key in keys}
    packed = "target_sizes" in keys  # MiniCPM-V lays all patches end to end in one row, and reads no other row
    return {
        key: torch.cat(some, -1) if packed and key == "pixel_values" else _join(some) for key, some in tensors.items()
    }


def _join(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first axis; unequal other axes (tiles of unequal number) are padded with zeros."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [pad for size, want in zip(tensor.shape[:0:-1], shape[::-1], strict=True) for pad in (0, want - size)]
        padded.append(F.pad(tensor, missing) if any(missing) else tensor)
    return torch.cat(padded)
