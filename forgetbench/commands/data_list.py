"""`forgetbench data list`: the datasets that can be named, group by group."""

from __future__ import annotations

import sys

from rich.console import Group
from rich.table import Table

from forgetbench.config import FinetuneConfig
from forgetbench.core.dataset_groups import DatasetGroup, manifest_groups, sequence_groups
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import Manifest
from forgetbench.data.quadrant import quadrant_label
from forgetbench.terminal.console import print_rows, say

_TITLES = {
    DatasetGroup.yours: "Yours: manifests in your own folders",
    DatasetGroup.embedded: "Embedded: in the package, pictures too",
    DatasetGroup.public: "Public: to be downloaded, or on the Hub (docs/data.md)",
    DatasetGroup.curriculum: "Curriculum: what the embedded base was trained on",
    DatasetGroup.control: "Controls: auxiliary sets to compare others with",
    DatasetGroup.validation: "Validation: to choose settings by",
}


def data_list(config: FinetuneConfig, every: bool, as_json: bool) -> None:
    """A table per group and a row per dataset; its quadrant relative to the configured target.

    Args:
        config: whose first target and folders of manifests count.
        every: whether curricula, controls and validation sets are listed, too.
        as_json: whether the rows are for a program.
    """
    catalogue = Catalogue(config.manifests)
    target = catalogue.load(config.data.stages[0].set)
    groups = manifest_groups(config.manifests)
    shown = [group for group in DatasetGroup if every or not group.by_role]
    tables, rows = [], []
    for group in shown:
        manifests = [catalogue.load(name) for name in catalogue.names() if groups[name] is group]
        manifests.sort(key=lambda one: not one.is_here)
        if manifests:
            tables.append(_table(group, target, manifests))
        rows += [_row(group, target, manifest) for manifest in manifests]
    print_rows(Group(*tables), rows, as_json)
    left_out = sum(group not in shown for group in groups.values())
    line = f"{left_out} more: curricula, controls and validation sets; add --all." if left_out else ""
    if as_json:
        sys.stderr.write(f"{line}\n" if line else "")  # standard output is for the program
        return
    sequences = [name for name, group in sequence_groups(groups).items() if group is None or group in shown]
    say(f"Quadrants are relative to {target.name}. Sequences (data=<name>): {', '.join(sorted(sequences))}.")
    if line:
        say(line)


def _table(group: DatasetGroup, target: Manifest, manifests: list[Manifest]) -> Table:
    table = Table(title=_TITLES[group], title_justify="left")
    for column in ("name", "image domains", "text tasks", "items", "quadrant"):
        table.add_column(column, overflow="fold")
    for manifest in manifests:
        sizes = ", ".join(f"{split} {described.n or '?'}" for split, described in manifest.splits.items())
        sizes += "" if manifest.is_here else " (on the Hub)" if manifest.is_on_hub else " (not downloaded)"
        table.add_row(
            manifest.name,
            ", ".join(manifest.image_domains),
            ", ".join(manifest.text_tasks),
            sizes or f"mixture of {len(manifest.mixture)}",
            quadrant_label(target, manifest),
        )
    return table


def _row(group: DatasetGroup, target: Manifest, manifest: Manifest) -> dict[str, object]:
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
