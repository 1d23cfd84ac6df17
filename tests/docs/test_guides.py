"""The guides: every file, script and command in them works as written, and their tables are complete."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from forgetbench.cli import app
from forgetbench.core.paths import shipped
from forgetbench.core.records import Decoding, Metric
from forgetbench.data.manifest import Manifest, Source, Split
from forgetbench.data.manifest_file import load_manifest
from forgetbench.tables.metrics import EXTRA_MEASURES

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = DOCS / "data.md"
MANIFESTS = {path.stem: load_manifest(path) for path in sorted(shipped("data_manifests").glob("*.yaml"))}
MIXTURES = [name for name, one in MANIFESTS.items() if one.mixture]
EMBEDDED = [name for name, one in MANIFESTS.items() if one.source and one.source.root.startswith("embedded:")]
BLOCK = re.compile(r"(?:`(?P<file>[\w./]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block; `file` is the name that the line before it ends in, if it does."""

    kind: str
    text: str
    file: str | None


def blocks(guide: Path) -> list[Block]:
    found = BLOCK.finditer(guide.read_text("utf-8"))
    return [Block(match["kind"], match["text"], match["file"]) for match in found]


def run(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "forgetbench"
    assert not app(arguments, standalone_mode=False), f"{command} failed"


def follow(block: Block, names: dict[str, Any]) -> None:
    if block.kind == "python":
        exec(block.text, names)
    elif block.kind == "bash":
        for command in block.text.splitlines():
            run(command)
    else:
        assert block.file, f"nothing says what file this is:\n{block.text}"
        Path(block.file).parent.mkdir(parents=True, exist_ok=True)
        Path(block.file).write_text(block.text, "utf-8")


@pytest.mark.parametrize(
    ("guide", "dataset"),
    [("data.md", "my_set"), ("scoring.md", "fashion_knowledge"), ("statistics.md", "fashion_knowledge")],
)
def test_a_guide_works_as_written_in_an_empty_folder(
    guide: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names: dict[str, Any] = {}
    for block in blocks(DOCS / guide):
        follow(block, names)
    assert Path("outputs/my_run/matrix.csv").is_file()
    assert dataset in Path("outputs/my_run/scores.csv").read_text()


def test_a_file_of_conversations_needs_a_manifest_of_at_most_eight_lines() -> None:
    section = GUIDE.read_text("utf-8").partition("\n## Conversations\n")[2].partition("\n## ")[0]
    manifests = [match["text"] for match in BLOCK.finditer(section) if match["kind"] == "yaml"]
    assert len(manifests) >= 5
    assert max(len(text.splitlines()) for text in manifests) <= 8


def test_every_field_of_a_manifest_is_explained() -> None:
    cells = re.findall(r"^\| (.*?) \|", GUIDE.read_text("utf-8"), re.MULTILINE)
    explained = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    wanted = {field.name for kind in (Manifest, Source) for field in fields(kind)}
    assert wanted - explained <= {"name", "path"}
    splits = next(line for line in GUIDE.read_text("utf-8").splitlines() if line.startswith("| `splits`"))
    assert all(f"`{field.name}`" in splits for field in fields(Split))


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_table_of_the_embedded_world_agrees_with_the_manifests(name: str) -> None:
    manifest = MANIFESTS[name]
    sizes = [str(manifest.splits[split].n) if split in manifest.splits else "" for split in ("train", "test")]
    lists = [", ".join(manifest.image_domains), ", ".join(manifest.text_tasks)]
    assert f"| `{name}` | {' | '.join([*lists, *sizes])} |" in GUIDE.read_text("utf-8")


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_is_named_below_the_table_of_the_embedded_world(name: str) -> None:
    assert f"`{name}`" in GUIDE.read_text("utf-8").partition("Mixtures of them")[2]


def test_every_metric_and_decoding_is_explained() -> None:
    text = (DOCS / "scoring.md").read_text("utf-8")
    names = [*Metric, *Decoding, *(measure.name for measure in EXTRA_MEASURES)]
    assert [name for name in names if f"`{name}`" not in text] == []
