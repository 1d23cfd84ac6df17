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
    verified = [_verify_dataset(catalogue, name, fingerprints) for name in chosen]
    pairs = nearest_pairs(
        chain.from_iterable(dataset.evaluated.values() for dataset in verified),
        chain.from_iterable(dataset.train.values() for dataset in verified),
    )
    table = Table(title="datasets checked", title_justify="left")
    for column in ("name", "items", "pictures", "in training: identical", "near", "problems"):
        table.add_column(column, overflow="fold")
    sound, rows = True, []
    for dataset in verified:
        duplicates = count_duplicates(pairs[pixels] for pixels in dataset.evaluated if pixels in pairs)
        problems = list(dataset.problems)
        if duplicates.identical:
            problems.append(f"{duplicates.identical} evaluation pictures are in a training split")
        sound &= not problems
        sizes = ", ".join(f"{split} {n}" for split, n in dataset.sizes.items())
        sizes = sizes or ("mixture" if dataset.is_mixture else "-")
        counts = [str(duplicates.identical), str(duplicates.near)] if dataset.evaluated else ["", ""]
        pictures = "" if dataset.is_mixture else str(dataset.contents.pictures)
        table.add_row(dataset.name, sizes, pictures, *counts, "\n".join(problems) or "none")
        in_training = asdict(duplicates) if dataset.evaluated else None
        rows.append(
            {"name": dataset.name, "items": dataset.sizes, **asdict(dataset.contents), "left_out": dataset.left_out}
            | {"in_training": in_training, "problems": problems}
        )
    with_conversations = [dataset for dataset in verified if dataset.contents.conversations or dataset.left_out]
    print_rows(Group(table, _conversation_table(with_conversations)) if with_conversations else table, rows, as_json)
    return sound


def _conversation_table(verified: Sequence[Verification]) -> Table:
    """A row per dataset with conversations: their layouts and counts."""
    table = Table(title="conversations", title_justify="left")
    for column in ("name", "layout", "conversations", "turns", "pictures", "system turns", "left out"):
        table.add_column(column, overflow="fold")
    for dataset in verified:
        contents = dataset.contents
        layouts = "\n".join(
            f"{layout} {n}" if len(contents.layouts) > 1 else layout for layout, n in contents.layouts.items()
        )
        counts = (contents.conversations, contents.turns, contents.pictures, contents.system_turns)
        left_out = sum(map(len, dataset.left_out.values()))
        table.add_row(dataset.name, layouts or "-", *map(str, counts), str(left_out))
    return table


def _is_here(catalogue: Catalogue, name: str) -> bool:
    """Whether a dataset is checked by default: a public set is only once it is downloaded."""
    try:
        return catalogue.load(name).is_here
    except UserError:
        return True  # the check reports what is wrong with its manifest


def _verify_dataset(catalogue: Catalogue, name: str, fingerprints: Fingerprints) -> Verification:
    """Verify a dataset; an unreadable manifest is one of its problems."""
    try:
        manifest = catalogue.load(name)
        result = verify(manifest, fingerprints)
        parts = [leaf.manifest for leaf in catalogue.leaves(name)] if manifest.mixture else []
    except UserError as error:
        return Verification(name, (str(error),))
    problems = []
    for field in ("image_domains", "text_tasks") if parts else ():
        part_values = {value for part in parts for value in getattr(part, field)}
        if part_values != set(getattr(manifest, field)):
            problems.append(f"`{field}` must list what its parts have: {', '.join(sorted(part_values))}")
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
    if without_repository := [manifest.name for manifest in chosen if names and not repositories(manifest)]:
        raise UserError(f"{', '.join(without_repository)}: no repository of the Hub is named (`hub_id` or `homepage`).")
    table = Table(title="datasets compared with the Hub", title_justify="left")
    for column in ("name", "repository", "differences", "for the manifest"):
        table.add_column(column, overflow="fold")
    sound, rows = True, []
    for manifest in filter(repositories, chosen):
        row = compare_with_hub(manifest, hub)
        sound &= not row.differences
        advice = "\n".join([*row.manifest_lines, *row.notes])
        table.add_row(row.name, row.repository or "-", "\n".join(row.differences) or "none", advice)
        rows.append(asdict(row))
    print_rows(table, rows, as_json)
    return sound
