"""`forgetbench data show`: manifests, sizes, a few items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from forgetbench.config import FinetuneConfig
from forgetbench.core.records import Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.item_texts import printable
from forgetbench.data.manifest import Manifest
from forgetbench.data.quadrant import quadrant_label
from forgetbench.data.sources import load_samples, read_split
from forgetbench.terminal.console import console

_LONGEST = 4000
"""Characters of a text that are shown."""


def data_show(config: FinetuneConfig, names: Sequence[str]) -> None:
    """A dataset's manifest and one item of each split, as the model will see it."""
    catalogue = Catalogue(config.manifests)
    target = catalogue.load(config.data.stages[0].set)
    for name in names:
        manifest = catalogue.load(name)
        table = Table(title=f"{name}: {manifest.title}", show_header=False, title_justify="left")
        for field in ("path", "licence", "citation", "homepage", "metric", "cluster_by", "notes"):
            if value := getattr(manifest, field):
                table.add_row(field, _shortened(", ".join(value) if isinstance(value, list) else str(value)))
        table.add_row("image domains", ", ".join(manifest.image_domains) + (" (near shift)" * bool(manifest.shift)))
        table.add_row("text tasks", ", ".join(manifest.text_tasks))
        table.add_row("quadrant", f"{quadrant_label(target, manifest)} (relative to {target.name})")
        for part, weight in manifest.mixture.items():
            table.add_row("mixture", f"{weight:g} x {part}")
        for label, value in _origin(manifest):
            table.add_row(label, value)
        if not manifest.is_here:
            message = "are on the Hub and read from there" if manifest.is_on_hub else "are not downloaded"
            table.add_row("items", f"{message}; {manifest.homepage}")
        for split in manifest.splits if manifest.is_here else ():
            table.add_row(f"{split} item", _shown(_example(manifest, split)), end_section=True)
        console.print(table)


def _example(manifest: Manifest, split: str) -> Sample:
    """One item; where the record drawn first makes none, the split's first."""
    drawn = read_split(manifest, split, limit=1).samples
    return (drawn or load_samples(manifest, split))[0]


def _shown(sample: Sample) -> str:
    """An item as it is read: each turn with its speaker, where there are several; each picture's name at its place."""
    if sample.is_question:
        pictures = "".join(f"[{image.name}]\n" for image in sample.images)
        return printable(f"{pictures}{_shortened(sample.prompt)}\n=> {_shortened(sample.answer)}")
    said = []
    for turn in sample.turns:
        text = "".join(part if isinstance(part, str) else f"[{part.name}]" for part in turn.parts)
        speaker = f"{turn.speaker}{'' if turn.has_loss else ' (no loss)'}: " if len(sample.turns) > 1 else ""
        said.append(speaker + _shortened(text))
    return printable("\n".join([*said, f"=> {_shortened(sample.answer)}"]))


def _shortened(text: str) -> str:
    """A text as far as a reader of a table would read it; a terminal takes minutes for megabytes."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"


def _origin(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Where a set comes from, and whether its files were ever seen to be laid out as its manifest says."""
    source = manifest.source
    if source and source.hub_id:
        yield "hub_id", source.hub_id + (f" (revision {source.revision})" if source.revision else "")
    if source and source.root.startswith("downloads:"):
        yield "files in", str(manifest.root)
    if not manifest.verified:
        yield "verified", "no (`forgetbench data check --remote` checks it)"
