"""Compose one dataset's batches: within each of its blocks, by kind and length, whatever has to be asked.

An item's batch, and the pictures that its picture is encoded with, never depend on what else runs, on what a killed run
left, on how many processes share the work, or on blocks that come later: the same inputs in the same shapes give the
same bits.
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
    """A dataset as it is asked."""

    samples: Sequence[Sample]
    prompts: EncodedSet
    candidates: Sequence[Sequence[tuple[int, ...]]]
    """Token ids of what each item may be answered with; none where the answer is open."""
    batch_size: int
    blocks: Sequence[Sequence[int]] = ()
    """Item numbers by block; none for all items in one."""

    @cached_property
    def batches(self) -> list[list[int]]:
        """Item numbers by batch: of one block, one kind of candidates, similar lengths."""
        return [batch for batches in self._by_block for batch in batches]

    @cached_property
    def block_of_batch(self) -> list[int]:
        """The number of each batch's block."""
        return [number for number, batches in enumerate(self._by_block) for _ in batches]

    @cached_property
    def _by_block(self) -> list[list[list[int]]]:
        return [self._composed(block) for block in self.blocks or [range(len(self.samples))]]

    def _composed(self, block: Sequence[int]) -> list[list[int]]:
        groups: dict[bool, list[int]] = {}
        for item in sorted(block, key=lambda i: (self.prompts.lengths[i], len(self.samples[i].images), i)):
            groups.setdefault(differ_in_last(self.candidates[item]), []).append(item)
        size = self.batch_size
        return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]

    @cached_property
    def first_positions(self) -> dict[Pictures, tuple[int, int]]:
        """Pictures -> the batch that shows them first, and the item there."""
        found: dict[Pictures, tuple[int, int]] = {}
        for number, batch in enumerate(self.batches):
            for item in batch:
                if self.samples[item].images:
                    found.setdefault(self.samples[item].images, (number, item))
        return found

    def items_with_new_pictures(self, number: int) -> list[int]:
        """The items of a batch whose pictures no earlier item shows."""
        return [
            item
            for item in self.batches[number]
            if self.first_positions.get(self.samples[item].images) == (number, item)
        ]


def batched(
    samples: Sequence[Sample],
    prompts: EncodedSet,
    encoder: Encoder,
    batch_size: int,
    blocks: Sequence[Sequence[int]] = (),
) -> BatchedSet:
    """Lay out a dataset's batches for one tokenizer.

    Args:
        samples: its items.
        prompts: the same, encoded.
        encoder: of the model.
        batch_size: items in a batch.
        blocks: item numbers by block; none for all items in one.

    Raises:
        UserError: one candidate's tokens begin another's, and the model writes no end of turn; names the item.
    """
    return BatchedSet(samples, prompts, [_candidates(sample, encoder) for sample in samples], batch_size, blocks)


def _candidates(sample: Sample, encoder: Encoder) -> list[tuple[int, ...]]:
    """Token ids of an item's candidates; with the end of the turn where one's tokens begin another's.

    Without it, "red" is at least as likely as "red and blue" whatever a model has learnt.
    """
    found = encoder.candidate_ids(sample)
    if not _one_begins_another(found):
        return found
    ended = encoder.candidate_ids(sample, end=True)
    if _one_begins_another(ended):
        raise UserError(
            f"Item '{sample.id}': the tokens of one option begin another's, and this model writes no end of turn that "
            "tells them apart, so their likelihoods cannot be compared; decode greedily (matrix.decodings=[greedy])."
        )
    return ended


def _one_begins_another(candidates: Sequence[tuple[int, ...]]) -> bool:
    return any(one != other and other[: len(one)] == one for one in candidates for other in candidates)


def differ_in_last(candidates: Sequence[tuple[int, ...]]) -> bool:
    """Whether all candidates share every token but the last, which is different in each."""
    return len({one[:-1] for one in candidates}) == 1 and len({one[-1] for one in candidates}) == len(candidates)
