"""Compose the batches of one dataset, block by block: items of one kind and of similar length share a batch.

The batch of an item, and the pictures that are encoded together with its picture, depend on the dataset alone. Other
runs, leftovers of a killed run, the number of processes and later blocks do not change them: the same inputs in the
same shapes give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef, Sample
from forgetbench.data.collate import Encoder
from forgetbench.data.encoded import EncodedSet

Pictures = tuple[ImageRef, ...]


@dataclass(frozen=True, eq=False)
class BatchedSet:
    """A dataset with its encoded prompts and its batches."""

    samples: Sequence[Sample]
    prompts: EncodedSet
    candidates: Sequence[Sequence[tuple[int, ...]]]
    """Token ids of each item's candidate answers; empty for open answers."""
    batch_size: int
    blocks: Sequence[Sequence[int]] = ()
    """Item numbers by block; empty: all items are one block."""

    @cached_property
    def batches(self) -> list[list[int]]:
        """Item numbers by batch. A batch has items of one block, one kind of candidates and similar lengths."""
        return [batch for batches in self._by_block for batch in batches]

    @cached_property
    def block_of_batch(self) -> list[int]:
        """The block number of each batch."""
        return [number for number, batches in enumerate(self._by_block) for _ in batches]

    @cached_property
    def _by_block(self) -> list[list[list[int]]]:
        return [self._compose(block) for block in self.blocks or [range(len(self.samples))]]

    def _compose(self, block: Sequence[int]) -> list[list[int]]:
        groups: dict[bool, list[int]] = {}
        for item in sorted(block, key=lambda i: (self.prompts.lengths[i], len(self.samples[i].images), i)):
            groups.setdefault(differ_in_last_token(self.candidates[item]), []).append(item)
        size = self.batch_size
        return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]

    @cached_property
    def first_positions(self) -> dict[Pictures, tuple[int, int]]:
        """Pictures -> (the first batch that shows them, the item in that batch)."""
        positions: dict[Pictures, tuple[int, int]] = {}
        for number, batch in enumerate(self.batches):
            for item in batch:
                if self.samples[item].images:
                    positions.setdefault(self.samples[item].images, (number, item))
        return positions

    def items_with_new_pictures(self, number: int) -> list[int]:
        """The items of a batch that show pictures for the first time in the dataset."""
        return [
            item
            for item in self.batches[number]
            if self.first_positions.get(self.samples[item].images) == (number, item)
        ]


def batch_dataset(
    samples: Sequence[Sample],
    prompts: EncodedSet,
    encoder: Encoder,
    batch_size: int,
    blocks: Sequence[Sequence[int]] = (),
) -> BatchedSet:
    """Lay out the batches of a dataset for one tokenizer.

    Args:
        samples: the items of the dataset.
        prompts: the encoded prompts of the same items.
        encoder: of the model.
        batch_size: items in a batch.
        blocks: item numbers by block; empty: all items are one block.

    Raises:
        UserError: the tokens of one candidate are a prefix of another's, and the model writes no end of turn; names
            the item.
    """
    return BatchedSet(samples, prompts, [_candidates(sample, encoder) for sample in samples], batch_size, blocks)


def _candidates(sample: Sample, encoder: Encoder) -> list[tuple[int, ...]]:
    """Token ids of an item's candidates. If one is a prefix of another, the end of the turn is added to all.

    Without the end of the turn, "red" would always be at least as likely as "red and blue".
    """
    candidates = encoder.candidate_ids(sample)
    if not _any_is_prefix(candidates):
        return candidates
    ended = encoder.candidate_ids(sample, end=True)
    if _any_is_prefix(ended):
        raise UserError(
            f"Item '{sample.id}': the tokens of one option begin another's, and this model writes no end of turn that "
            "tells them apart, so their likelihoods cannot be compared; decode greedily (matrix.decodings=[greedy])."
        )
    return ended


def _any_is_prefix(candidates: Sequence[tuple[int, ...]]) -> bool:
    return any(
        candidate != other and other[: len(candidate)] == candidate for candidate in candidates for other in candidates
    )


def differ_in_last_token(candidates: Sequence[tuple[int, ...]]) -> bool:
    """Whether all candidates have the same tokens except the last, and each has a different last token."""
    return len({ids[:-1] for ids in candidates}) == 1 and len({ids[-1] for ids in candidates}) == len(candidates)
