"""Build the embedded world: `python -m tools.build_world --cache DIR`."""

from __future__ import annotations

import argparse
import gzip
import json
import re
from pathlib import Path

from tools.build_world import fetch, images, manifests, tasks, turns, validation
from tools.build_world.distractors import neighbors, ranked
from tools.build_world.items import Row
from tools.build_world.sets import World, picture_sets
from tools.build_world.text import DIGITS, GARMENTS, read_concepts
from tools.build_world.words import word_sets

REPOSITORY = Path(__file__).resolve().parents[2]


def _write(path: Path, rows: list[Row]) -> None:
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _words(rows: list[Row]) -> set[str]:
    """Distinct words of questions, options, answers and turns."""
    words: set[str] = set()
    for row in rows:
        parts = [row.get("question", ""), *row.get("options", []), row.get("class_name", "")]
        parts += [message["content"] for message in row.get("messages", [])]
        answer = row.get("answer", "")
        parts += answer if isinstance(answer, list) else [str(answer)]
        words.update(re.findall(r"[a-z]+", " ".join(parts).lower()))
    return words


def main() -> None:
    """Fetch, draw, write, report."""
    parser = argparse.ArgumentParser(prog="python -m tools.build_world", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for raw packages")
    parser.add_argument("--out", type=Path, default=REPOSITORY, help="repository to write into")
    arguments = parser.parse_args()
    world_folder = arguments.out / "forgetbench/embedded/world"
    (world_folder / "items").mkdir(parents=True, exist_ok=True)

    report: list[str] = []
    folders = fetch.fetch(arguments.cache)
    concepts = read_concepts()
    pictures = images.draw(folders, concepts, report)
    held_out = validation.garments(folders[fetch.DEB[0]], pictures, report)
    new = tasks.draw(folders, concepts, pictures)
    images.check([*pictures, *held_out, *new], report)
    images.pack(pictures, world_folder / "images.zip")
    images.pack(held_out, world_folder / "validation.zip")
    images.pack(new, world_folder / tasks.ZIP, tasks.COLORS)
    pictures += held_out + new

    groups = {p.group: [q for q in pictures if q.group == p.group] for p in pictures}
    garment_tops, confusion, accuracy = ranked(
        groups["fashion/train"],
        groups["fashion/test"] + groups["fashion/shifted"] + groups["fashion/validation"],
        GARMENTS,
    )
    report.append(f"fashion: linear classifier, out of fold: {accuracy:.3f}")
    digit_tops, digit_confusion, accuracy = ranked(groups["digits/train"], groups["digits/test"], DIGITS)
    report.append(f"digits: linear classifier, out of fold: {accuracy:.3f}")
    codes = fetch.emoji_codes(folders[fetch.EMOJIBASE])
    noto = folders[fetch.NOTO]
    arts = {c.name: images.glyph(fetch.picture_file(noto, fetch.NOTO, codes[c.label])) for c in concepts}
    by_class = {
        names[i]: [names[k] for k in (-row).argsort() if k != i][:5]
        for names, matrix in ((GARMENTS, confusion), (DIGITS, digit_confusion))
        for i, row in enumerate(matrix)
    }
    tops = {**garment_tops, **digit_tops, **neighbors(arts, concepts), **by_class}
    tables = World(pictures, concepts, tops, confusion)
    sets = {
        **picture_sets(tables), **word_sets(tables), **tasks.task_sets(groups, concepts),
        **turns.turn_sets(groups, concepts),
    }  # fmt: skip

    for old in (world_folder / "items").glob("*.jsonl.gz"):
        old.unlink()
    for (name, split), rows in sorted(sets.items()):
        _write(world_folder / "items" / f"{name}.{split}.jsonl.gz", rows)
    counts = {key: len(rows) for key, rows in sets.items()}
    manifests.write(arguments.out / "data_manifests", world_folder, counts)

    every = [row for rows in sets.values() for row in rows]
    report += [f"{name}.{split}: {n}" for (name, split), n in sorted(counts.items())]
    size = sum(path.stat().st_size for path in world_folder.rglob("*.*") if path.is_file())
    zipped = (world_folder / "images.zip").stat().st_size
    report.append(
        f"{len(pictures)} pictures, {len(every)} items, {len(concepts)} emoji concepts, "
        f"{len(_words(every))} distinct words; images.zip {zipped} bytes, world {size} bytes"
    )
    print("\n".join(report))


if __name__ == "__main__":
    main()
