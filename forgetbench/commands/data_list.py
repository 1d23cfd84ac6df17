"""`forgetbench data list`: the datasets that can be named, group by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from forgetbench.config import FinetuneConfig
from forgetbench.core.dataset_groups import DatasetGroup, manifest_groups, sequence_groups
from forgetbench.core.errors import UserError
from forgetbench.core.options import nearest
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import Manifest
from forgetbench.data.quadrant import quadrant_label
from forgetbench.terminal.console import console, note, print_listing

_TITLES = {
    DatasetGroup.yours: "Yours: manifests in your own folders",
    DatasetGroup.embedded: "Embedded: in the package, pictures too",
    DatasetGroup.public: "Public: to be downloaded, or on the Hub (docs/data.md)",
    DatasetGroup.curriculum: "Curriculum: what the embedded base was trained on",
    DatasetGroup.control: "Controls: auxiliary sets to compare others with",
    DatasetGroup.validation: "Validation: to choose settings by",
}
_COLUMN = 18
"""Characters that each column but the name needs; where a terminal has fewer, a set's facts stand below its name."""
GROUP_WORDS = {"mine": DatasetGroup.yours} | {group.value: group for group in DatasetGroup}
"""What names a group in a search."""


@dataclass(frozen=True)
class Search:
    """Which datasets are listed: those in `groups` that match every word."""

    groups: tuple[DatasetGroup, ...]
    words: tuple[str, ...] = ()

    def matches(self, group: DatasetGroup, manifest: Manifest) -> bool:
        """Whether a set is listed; a word is looked for in name, title, domains and tasks, a pattern in the name."""
        texts = [manifest.name, manifest.title, *manifest.image_domains, *manifest.text_tasks]
        return group in self.groups and all(_matches(word.casefold(), texts) for word in self.words)


def parse_search(words: Sequence[str], show_all: bool) -> Search:
    """Parse a search; without a group among the words, the other words are looked for in all groups.

    Args:
        words: such as `mine`, `public`, `emoji`, `fashion_*`.
        show_all: whether curricula, controls and validation sets are listed, too.
    """
    groups = tuple(GROUP_WORDS[word] for word in words if word in GROUP_WORDS)
    search_words = tuple(word for word in words if word not in GROUP_WORDS)
    usual = tuple(group for group in DatasetGroup if show_all or search_words or not group.by_role)
    return Search(groups or usual, search_words)


def data_list(config: FinetuneConfig, words: Sequence[str], show_all: bool, as_json: bool) -> None:
    """A table per group and a row per dataset; its quadrant relative to the configured target.

    Args:
        config: whose first target and folders of manifests count.
        words: what to look for; none lists all.
        show_all: whether curricula, controls and validation sets are listed, too.
        as_json: whether the rows are for a program.

    Raises:
        UserError: words find nothing.
    """
    catalogue = Catalogue(config.manifests)
    target = catalogue.load(config.data.stages[0].set)
    groups, search = manifest_groups(config.manifests), parse_search(words, show_all)
    by_group: dict[DatasetGroup, list[Manifest]] = {}
    for group in DatasetGroup:
        group_manifests = [
            catalogue.load(name) for name in catalogue.names() if groups[name] is group and group in search.groups
        ]
        if manifests := [manifest for manifest in group_manifests if search.matches(group, manifest)]:
            by_group[group] = sorted(manifests, key=lambda manifest: not manifest.is_here)
    if words and not by_group:
        raise UserError(_not_found_message(words, search, catalogue))
    rows = [_row(group, target, manifest) for group, manifests in by_group.items() for manifest in manifests]
    listing = Group(*(_group_table(group, target, manifests, console.width) for group, manifests in by_group.items()))
    print_listing(listing, rows, as_json)
    if words:
        return
    sequences = [
        name
        for name, sequence_group in sequence_groups(groups).items()
        if sequence_group is None or sequence_group in search.groups
    ]
    if console.is_terminal and not as_json:
        line = f"Quadrants are relative to {target.name}. Sequences (data=<name>): {', '.join(sorted(sequences))}."
        console.print(line, overflow="ignore", crop=False)
    if left_out := sum(group not in search.groups for group in groups.values()):
        note(f"{left_out} more: curricula, controls and validation sets; add --all.")


def _not_found_message(words: Sequence[str], search: Search, catalogue: Catalogue) -> str:
    query = " ".join(words)
    if not search.words:
        hint = " A manifest data_manifests/<name>.yaml is one of yours (docs/data.md)." if "mine" in words else ""
        return f"data list {query}: there is no such dataset.{hint}"
    known = [*GROUP_WORDS, *catalogue.names()]
    return f"data list {query}: no dataset has that. {nearest(search.words[0], known, catalogue.names())}"


def _matches(word: str, texts: Sequence[str]) -> bool:
    if set(word) & set("*?["):
        return fnmatchcase(texts[0].casefold(), word)
    return any(word in text.casefold() for text in texts)


def _group_table(group: DatasetGroup, target: Manifest, manifests: Sequence[Manifest], width: int) -> RenderableType:
    """A group as wide as the terminal allows; a name is never broken."""
    longest = max(len(manifest.name) for manifest in manifests)
    heads = ("image domains", "text tasks", "items", "quadrant")
    if width < longest + len(heads) * _COLUMN + 16:  # 16 columns are lines and margins
        return Group(Text(f"\n{_TITLES[group]}", style="italic"), *_stacked_rows(target, manifests))
    table = Table(title=_TITLES[group], title_justify="left")
    table.add_column("name", no_wrap=True, min_width=longest)
    for column in heads:
        table.add_column(column, overflow="fold")
    for manifest in manifests:
        table.add_row(manifest.name, *_facts(target, manifest))
    return table


def _stacked_rows(target: Manifest, manifests: Sequence[Manifest]) -> Iterator[RenderableType]:
    for manifest in manifests:
        yield Text(manifest.name, style="bold", overflow="ignore", no_wrap=True)
        yield Padding("; ".join(filter(None, _facts(target, manifest))), (0, 0, 0, 4))


def _facts(target: Manifest, manifest: Manifest) -> tuple[str, str, str, str]:
    """Image domains, text tasks, items and quadrant."""
    sizes = ", ".join(f"{split} {described.n or '?'}" for split, described in manifest.splits.items())
    sizes += "" if manifest.is_here else " (on the Hub)" if manifest.is_on_hub else " (not downloaded)"
    return (
        ", ".join(manifest.image_domains),
        ", ".join(manifest.text_tasks),
        sizes or f"mixture of {len(manifest.mixture)}",
        quadrant_label(target, manifest),
    )


def _row(group: DatasetGroup, target: Manifest, manifest: Manifest) -> Mapping[str, object]:
    return {
        "name": manifest.name,
        "group": group.value,
        "image_domains": manifest.image_domains,
        "text_tasks": manifest.text_tasks,
        "items": {split: described.n for split, described in manifest.splits.items()},
        "downloaded": manifest.is_here,
        "mixture": manifest.mixture,
        "target": target.name,
        "quadrant": quadrant_label(target, manifest) or None,
    }
