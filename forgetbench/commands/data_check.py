"""`forgetbench data check`: datasets beside their manifests, and manifests beside the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import chain

from rich.console import Group
from rich.table import Table

from forgetbench.config import FinetuneConfig
from forgetbench.core.errors import UserError
from forgetbench.data.audit.duplicates import Fingerprints, count_duplicates, nearest_pairs
from forgetbench.data.audit.verify import Verification, verify
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.remote import compare_with_hub, repositories
from forgetbench.data.repository import Hub
from forgetbench.terminal.console import print_rows


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
    fingerprints = Fingerprints()
    chosen = names or [name for name in catalogue.names() if _is_here(catalogue, name)]
    verified = [_verified(catalogue, name, fingerprints) for name in chosen]
    pairs = nearest_pairs(
        chain.from_iterable(one.evaluated.values() for one in verified),
        chain.from_iterable(one.train.values() for one in verified),
    )
    table = Table(title="datasets checked", title_justify="left")
    for column in ("name", "items", "pictures", "in training: identical", "near", "problems"):
        table.add_column(column, overflow="fold")
    sound, rows = True, []
    for one in verified:
        found = count_duplicates(pairs[pixels] for pixels in one.evaluated if pixels in pairs)
        problems = list(one.problems)
        if found.identical:
            problems.append(f"{found.identical} evaluation pictures are in a training split")
        sound &= not problems
        sizes = ", ".join(f"{split} {n}" for split, n in one.sizes.items())
        sizes = sizes or ("mixture" if one.is_mixture else "-")
        shown = [str(found.identical), str(found.near)] if one.evaluated else ["", ""]
        pictures = "" if one.is_mixture else str(one.contents.pictures)
        table.add_row(one.name, sizes, pictures, *shown, "\n".join(problems) or "none")
        in_training = asdict(found) if one.evaluated else None
        rows.append(
            {"name": one.name, "items": one.sizes, **asdict(one.contents), "left_out": one.left_out}
            | {"in_training": in_training, "problems": problems}
        )
    talks = [one for one in verified if one.contents.conversations or one.left_out]
    print_rows(Group(table, _conversations(talks)) if talks else table, rows, as_json)
    return sound


def _conversations(verified: Sequence[Verification]) -> Table:
    """What kind of conversations the datasets that have some hold."""
    table = Table(title="conversations", title_justify="left")
    for column in ("name", "layout", "conversations", "turns", "pictures", "system turns", "left out"):
        table.add_column(column, overflow="fold")
    for one in verified:
        found = one.contents
        layouts = "\n".join(
            f"{layout} {n}" if len(found.layouts) > 1 else layout for layout, n in found.layouts.items()
        )
        counts = (found.conversations, found.turns, found.pictures, found.system_turns)
        left_out = sum(map(len, one.left_out.values()))
        table.add_row(one.name, layouts or "-", *map(str, counts), str(left_out))
    return table


def _is_here(catalogue: Catalogue, name: str) -> bool:
    """Whether a dataset can be checked unasked: not a public one that is yet to be downloaded."""
    try:
        return catalogue.load(name).is_here
    except UserError:
        return True  # what is wrong with its manifest is a finding of the check


def _verified(catalogue: Catalogue, name: str, fingerprints: Fingerprints) -> Verification:
    """What is wrong with a dataset; a manifest that cannot be read is a finding like any other."""
    try:
        manifest = catalogue.load(name)
        result = verify(manifest, fingerprints)
        parts = [leaf.manifest for leaf in catalogue.leaves(name)] if manifest.mixture else []
    except UserError as error:
        return Verification(name, (str(error),))
    problems = []
    for field in ("image_domains", "text_tasks") if parts else ():
        found = {value for part in parts for value in getattr(part, field)}
        if found != set(getattr(manifest, field)):
            problems.append(f"`{field}` must list what its parts have: {', '.join(sorted(found))}")
    return replace(result, problems=(*result.problems, *problems))


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
    if without_repository := [one.name for one in chosen if names and not repositories(one)]:
        raise UserError(f"{', '.join(without_repository)}: no repository of the Hub is named (`hub_id` or `homepage`).")
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
