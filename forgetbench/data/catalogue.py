"""All dataset manifests: the shipped ones and those in the user's folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.core.options import manifest_files, nearest
from forgetbench.data.manifest import Manifest
from forgetbench.data.manifest_file import load_manifest

MAX_DEPTH = 32
"""Levels of mixtures inside mixtures."""


@dataclass(frozen=True)
class Leaf:
    """One split of a dataset with files, and its weight in the mixture that contains it."""

    manifest: Manifest
    split: str
    weight: float


class Catalogue:
    """Finds manifests by name; a user's manifest shadows a shipped one of the same name."""

    def __init__(self, folders: Iterable[str | Path] = ()) -> None:
        """List the manifests in `folders` and in the shipped folder; a manifest is read when it is first used."""
        self._paths = manifest_files(folders)
        self._loaded: dict[str, Manifest] = {}

    def names(self) -> list[str]:
        """Names of all manifests, sorted."""
        return sorted(self._paths)

    def load(self, name: str) -> Manifest:
        """Load the manifest of a dataset (`name` or `name:split`), or of several datasets joined by `+` as a mixture.

        Raises:
            UserError: there is no manifest of that name, or it is not valid.
        """
        if self._is_union(name):
            return self._union(name)
        name = name.partition(":")[0]
        if name not in self._loaded:
            if name not in self._paths:
                hint = nearest(name, self.names(), self.names(), "`forgetbench data list --all`")
                raise UserError(f"There is no dataset manifest named '{name}'. {hint}")
            self._loaded[name] = load_manifest(self._paths[name])
        return self._loaded[name]

    def joined(self, name: str) -> list[Manifest]:
        """The manifests of the datasets that `+` joins in `name`; a single dataset gives one manifest."""
        return [self.load(part) for part in (name.split("+") if self._is_union(name) else [name])]

    def _is_union(self, name: str) -> bool:
        return "+" in name and name not in self._paths

    def _union(self, name: str) -> Manifest:
        """A mixture of the datasets that `+` joins, with equal weights."""
        parts = self.joined(name)
        return Manifest(
            name=name,
            mixture=dict.fromkeys(name.split("+"), 1.0),
            eval_split="",
            image_domains=sorted({domain for part in parts for domain in part.image_domains}),
            text_tasks=sorted({task for part in parts for task in part.text_tasks}),
        )

    def leaves(self, name: str, split: str | None = None) -> list[Leaf]:
        """Expand a dataset into its parts with files; weights sum to 1.

        Args:
            name: a manifest's name, or `name:split`.
            split: the split to read; by default each manifest's training split.
        """
        return self._expand(name, split, (), {})

    def _expand(
        self,
        name: str,
        split: str | None,
        ancestors: tuple[str, ...],
        expanded: dict[tuple[str, str | None], list[Leaf]],
    ) -> list[Leaf]:
        """The leaves below a name. `expanded` caches results, because mixtures may share parts."""
        name, _, named_split = name.partition(":")
        if name in ancestors:
            raise UserError(f"The mixture '{ancestors[0]}' contains itself: {' -> '.join((*ancestors, name))}.")
        if len(ancestors) > MAX_DEPTH:
            raise UserError(
                f"The mixture '{ancestors[0]}' is of mixtures more than {MAX_DEPTH} deep; name parts directly."
            )
        key = (name, named_split or split)
        if key not in expanded:
            expanded[key] = self._split_mixture(name, key[1], ancestors, expanded)
        return expanded[key]

    def _split_mixture(
        self,
        name: str,
        split: str | None,
        ancestors: tuple[str, ...],
        expanded: dict[tuple[str, str | None], list[Leaf]],
    ) -> list[Leaf]:
        manifest = self.load(name)
        if manifest.source:
            split_name = split or manifest.train_split
            manifest.split(split_name)
            return [Leaf(manifest, split_name, 1.0)]
        total = sum(manifest.mixture.values())
        leaves = [
            Leaf(leaf.manifest, leaf.split, weight / total * leaf.weight)
            for part, weight in manifest.mixture.items()
            if weight and self._load_part(manifest, part)
            for leaf in self._expand(part, split, (*ancestors, name), expanded)
        ]
        return _merge_repeated(leaves)

    def _load_part(self, mixture: Manifest, part: str) -> Manifest:
        """The manifest of a mixture's part; an error names the mixture."""
        try:
            return self.load(part)
        except UserError as error:
            raise UserError(f"{mixture.path}: `mixture`: {error}") from error


def _merge_repeated(leaves: list[Leaf]) -> list[Leaf]:
    """One leaf per dataset and split; weights of repeated leaves are summed."""
    weights: dict[tuple[str, str], float] = {}
    for leaf in leaves:
        key = (leaf.manifest.name, leaf.split)
        weights[key] = weights.get(key, 0.0) + leaf.weight
    first = {(leaf.manifest.name, leaf.split): leaf for leaf in reversed(leaves)}
    return [Leaf(first[key].manifest, key[1], weight) for key, weight in weights.items()]
