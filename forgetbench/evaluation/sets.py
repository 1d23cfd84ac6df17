"""The datasets of a matrix, rendered once and shared by all checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import permutations

from forgetbench.config import MatrixConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import PROBE_SUFFIX, AnswerKind, Decoding, Sample
from forgetbench.core.store import json_digest
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.layouts import draw_order
from forgetbench.data.manifest import Manifest
from forgetbench.data.pictures import read_image
from forgetbench.data.sources import SplitItems, load_split
from forgetbench.evaluation.cells import samples_digest
from forgetbench.evaluation.settings import Settings

BLOCK = 1_000
"""Draws in a block. A batch never crosses blocks, so that a larger limit repeats the batches of a smaller one. Do not
lower it: datasets of up to 1,000 items were stored as one block before blocks existed."""


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """One dataset of the matrix."""

    manifest: Manifest
    samples: Sequence[Sample]
    """The items that are scored."""
    load: Callable[[], Sequence[Sample]]
    """Reads all items of the split."""
    blocks: Sequence[Sequence[int]] = ()
    """Item numbers by block, in the order in which growing limits draw them, each block in file order."""
    fills_a_block: bool = False
    """Whether at least one block is full, so that a cell with another limit may share it."""

    @cached_property
    def all_samples(self) -> Sequence[Sample]:
        """All items of the split, in file order."""
        return self.load()

    @cached_property
    def image_digests(self) -> list[str]:
        """sha256 of each item's encoded pictures; empty for an item without pictures."""
        known = {
            images: hashlib.sha256(b"".join(map(read_image, images))).hexdigest() if images else ""
            for images in dict.fromkeys(sample.images for sample in self.samples)  # in order: tables are read faster
        }
        return [known[sample.images] for sample in self.samples]

    @cached_property
    def digest(self) -> str:
        """Digest of the rendered items."""
        return samples_digest(self.samples, self.image_digests)

    @cached_property
    def block_digests(self) -> list[str]:
        """Digest of each block's rendered items and of all blocks before it: its answers depend on these."""
        digests: list[str] = []
        for block in self.blocks:
            block_digest = samples_digest([self.samples[k] for k in block], [self.image_digests[k] for k in block])
            digests.append(json_digest([*digests[-1:], block_digest]))
        return digests

    @property
    def _has_prefix_options(self) -> bool:
        """Whether an item has a candidate that is a prefix of another, as "red" is of "red and blue"."""
        return any(
            shorter != longer and longer.startswith(shorter)
            for candidates in {tuple(map(str.strip, sample.candidates)) for sample in self.samples}
            for shorter, longer in permutations(candidates, 2)
        )

    def settings(self, config: MatrixConfig) -> list[Settings]:
        """Settings of each decoding that applies; open answers have no candidates to choose from."""
        open_ended = self.manifest.answer is AnswerKind.text
        precision = config.precision.value
        choice = Settings(
            Decoding.choice,
            precision,
            config.batch_size,
            answer_end=self._has_prefix_options or None,
            block=BLOCK if len(self.blocks) > 1 else None,
        )
        greedy = replace(
            choice,
            answer_end=None,
            decoding=Decoding.greedy,
            max_new_tokens=self._max_new_tokens(config),
            max_thought_tokens=config.reasoning.max_tokens,
            stop=tuple(self.manifest.stop),
        )
        sample = replace(
            greedy,
            decoding=Decoding.sample,
            temperature=config.temperature,
            top_p=config.top_p,
            seed=config.sample_seed,
        )
        by_decoding = {settings.decoding: settings for settings in (choice, greedy, sample)}
        return [
            by_decoding[decoding] for decoding in config.decodings if decoding is not Decoding.choice or not open_ended
        ]

    def _max_new_tokens(self, config: MatrixConfig) -> int | None:
        """The cap on answers: of the matrix, else of the manifest; a class-label probe uses that of its dataset."""
        cap = config.max_new_tokens
        if isinstance(cap, Mapping):
            cap = cap.get(self.manifest.name.removesuffix(PROBE_SUFFIX))
        return self.manifest.max_new_tokens if cap is None else cap


def load_sets(config: MatrixConfig, catalogue: Catalogue) -> list[EvaluationSet]:
    """Read the evaluation splits of a matrix, and the class-label probes made from some of them.

    Raises:
        UserError: a dataset cannot be read, or no probe can be made from it.
    """
    return [
        _load(catalogue.load(name), config.limit, config.skip.get(name, 0), distract)
        for names, distract in ((config.datasets, False), (config.class_probe, True))
        for name in names
    ]


def _load(manifest: Manifest, limit: int | None, skip: int = 0, distract: bool = False) -> EvaluationSet:
    read = partial(load_split, manifest, manifest.eval_split, distract=distract)
    loaded = unscored(read(), skip, limit) if skip else read(limit=limit)
    if not loaded.samples:
        raise UserError(f"matrix.skip: {manifest.name} has no items besides those that a limit of {skip} scores.")
    if distract:
        manifest = replace(manifest, name=manifest.name + PROBE_SUFFIX, probe=True)
    return EvaluationSet(
        manifest,
        loaded.samples,
        load=lambda: read().samples if limit or skip else loaded.samples,
        blocks=_blocks(loaded),
        fills_a_block=len(loaded.drawn) >= BLOCK,
    )


def count_unscored(manifest: Manifest, skip: int, limit: int) -> int:
    """Number of items that a limit of `skip` does not score; counts up to `limit`."""
    return len(unscored(load_split(manifest, manifest.eval_split), skip, limit).samples)


def unscored(read: SplitItems, skip: int, limit: int | None) -> SplitItems:
    """The items that a limit of `skip` leaves out, without those that show a picture of a scored item.

    Args:
        read: the whole split.
        skip: the limit of the scored items.
        limit: number of items to keep, in the order in which growing limits draw them; None: all.
    """
    order = draw_order(read.drawn)
    scored = set(order[:skip])
    pairs = list(zip(read.places, read.samples, strict=True))
    shown = {image for place, sample in pairs if place in scored for image in sample.images}
    scored |= {place for place, sample in pairs if shown.intersection(sample.images)}
    kept = set([place for place in order if place not in scored][:limit])
    left = [(place, sample) for place, sample in pairs if place in kept]
    return replace(
        read,
        samples=[sample for _, sample in left],
        places=[place for place, _ in left],
        drawn=[place for place in read.drawn if place in kept],
    )


def _blocks(read: SplitItems) -> list[list[int]]:
    """Item numbers of every 1,000 drawn rows; a row without an item counts as drawn."""
    if len(read.drawn) <= BLOCK:
        return [list(range(len(read.samples)))]
    block_of = {place: number // BLOCK for number, place in enumerate(draw_order(read.drawn))}
    items_by_block: dict[int, list[int]] = {block: [] for block in sorted(set(block_of.values()))}
    for item, place in enumerate(read.places):
        items_by_block[block_of[place]].append(item)
    return [items for items in items_by_block.values() if items]
