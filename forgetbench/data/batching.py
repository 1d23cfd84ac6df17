"""Pad encoded conversations into batches.

Shapes: B items, T prompt tokens, A answer tokens.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetbench.data.collate import IGNORED, Encoded, Example


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
    width = max(prompt.length for prompt in encoded)
    extra = max((len(answer) for answer in answers), default=0) if answers is not None else 0
    batch: dict[str, Tensor] = {}
    for key in encoded[0].tokens:
        fill = pad_id if key == "input_ids" else 0
        batch[key] = torch.stack(
            [F.pad(prompt.tokens[key], (width - prompt.length, extra), value=fill) for prompt in encoded]
        )
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


def batch_examples(examples: Sequence[Example], pad_id: int, without: Container[str] = ()) -> dict[str, Tensor]:
    """Pad training conversations.

    If only last replies are trained on, the batch is that of `batch_prompts`. Otherwise whole conversations are padded
    on the left, so that logits are needed for as few positions as possible.

    Args:
        examples: B conversations.
        pad_id: token id of the padding.
        without: picture tensors to leave out.

    Returns:
        Model inputs and `labels` (B, A) for the last A positions, IGNORED where no loss is taken.
    """
    if not any(example.replies for example in examples):
        return batch_prompts(
            [example.prompt for example in examples], pad_id, [example.answer for example in examples], without
        )
    whole = [append_tokens(example.prompt, example.answer) for example in examples]
    batch = batch_prompts(whole, pad_id, without=without)
    width = batch["input_ids"].shape[1]
    labels_BT = torch.full((len(examples), width), IGNORED)
    for row, example in enumerate(examples):
        _, labels_T = example.ids_and_labels
        labels_BT[row, width - len(labels_T) :] = labels_T
    first = int((labels_BT != IGNORED).any(0).nonzero()[0])
    return batch | {"labels": labels_BT[:, first:]}


def append_tokens(encoded: Encoded, ids: Sequence[int]) -> Encoded:
    """The prompt with `ids`, the first tokens of its answer or all of them, appended."""
    if not ids:
        return encoded
    zeros = torch.zeros(len(ids), dtype=torch.long)
    fills = {
        "input_ids": torch.tensor(ids, dtype=torch.long),
        "attention_mask": zeros + 1,
        "token_type_ids": zeros + encoded.answer_type,
    }
    tokens = {key: torch.cat([value, fills.get(key, zeros)]) for key, value in encoded.tokens.items()}
    return replace(encoded, tokens=tokens)


def has_own_positions(batch: Mapping[str, Any]) -> bool:
    """Whether the model computes position ids itself: three-dimensional ones that count picture rows and columns."""
    return "image_grid_thw" in batch or {"target_sizes", "mm_token_type_ids"} <= batch.keys()


def join_pictures(encoded: Sequence[Encoded], without: Container[str] = ()) -> dict[str, Tensor]:
    """Concatenate the picture tensors of prompts, in the prompts' order."""
    keys = {key: None for prompt in encoded for key in prompt.pictures if key not in without}
    tensors = {key: [prompt.pictures[key] for prompt in encoded if key in prompt.pictures] for key in keys}
    packed = "target_sizes" in keys  # MiniCPM-V lays all patches end to end in one row, and reads no other row
    return {
        key: torch.cat(values, -1) if packed and key == "pixel_values" else _join(values)
        for key, values in tensors.items()
    }


def _join(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first axis; unequal other axes (tiles of unequal number) are padded with zeros."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [
            pad for size, target in zip(tensor.shape[:0:-1], shape[::-1], strict=True) for pad in (0, target - size)
        ]
        padded.append(F.pad(tensor, missing) if any(missing) else tensor)
    return torch.cat(padded)
