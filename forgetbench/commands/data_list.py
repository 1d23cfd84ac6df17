"""`forgetbench data list`: every dataset that can be named."""

from __future__ import annotations

from rich.table import Table

from forgetbench.config import FinetuneConfig
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.quadrant import quadrant_label
from forgetbench.terminal.console import print_rows


def data_list(config: FinetuneConfig, as_json: bool) -> None:
    """A row per dataset, those on this machine first; its quadrant relative to the configured target."""
    catalogue = Catalogue(config.manifests)
    target = catalogue.load(config.data.stages[0].set)
    table = Table(title=f"datasets (quadrants relative to {target.name})", title_justify="left")
    for column in ("name", "image domains", "text tasks", "items", "quadrant"):
        table.add_column(column, overflow="fold")
    rows = []
    manifests = sorted(map(catalogue.load, catalogue.names()), key=lambda one: not one.is_here)
    for before, manifest in zip([*manifests[:1], *manifests], manifests, strict=False):
        if before.is_here and not manifest.is_here:
            table.add_section()
        name = manifest.name
        sizes = ", ".join(f"{split} {described.n or '?'}" for split, described in manifest.splits.items())
        sizes += "" if manifest.is_here else " (on the Hub)" if manifest.is_on_hub else " (not downloaded)"
        blend, quadrant = f"mixture of {len(manifest.mixture)}", quadrant_label(target, manifest)
        domains, tasks = ", ".join(manifest.image_domains), ", ".join(manifest.text_tasks)
        table.add_row(name, domains, tasks, sizes or blend, quadrant)
        rows.append(
            {
                "name": name,
                "image_domains": manifest.image_domains,
                "text_tasks": manifest.text_tasks,
                "items": {split: described.n for split, described in manifest.splits.items()},
                "downloaded": manifest.is_here,
                "mixture": manifest.mixture,
                "target": target.name,
                "quadrant": quadrant or None,
            }
        )
    print_rows(table, rows, as_json)
