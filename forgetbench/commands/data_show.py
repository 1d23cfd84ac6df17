"""`forgetbench data show`: manifests, sizes, a few items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from forgetbench.config import FinetuneConfig
from forgetbench.core.records import Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.item_texts import printable
from forgetbench.data.manifest import Manifest
from forgetbench.data.quadrant import quadrant_label
from forgetbench.data.sources import load_samples, read_split
from forgetbench.terminal.console import console

if TYPE_CHECKING:
    from forgetbench.data.collate import Encoder

_LONGEST = 4000
"""Characters of a text that are shown."""


ITEMS = 3
"""Of each split, where a model is named."""


def data_show(config: FinetuneConfig, names: Sequence[str], as_tokens: bool = False) -> None:
    """A dataset's manifest and one item of each split, or the first few as the configured model gets them.

    Args:
        config: whose first target, model and folders of manifests count.
        names: of the datasets.
        as_tokens: whether items are rendered by the model's chat template and counted in its tokens; needs its
            processor, no weights.

    Raises:
        UserError: a set or the processor cannot be read, or an item not be rendered.
    """
    catalogue = Catalogue(config.manifests)
    target = catalogue.load(config.data.stages[0].set)
    encoder = _encoder(config) if as_tokens else None
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
            if encoder is None:
                table.add_row(f"{split} item", _sample_text(_example(manifest, split)), end_section=True)
            else:
                _add_rendered_rows(table, encoder, split, _first_samples(manifest, split))
        console.print(table)


def _encoder(config: FinetuneConfig) -> Encoder:
    from forgetbench.data.collate import Encoder
    from forgetbench.models.pretrained import load_processor

    return Encoder(load_processor(config.model), config.model.max_pixels, config.model.system_prompt)


def _add_rendered_rows(table: Table, encoder: Encoder, split: str, samples: Sequence[Sample]) -> None:
    """Add rows for each item: with its special tokens, and its length in tokens."""
    from forgetbench.data.rendered import render

    for sample in samples:
        rendered = render(encoder, sample)
        table.add_row(f"{split} prompt", printable(rendered.prompt))
        table.add_row("reply", printable(rendered.reply))
        table.add_row("tokens", rendered.counted, end_section=True)


def _example(manifest: Manifest, split: str) -> Sample:
    """One drawn item; the split's first item where the drawn record yields none."""
    drawn = read_split(manifest, split, limit=1).samples
    return (drawn or load_samples(manifest, split))[0]


def _first_samples(manifest: Manifest, split: str) -> Sequence[Sample]:
    return read_split(manifest, split, limit=ITEMS).samples or [_example(manifest, split)]


def _sample_text(sample: Sample) -> str:
    """An item as it is read: each turn with its speaker, where there are several; each picture's name at its place."""
    if sample.is_question:
        pictures = "".join(f"[{image.name}]\n" for image in sample.images)
        return printable(f"{pictures}{_shortened(sample.prompt)}\n=> {_shortened(sample.answer)}")
    lines = []
    for turn in sample.turns:
        text = "".join(part if isinstance(part, str) else f"[{part.name}]" for part in turn.parts)
        speaker = f"{turn.speaker}{'' if turn.has_loss else ' (no loss)'}: " if len(sample.turns) > 1 else ""
        lines.append(speaker + _shortened(text))
    return printable("\n".join([*lines, f"=> {_shortened(sample.answer)}"]))


def _shortened(text: str) -> str:
    """A text cut for a table: a terminal takes minutes to print megabytes."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"


def _origin(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Where a set comes from, and whether its layout was ever verified."""
    source = manifest.source
    if source and source.hub_id:
        yield "hub_id", source.hub_id + (f" (revision {source.revision})" if source.revision else "")
    if source and source.root.startswith("downloads:"):
        yield "files in", str(manifest.root)
    if not manifest.verified:
        yield "verified", "no (`forgetbench data check --remote` checks it)"
