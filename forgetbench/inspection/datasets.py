"""`forgetbench data`: what there is, before anything is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from rich.markup import escape
from rich.table import Table

from forgetbench.config import FinetuneConfig
from forgetbench.data.audit import NEAR, DatasetAudit, Pictures, audit_dataset, leak
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import Manifest
from forgetbench.data.quadrant import place
from forgetbench.data.sources import load_samples
from forgetbench.errors import UserError
from forgetbench.inspection.rows import print_rows
from forgetbench.reporting.console import console


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
        blend, quadrant = f"mixture of {len(manifest.mixture)}", _quadrant(target, manifest)
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


def data_show(config: FinetuneConfig, names: Sequence[str]) -> None:
    """A dataset's manifest and one item of each split, as the model will see it."""
    catalogue = Catalogue(config.manifests)
    target = catalogue.load(config.data.stages[0].set)
    for name in names:
        manifest = catalogue.load(name)
        table = Table(title=escape(f"{name}: {manifest.title}"), show_header=False, title_justify="left")
        for field in ("path", "licence", "citation", "homepage", "metric", "cluster_by", "notes"):
            if value := getattr(manifest, field):
                table.add_row(field, ", ".join(value) if isinstance(value, list) else str(value))
        table.add_row("image domains", ", ".join(manifest.image_domains) + (" (near shift)" * bool(manifest.shift)))
        table.add_row("text tasks", ", ".join(manifest.text_tasks))
        table.add_row("quadrant", f"{_quadrant(target, manifest)} (relative to {target.name})")
        for part, weight in manifest.mixture.items():
            table.add_row("mixture", f"{weight:g} x {part}")
        for label, value in _origin(manifest):
            table.add_row(label, value)
        if not manifest.is_here:
            told = "are on the Hub and read from there" if manifest.is_on_hub else "are not downloaded"
            table.add_row("items", f"{told}; {manifest.homepage}")
        for split in manifest.splits if manifest.is_here else ():
            sample = load_samples(manifest, split, limit=1)[0]
            pictures = "".join(f"[{image.name}]\n" for image in sample.images)
            table.add_row(f"{split} item", f"{pictures}{sample.prompt}\n=> {sample.answer}", end_section=True)
        console.print(table, markup=False)


def _origin(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Where a set comes from, and whether its files were ever seen to be laid out as its manifest says."""
    source = manifest.source
    if source and source.hub_id:
        yield "hub_id", source.hub_id + (f" (revision {source.revision})" if source.revision else "")
    if source and source.root.startswith("downloads:"):
        yield "files in", str(manifest.root)
    if not manifest.verified:
        yield "verified", "no (`forgetbench data check --remote` checks it)"


def data_check(config: FinetuneConfig, names: Sequence[str], as_json: bool) -> bool:
    """Verify datasets, and that no evaluation picture is in any training split of those checked.

    Args:
        config: names the folders of manifests.
        names: of the datasets; without any, all that are on this machine.
        as_json: write for a program.

    Returns:
        Whether everything holds.
    """
    catalogue = Catalogue(config.manifests)
    pictures = Pictures()
    chosen = names or [name for name in catalogue.names() if _is_here(catalogue, name)]
    audits = [_audit(catalogue, name, pictures) for name in chosen]
    train = list(chain.from_iterable(audit.train.values() for audit in audits))
    table = Table(title="datasets checked", title_justify="left")
    for column in ("name", "items", "in training: identical", f"near (< {NEAR:g})", "problems"):
        table.add_column(column, overflow="fold")
    sound, rows = True, []
    for audit in audits:
        found = leak(audit.evaluated, train)
        problems = audit.problems + [f"{found.identical} evaluation pictures are in a training split"] * bool(
            found.identical
        )
        sound &= not problems
        sizes = ", ".join(f"{split} {n}" for split, n in audit.sizes.items())
        sizes = sizes or ("mixture" if audit.is_mixture else "-")
        shown = [str(found.identical), str(found.near)] if audit.evaluated else ["", ""]
        table.add_row(audit.name, sizes, *shown, "\n".join(problems) or "none")
        leaks = {"identical": found.identical, "near": found.near} if audit.evaluated else None
        rows.append({"name": audit.name, "items": audit.sizes, "in_training": leaks, "problems": problems})
    print_rows(table, rows, as_json)
    return sound


def _is_here(catalogue: Catalogue, name: str) -> bool:
    """Whether a dataset can be checked unasked: not a public one that is yet to be downloaded."""
    try:
        return catalogue.load(name).is_here
    except UserError:
        return True  # what is wrong with its manifest is a finding of the check


def _audit(catalogue: Catalogue, name: str, pictures: Pictures) -> DatasetAudit:
    """What is wrong with a dataset; a manifest that cannot be read is a finding like any other."""
    try:
        manifest = catalogue.load(name)
        result = audit_dataset(manifest, pictures)
        parts = [leaf.manifest for leaf in catalogue.leaves(name)] if manifest.mixture else []
    except UserError as error:
        return DatasetAudit(name, [str(error)])
    for field in ("image_domains", "text_tasks") if parts else ():
        found = {value for part in parts for value in getattr(part, field)}
        if found != set(getattr(manifest, field)):
            result.problems.append(f"`{field}` must list what its parts have: {', '.join(sorted(found))}")
    return result


def _quadrant(target: Manifest, manifest: Manifest) -> str:
    if manifest.mixture:
        return ""
    placement = place(target, manifest)
    if placement.quadrant:
        return placement.quadrant + (" (near)" if manifest.shift else "")
    reason = "probe" if manifest.probe else "partial overlap"
    return f"none ({reason}: {placement.text_axis} text, {placement.image_axis} image)"
