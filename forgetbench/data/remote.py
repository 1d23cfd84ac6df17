"""What the Hub says of a set, beside what its manifest says."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from forgetbench.data.conversations import is_conversation
from forgetbench.data.manifest import Manifest
from forgetbench.data.repository import Described, Hub, Repository, UnreachableError

_PAGE = re.compile(r"huggingface\.co/datasets/([\w.-]+/[\w.-]+)")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


@dataclass(frozen=True)
class Comparison:
    """One set, beside its repository."""

    name: str
    repository: str | None
    """Id and full commit; None where it cannot be looked into."""
    differences: list[str]
    manifest_lines: list[str] = field(default_factory=list)
    """What the manifest should say."""
    notes: list[str] = field(default_factory=list)


def repositories(manifest: Manifest) -> list[str]:
    """Ids under which a set may be on the Hub; none for a local set."""
    source = manifest.source
    if source and manifest.is_on_hub:
        return [str(source.hub_id), *source.hub_aliases]
    return _PAGE.findall(manifest.homepage) if manifest.is_public else []


def compare_with_hub(manifest: Manifest, hub: Hub) -> Comparison:
    """One set beside what the Hub says of it."""
    source = manifest.source
    assert source is not None
    try:
        found = hub.repository(repositories(manifest), source.revision)
    except UnreachableError as error:
        return Comparison(manifest.name, None, [str(error)])
    on_hub = manifest.is_on_hub
    differences = list(_hub_differences(manifest, found) if on_hub else _file_differences(manifest, found))
    lines = [] if source.revision == found.commit or not on_hub else [f"revision: {found.commit}"]
    lines += ["verified: true"] * (not differences and not manifest.verified)
    notes = ["gated: needs `hf auth login`"] * found.gated
    notes += ["the Hub tells neither splits nor columns"] * (on_hub and not found.configs)
    notes += [f"found as {found.id}, not {source.hub_id}"] * (on_hub and found.id != source.hub_id)
    return Comparison(manifest.name, f"{found.id}@{found.commit}", differences, lines, notes)


def _hub_differences(manifest: Manifest, found: Repository) -> Iterator[str]:
    source = manifest.source
    assert source is not None
    alone = "default" if "default" in found.configs or len(found.configs) != 1 else next(iter(found.configs))
    configs = [name or alone for name in source.hub_configs]
    if not found.configs:
        return
    if unknown := [name for name in configs if name not in found.configs]:
        yield f"hub_config: {', '.join(unknown)} is not there; the Hub has {', '.join(found.configs)}"
        return
    for name in configs:
        yield from _column_differences(manifest, found.configs[name])
    for split, ours in manifest.splits.items():
        theirs = ours.hub_split or split
        sizes = [found.configs[name].sizes for name in configs]
        if "[" in theirs or not all(sizes):  # a slice has no size of its own
            continue
        if not all(theirs in one for one in sizes):
            yield f"split {theirs}: not there; the Hub has {', '.join(sizes[0])}"
            continue
        rows = [one[theirs] for one in sizes]
        # An adapter may leave rows out, or make several items of one.
        if source.adapter is None and ours.n is not None and None not in rows and ours.n != sum(filter(None, rows)):
            yield f"split {theirs}: n is {ours.n}; the Hub has {sum(filter(None, rows))} rows"


def _column_differences(manifest: Manifest, described: Described) -> Iterator[str]:
    """Columns that items need and the Hub lacks; an adapter knows its own."""
    source = manifest.source
    assert source is not None
    if not described.columns:
        return
    needed = set[str]()
    for split in manifest.splits.values():
        columns = source.columns | split.columns
        needed |= set(columns.values())
        if source.adapter is None:
            asked = {name for _, name, _, _ in string.Formatter().parse(manifest.prompt) if name} | {"answer"}
            if is_conversation(dict.fromkeys((*described.columns, *columns), True)):
                asked -= {"question", "answer"}
            needed |= {name for name in asked - {"options"} if name not in columns}
    if source.adapter is None and (missing := sorted(needed.difference(described.columns))):
        yield f"columns: no {', '.join(missing)}; the Hub has {', '.join(described.columns)}"


def _file_differences(manifest: Manifest, found: Repository) -> Iterator[str]:
    """Files that the manifest lists and the repository lacks, wherever below it they are."""
    assert manifest.source is not None
    root = manifest.source.root.removeprefix("downloads:")
    archives = [file for file in found.files if file.endswith(_ARCHIVES)]
    for split in manifest.splits.values():
        for name in split.files:
            whole = str(PurePosixPath(root) / name)
            if not any(f"/{whole}".endswith(f"/{file}") for file in found.files if file.endswith(name)):
                inside = f"; it may be inside {', '.join(archives[:3])}" if archives else ""
                yield f"file {name}: not in {found.id}{inside}"
