"""The datasets of a matrix, rendered once and shared by all checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import permutations

from forgetbench.config import MatrixConfig
from forgetbench.core.records import PROBE_SUFFIX, AnswerKind, Decoding, Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import Manifest
from forgetbench.data.pictures import read_image
from forgetbench.data.sources import load_samples
from forgetbench.evaluation.cells import samples_digest
from forgetbench.evaluation.settings import Settings


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """One dataset of the matrix."""

    manifest: Manifest
    samples: Sequence[Sample]
    """Those that are scored."""
    load: Callable[[], Sequence[Sample]]
    """Reads all items of the split."""

    @cached_property
    def whole(self) -> Sequence[Sample]:
        """All items of the split, in file order."""
        return self.load()

    @cached_property
    def image_digests(self) -> list[str]:
        """sha256 of each item's encoded pictures; empty where there is none."""
        known = {
            images: hashlib.sha256(b"".join(map(read_image, images))).hexdigest() if images else ""
            for images in dict.fromkeys(sample.images for sample in self.samples)  # in order, as tables are read best
        }
        return [known[sample.images] for sample in self.samples]

    @cached_property
    def digest(self) -> str:
        """Digest of the rendered items."""
        return samples_digest(self.samples, self.image_digests)

    @property
    def _begins_another(self) -> bool:
        """Whether an item has a candidate that begins another one, as "red" begins "red and blue"."""
        return any(
            shorter != longer and longer.startswith(shorter)
            for candidates in {tuple(map(str.strip, sample.candidates)) for sample in self.samples}
            for shorter, longer in permutations(candidates, 2)
        )

    def settings(self, config: MatrixConfig) -> list[Settings]:
        """How it is asked: the decodings that apply, as open answers have no candidates to choose from."""
        open_ended = self.manifest.answer is AnswerKind.text
        precision = config.precision.value
        choice = Settings(Decoding.choice, precision, config.batch_size, answer_end=self._begins_another or None)
        greedy = replace(
            choice,
            answer_end=None,
            decoding=Decoding.greedy,
            max_new_tokens=self.manifest.max_new_tokens,
            stop=tuple(self.manifest.stop),
        )
        sample = replace(
            greedy,
            decoding=Decoding.sample,
            temperature=config.temperature,
            top_p=config.top_p,
            seed=config.sample_seed,
        )
        every = {one.decoding: one for one in (choice, greedy, sample)}
        return [every[one] for one in config.decodings if one is not Decoding.choice or not open_ended]


def load_sets(config: MatrixConfig, catalogue: Catalogue) -> list[EvaluationSet]:
    """Read the evaluation splits of a matrix, and the class-label probes made from some of them.

    Raises:
        UserError: a dataset cannot be read, or no probe can be made from it.
    """
    plain = [_load(catalogue.load(name), config.limit) for name in config.datasets]
    return plain + [_load(catalogue.load(name), config.limit, distract=True) for name in config.class_probe]


def _load(manifest: Manifest, limit: int | None, distract: bool = False) -> EvaluationSet:
    read = partial(load_samples, manifest, manifest.eval_split, distract=distract)
    samples = read(limit=limit)
    if distract:
        manifest = replace(manifest, name=manifest.name + PROBE_SUFFIX, probe=True)
    return EvaluationSet(manifest, samples, read if limit else lambda: samples)
