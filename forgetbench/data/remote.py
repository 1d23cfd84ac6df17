"""Compare a manifest with the dataset's repository on the Hub."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from forgetbench.data.conversations import is_conversation
from forgetbench.data.manifest import Manifest
from forgetbench.data.repository import ConfigInfo, Hub, Repository, UnreachableError

_PAGE = re.compile(r"huggingface\.co/datasets/([\w.-]+/[\w.-]+)")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


@dataclass(frozen=True)
class Comparison:
    """Differences between a manifest and the dataset's repository."""

    name: str
    repository: str | None
    """Id and full commit; None if the repository is not accessible."""
    differences: list[str]
    manifest_lines: list[str] = field(default_factory=list)
    """Lines that the manifest should have."""
    notes: list[str] = field(default_factory=list)


def repositories(manifest: Manifest) -> list[str]:
    """Hub ids of a dataset, in the order to try; empty for a local dataset."""
    source = manifest.source
    if source and manifest.is_on_hub:
        return [str(source.hub_id), *source.hub_aliases]
    return _PAGE.findall(manifest.homepage) if manifest.is_public else []


def compare_with_hub(manifest: Manifest, hub: Hub) -> Comparison:
    """Compare a manifest with the dataset's repository."""
    source = manifest.source
    assert source is not None
    try:
        repository = hub.repository(repositories(manifest), source.revision)
    except UnreachableError as error:
        return Comparison(manifest.name, None, [str(error)])
    on_hub = manifest.is_on_hub
    differences = list(_hub_differences(manifest, repository) if on_hub else _file_differences(manifest, repository))
    lines = [] if source.revision == repository.commit or not on_hub else [f"revision: {repository.commit}"]
    lines += ["verified: true"] * (not differences and not manifest.verified)
    notes = ["gated: needs `hf auth login`"] * repository.gated
    notes += ["the Hub tells neither splits nor columns"] * (on_hub and not repository.configs)
    notes += [f"found as {repository.id}, not {source.hub_id}"] * (on_hub and repository.id != source.hub_id)
    return Comparison(manifest.name, f"{repository.id}@{repository.commit}", differences, lines, notes)


def _hub_differences(manifest: Manifest, repository: Repository) -> Iterator[str]:
    source = manifest.source
    assert source is not None
    default = (
        "default" if "default" in repository.configs or len(repository.configs) != 1 else next(iter(repository.configs))
    )
    configs = [name or default for name in source.hub_configs]
    if not repository.configs:
        return
    if unknown := [name for name in configs if name not in repository.configs]:
        yield f"hub_config: {', '.join(unknown)} is not there; the Hub has {', '.join(repository.configs)}"
        return
    for name in configs:
        yield from _column_differences(manifest, repository.configs[name])
    for split, expected in manifest.splits.items():
        hub_split = expected.hub_split or split
        sizes = [repository.configs[name].sizes for name in configs]
        if "[" in hub_split or not all(sizes):  # the Hub has no size of a slice
            continue
        if not all(hub_split in split_sizes for split_sizes in sizes):
            yield f"split {hub_split}: not there; the Hub has {', '.join(sizes[0])}"
            continue
        rows = [split_sizes[hub_split] for split_sizes in sizes]
        # An adapter may leave rows out, or make several items of a row.
        if (
            source.adapter is None
            and expected.n is not None
            and None not in rows
            and expected.n != sum(filter(None, rows))
        ):
            yield f"split {hub_split}: n is {expected.n}; the Hub has {sum(filter(None, rows))} rows"


def _column_differences(manifest: Manifest, config: ConfigInfo) -> Iterator[str]:
    """Columns that items need and the Hub lacks; an adapter's columns are not known here."""
    source = manifest.source
    assert source is not None
    if not config.columns:
        return
    needed = set[str]()
    for split in manifest.splits.values():
        columns = source.columns | split.columns
        needed |= set(columns.values())
        if source.adapter is None:
            prompt_fields = {name for _, name, _, _ in string.Formatter().parse(manifest.prompt) if name} | {"answer"}
            if is_conversation(dict.fromkeys((*config.columns, *columns), True)):
                prompt_fields -= {"question", "answer"}
            needed |= {name for name in prompt_fields - {"options"} if name not in columns}
    if source.adapter is None and (missing := sorted(needed.difference(config.columns))):
        yield f"columns: no {', '.join(missing)}; the Hub has {', '.join(config.columns)}"


def _file_differences(manifest: Manifest, repository: Repository) -> Iterator[str]:
    """Files that the manifest lists and the repository has in none of its folders."""
    assert manifest.source is not None
    root = manifest.source.root.removeprefix("downloads:")
    archives = [file for file in repository.files if file.endswith(_ARCHIVES)]
    for split in manifest.splits.values():
        for name in split.files:
            path = str(PurePosixPath(root) / name)
            if not any(f"/{path}".endswith(f"/{file}") for file in repository.files if file.endswith(name)):
                hint = f"; it may be inside {', '.join(archives[:3])}" if archives else ""
                yield f"file {name}: not in {repository.id}{hint}"
