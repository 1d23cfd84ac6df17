"""From a configuration to the stages of a run: which items, in which order, for how many steps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forgetbench.config import FinetuneConfig
from forgetbench.data.catalogue import Catalogue, Leaf
from forgetbench.data.labels import task_labels
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.data.sources import load_samples
from forgetbench.methods.base import Method
from forgetbench.records import Sample


@dataclass(frozen=True)
class Stage:
    """One target set, mixed with auxiliary data, for a number of steps."""

    target: str
    stream: MixedStream
    steps: int
    data_digest: str
    labels: Sequence[str] = ()
    """The labels that the target set teaches; none if its answers are open-ended."""


def plan_stages(config: FinetuneConfig, catalogue: Catalogue) -> list[Stage]:
    """Read the training data and lay out every stage.

    Raises:
        UserError: a manifest or its files do not fit.
    """
    recipe = config.recipe
    read = [WeightedSet(name, samples, 1.0) for name, samples in read_sets(config.method, catalogue).items()]
    auxiliary = _weighted([leaf for name in recipe.mix.data for leaf in catalogue.leaves(name)])
    earlier = _weighted([leaf for name in recipe.replay.earlier for leaf in catalogue.leaves(name)])
    stages = []
    for number, stage in enumerate(config.data.stages):
        seed = config.seed * 1000 + number
        own = _weighted(catalogue.leaves(stage.set))
        target = [*own, *replayed(earlier, own, recipe.replay.samples, seed)]
        stream = MixedStream(target, auxiliary, recipe.mix.ratio, seed)
        digest = data_digest([*target, *auxiliary, *read])
        labels = task_labels([sample for one in own for sample in one.samples])
        stages.append(Stage(stage.set, stream, stage.steps or recipe.steps, digest, labels))
        earlier += own
    return stages


def read_sets(method: Method, catalogue: Catalogue) -> dict[str, list[Sample]]:
    """Training items of the sets that a method reads, by the name it gives."""
    return {
        name: [sample for one in _weighted(catalogue.leaves(name)) for sample in one.samples] for name in method.reads()
    }


def replayed(earlier: Sequence[WeightedSet], target: Sequence[WeightedSet], count: int, seed: int) -> list[WeightedSet]:
    """Random items of each earlier task, drawn as often as if they were appended to the target's items.

    Args:
        earlier: a set per task.
        target: the stage's own data.
        count: items per task.
        seed: of the draw.
    """
    per_item = sum(one.weight for one in target) / sum(len(one.samples) for one in target)
    found = []
    for number, one in enumerate(earlier if count else ()):
        drawn = np.random.default_rng([seed, 4, number]).permutation(len(one.samples))[:count]
        samples = [one.samples[place] for place in sorted(drawn)]
        found.append(WeightedSet(f"{one.name} (replayed)", samples, per_item * len(samples)))
    return found


def _weighted(leaves: Sequence[Leaf]) -> list[WeightedSet]:
    return [WeightedSet(leaf.manifest.name, load_samples(leaf.manifest, leaf.split), leaf.weight) for leaf in leaves]


def data_digest(sets: Sequence[WeightedSet]) -> str:
    """Digest of training items as rendered; pictures by name, as their bytes are covered by the manifests' digests."""
    digest = hashlib.sha256()
    for one in sets:
        digest.update(json.dumps([one.name, one.weight]).encode())
        for sample in one.samples:
            names = [image.name for image in sample.images]
            digest.update(json.dumps([sample.id, sample.prompt, sample.answer, names]).encode())
    return digest.hexdigest()
