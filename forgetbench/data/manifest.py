"""Dataset manifests: one YAML file per dataset, checked against the dataclasses below.

A manifest says where items are (`source`, `splits`), what they are (`image_domains`, `text_tasks`, from which the
quadrant follows), how they are asked (`prompt`, `answer`) and how errors cluster (`cluster_by`). A manifest with a
`mixture` instead of a source is a weighted blend of other manifests: a mixture is a dataset like any other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.core.paths import EMBEDDED, is_relative, leads_out
from forgetbench.core.records import AnswerKind, Metric, Role

DOWNLOADS = "FORGETBENCH_DOWNLOADS"
"""Environment variable: the folder that `downloads:` stands for; by default `downloads` where the command runs."""


class SourceKind(StrEnum):
    """Where rows are read from. A row is an item, or a conversation of any layout (`data.conversations`)."""

    jsonl = "jsonl"
    """JSON lines, one list (.json), or a table as text (.csv, .tsv), also gzipped; pictures in a folder or a ZIP."""
    parquet = "parquet"
    """Parquet; pictures as a struct of bytes (the Hub's layout), raw bytes, or paths."""
    llava = "llava"
    """One JSON list, whatever the file is called: LLaVA's training and question files."""
    hub = "hub"
    """A Hub dataset by id and revision, or a local folder of the same layout."""


class AnswerIs(StrEnum):
    """How a split's items say which of their options is right."""

    text = "text"
    """By its text, or by its value where options are numbers."""
    letter = "letter"
    """By its letter."""
    index_from_0 = "index_from_0"
    """By its place, counted from 0."""
    index_from_1 = "index_from_1"
    """By its place, counted from 1."""


@dataclass
class Source:
    """Where the items are."""

    kind: SourceKind = SourceKind.jsonl
    root: str = "."
    """Folder of the files, relative to the manifest; `embedded:` is the world inside the package, `downloads:` the
    folder that public sets are downloaded to."""
    images: str = "."
    """Folder or .zip that the items' image names are looked up in, relative to root."""
    hub_id: str | None = None
    hub_aliases: list[str] = field(default_factory=list)
    """Other ids of the same set, tried in order where `hub_id` is not found: owners rename themselves."""
    hub_config: str | None = None
    """One of the set's configurations, or several as `a+b`, whose rows are read in turn."""
    revision: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    """Our field name -> the column's name, where they differ."""
    adapter: str | None = None
    """Turns a public set's own rows into items, where renaming columns is not enough; one of `data.adapters`."""
    streaming: bool = False
    """Read the Hub's rows as they come instead of downloading the set first; for sets larger than the disk."""
    sha256: dict[str, str] = field(default_factory=dict)
    """File, relative to root -> its digest; `forgetbench data check` verifies them."""

    @property
    def hub_configs(self) -> list[str | None]:
        """The configurations that are read, [None] where none is named."""
        return list(self.hub_config.split("+")) if self.hub_config else [None]


@dataclass
class Split:
    """One split: its files (or the Hub's split name) and how many items it has."""

    files: list[str] = field(default_factory=list)
    hub_split: str | None = None
    n: int | None = None
    limit: int | None = None
    """Only so many of the items, drawn over the whole split."""
    columns: dict[str, str] = field(default_factory=dict)
    """As the source's, for this split alone: public sets often lay out training and test files differently."""
    references: str | None = None
    """File, relative to root, with everything that is accepted: COCO's captions, found by the picture's file name, or
    TextVQA's lists of answers, found by the item's id."""


@dataclass
class Manifest:
    """One dataset: a row of fields that anything about it is computed from."""

    name: str = ""
    """The file's stem."""
    title: str = ""
    path: str = ""
    """The manifest's own file."""
    source: Source | None = None
    mixture: dict[str, float] = field(default_factory=dict)
    """Instead of a source: `name` or `name:split` -> weight."""
    splits: dict[str, Split] = field(default_factory=dict)
    train_split: str = "train"
    eval_split: str = "test"
    image_domains: list[str] = field(default_factory=list)
    text_tasks: list[str] = field(default_factory=list)
    shift: str = ""
    """`near` marks a slight shift inside the declared domain (ImageNetV2's role); shown, never averaged away."""
    probe: bool = False
    """The class-label-distractor probe: stays out of quadrant means, reports the mischoice rate."""
    role: Role | None = None
    """Keeps the set out of `data list` and `--help`, unless all are asked for; changes nothing else."""
    prompt: str = "{question}"
    """The user's last turn; {question}, {options} (lettered lines) and any item field may appear."""
    answer: AnswerKind = AnswerKind.text
    answer_is: AnswerIs | None = None
    """How items say which option is right; null: as a split's items agree on (`data.item_answers`)."""
    options: list[str] = field(default_factory=list)
    """Options that all items share (such as yes, no); items may bring their own."""
    metric: Metric = Metric.accuracy
    cluster_by: list[str] = field(default_factory=lambda: ["image"])
    """Item fields whose equal values make a cluster; two names give two-way clustering."""
    max_new_tokens: int | None = None
    """Null: as many as the longest accepted answer needs, and a few more."""
    stop: list[str] = field(default_factory=list)
    """Texts that end a written answer."""
    verified: bool = True
    """False: the layout is from documents, never checked against the files; `data check --remote` does."""
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    notes: str = ""

    @property
    def root(self) -> Path:
        """Folder that files and pictures are relative to."""
        assert self.source is not None
        if self.source.root.startswith("embedded:"):
            return EMBEDDED / self.source.root.removeprefix("embedded:")
        if self.source.root.startswith("downloads:"):
            return downloads() / self.source.root.removeprefix("downloads:")
        return Path(
            os.path.realpath(Path(self.path).parent / self.source.root)
        )  # `resolve` fails where links form a loop

    @property
    def is_on_hub(self) -> bool:
        """Whether the rows come from the Hub, and from no local folder of the same layout."""
        hub_id = self.source.hub_id if self.source else None
        return hub_id is not None and not (Path(self.path).parent / hub_id).is_dir()

    @property
    def is_public(self) -> bool:
        """Whether the files are downloaded by whoever wants them."""
        return self.source is not None and (self.source.root.startswith("downloads:") or self.is_on_hub)

    @property
    def is_here(self) -> bool:
        """Whether there is something to read without asking the network: false of a set on the Hub, cached or not."""
        files = [name for split in self.splits.values() for name in (*split.files, split.references) if name]
        return not self.is_on_hub and (not self.is_public or all((self.root / name).is_file() for name in files))

    def file(self, name: str) -> Path:
        """One of its files.

        Raises:
            UserError: the name leads out of `root`.
        """
        path = self.root / name
        if not is_relative(name) or leads_out_of_data(self.root, path):
            raise UserError(
                f"{self.path}: file '{name}' is outside of {self.root}; name the folder that it is in as `source.root`."
            )
        return path

    def split(self, name: str) -> Split:
        """One of the splits.

        Raises:
            UserError: there is none of that name.
        """
        if name not in self.splits:
            has = ", ".join(self.splits) or "none"
            what = (
                f"no split '{name}'" if name else "none of its splits is for this; see `train_split` and `eval_split`"
            )
            raise UserError(f"{self.path}: {what} (it has: {has}).")
        return self.splits[name]


def downloads() -> Path:
    """Folder of public sets."""
    return Path(os.environ.get(DOWNLOADS, "downloads")).resolve()


def leads_out_of_data(folder: str | Path, path: str | Path) -> bool:
    """Whether a file in a folder of data is a link to a place outside of it.

    Links may lead to, and stand in, the folder of downloads: what is there is the user's own arrangement.
    """
    if not leads_out(folder, path):
        return False
    return leads_out(downloads(), path) and not Path(folder).is_relative_to(downloads())
