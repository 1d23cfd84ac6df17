"""`forgetbench data check`: datasets beside their manifests, and manifests beside the Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain

from rich.table import Table

from forgetbench.config import FinetuneConfig
from forgetbench.core.errors import UserError
from forgetbench.data.audit.splits import NEAR, DatasetAudit, Pictures, audit_dataset, leak
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.remote import compare_with_hub, repositories
from forgetbench.data.repository import Hub
from forgetbench.terminal.console import print_rows

_PAGE = re.compile(r"huggingface\.co/datasets/([\w.-]+/[\w.-]+)")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


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


def check_remote(config: FinetuneConfig, names: Sequence[str], as_json: bool) -> bool:
    """Compare manifests with the Hub: ids, revisions, configurations, splits, columns, sizes, files.

    Args:
        config: names the folders of manifests.
        names: of the datasets; without any, all that name a repository of the Hub.
        as_json: write for a program.

    Returns:
        Whether every set is as its manifest says.

    Raises:
        UserError: there is no connection, or a set names no repository.
    """
    hub, catalogue = Hub(), Catalogue(config.manifests)
    chosen = [catalogue.load(name) for name in names or catalogue.names()]
    if strangers := [one.name for one in chosen if names and not repositories(one)]:
        raise UserError(f"{', '.join(strangers)}: no repository of the Hub is named (`hub_id` or `homepage`).")
    table = Table(title="datasets compared with the Hub", title_justify="left")
    for column in ("name", "repository", "differences", "for the manifest"):
        table.add_column(column, overflow="fold")
    sound, rows = True, []
    for manifest in (one for one in chosen if repositories(one)):
        row = compare_with_hub(manifest, hub)
        sound &= not row.differences
        advice = "\n".join([*row.manifest_lines, *row.notes])
        table.add_row(row.name, row.repository or "-", "\n".join(row.differences) or "none", advice)
        rows.append(asdict(row))
    print_rows(table, rows, as_json)
    return sound
