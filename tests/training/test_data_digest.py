"""The digest of training data is over what pictures hold, so that a picture replaced under its name is other data."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.core.errors import UserError
from forgetbench.core.files import read_json, write_json
from forgetbench.core.records import AnswerKind, ImageRef, Sample
from forgetbench.data.mix import WeightedSet
from forgetbench.training import data_digest
from forgetbench.training.data_digest import DataDigests


def picture(color: str) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(held, "PNG")
    return held.getvalue()


def digest(images: Sequence[ImageRef], question: str = "?") -> str:
    samples = [Sample.question(str(k), question, "A", AnswerKind.text, (image,)) for k, image in enumerate(images)]
    return DataDigests().digest([WeightedSet("toy", samples, 1.0)])


@pytest.mark.parametrize("archive", [False, True])
def test_a_picture_replaced_under_its_name_is_other_data(tmp_path: Path, archive: bool) -> None:
    held, times = tmp_path / "pictures.zip", count(1)

    def written(color: str) -> str:
        if archive:
            with zipfile.ZipFile(held, "w") as made:
                made.writestr("a.png", picture(color))
            os.utime(held, (0, next(times)))
            return digest([ImageRef(str(held), "a.png")])
        (tmp_path / "a.png").write_bytes(picture(color))
        return digest([ImageRef(str(tmp_path), "a.png")])

    first, second, third = written("red"), written("blue"), written("red")
    assert first == third != second


def test_a_picture_is_told_by_what_it_holds_and_not_by_its_name(tmp_path: Path) -> None:
    for name, color in {"a.png": "red", "b.png": "blue", "c.png": "red"}.items():
        (tmp_path / name).write_bytes(picture(color))
    a, b, c = (ImageRef(str(tmp_path), name) for name in ("a.png", "b.png", "c.png"))
    assert digest([a, b]) == digest([c, b]) != digest([b, a])
    assert digest([a]) != digest([a], "What?")
    (red, blue), more = (ImageRef("t", "x", picture(color)) for color in ("red", "blue")), ImageRef("t", "y")
    assert digest([red]) != digest([blue])
    with pytest.raises(UserError, match="Picture 'y' cannot be read"):
        digest([more])


def test_a_picture_is_read_once_for_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(picture("red"))
    read = list[str]()
    real = data_digest.read_image
    monkeypatch.setattr(data_digest, "read_image", lambda image: read.append(image.name) or real(image))
    digests, image = DataDigests(), ImageRef(str(tmp_path), "a.png")
    samples = [Sample.question(str(k), "?", "A", AnswerKind.text, (image, image)) for k in range(3)]
    results = {digests.digest([WeightedSet("toy", samples, 1.0)]) for _ in range(2)}
    assert (len(results), read) == (1, ["a.png"])


def test_what_took_long_to_read_is_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, kept = tmp_path / "held", tmp_path / "kept"
    held.mkdir()
    for name in ("a.png", "b.png"):
        (held / name).write_bytes(picture("red"))
        os.utime(held / name, (0, 1))
    read = list[str]()
    real = data_digest.read_image
    monkeypatch.setattr(data_digest, "read_image", lambda image: read.append(image.name) or real(image))

    def digest() -> str:
        data_digest._known_digest.cache_clear()  # as in another process
        images = (ImageRef(str(held), "a.png"), ImageRef(str(held), "b.png"))
        samples = [Sample.question("0", "?", "A", AnswerKind.text, images)]
        return DataDigests(kept).digest([WeightedSet("toy", samples, 1.0)])

    first = digest()
    assert not kept.exists()
    monkeypatch.setattr(data_digest, "CACHE_FROM_S", 0.0)
    assert (digest(), digest(), read) == (first, first, ["a.png", "b.png"] * 2)
    (held / "b.png").write_bytes(picture("blue"))
    assert digest() != first
    assert read[4:] == ["b.png"]
    for path in kept.iterdir():
        path.write_text("{")
    assert digest() != first
    assert read[5:] == ["a.png", "b.png"]


# Runs.


MANIFEST = """
source: {root: .}
splits: {train: {files: [items.jsonl]}, test: {files: [items.jsonl]}}
image_domains: [dots]
text_tasks: [colour]
"""
TRAIN = [
    *("finetune", "model=tiny_random", "name=run", "recipe.steps=2", "recipe.batch_size=2", "threads=1"),
    "recipe.checkpoints.log_spaced=1",
]
SCORE = ["eval-matrix", "run=outputs/run", "matrix.datasets=[dots]", "threads=1", "matrix.representation.enabled=false"]


@pytest.fixture
def dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data_manifests"
    folder.mkdir()
    for name in ("dots", "spots"):
        rows = [
            {"id": color, "image": f"{name}_{color}.png", "question": "?", "answer": color} for color in ("red", "blue")
        ]
        for row in rows:
            (folder / row["image"]).write_bytes(picture(row["id"]))
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (folder / f"{name}.yaml").write_text(MANIFEST.replace("items", name))
    return folder


def output_of(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize(
    "data",
    [
        ["data=spots", "recipe.mix.data=[dots]", "recipe.mix.ratio=0.5"],
        ["data.stages=[{set: spots},{set: dots}]"],
        ["data=spots", "recipe.replay.samples=2", "recipe.replay.earlier=[dots]"],
    ],
    ids=["mixed in", "of the second stage", "replayed"],
)
def test_a_run_notices_a_replaced_picture_wherever_it_is_trained_on(dots: Path, data: list[str]) -> None:
    code, output = output_of(*TRAIN, *data)
    assert code == 0, output
    assert "already trained" in output_of(*TRAIN, *data)[1]
    (dots / "dots_red.png").write_bytes(picture("grey"))
    code, output = output_of(*TRAIN, *data)
    assert code == 2
    assert "it differs in: the training data" in output
    (dots / "dots_red.png").write_bytes(picture("red"))
    assert output_of(*TRAIN, *data)[0] == 0


def test_a_run_from_before_says_that_the_definition_changed_and_is_scored_as_ever(dots: Path) -> None:
    assert output_of(*TRAIN, "data=dots")[0] == 0
    path = Path("outputs/run/run.json")
    content = read_json(path)
    assert content.pop("data_digest_version") == 2
    write_json(path, content | {"data_digests": ["of names"]})
    code, output = output_of(*TRAIN, "data=dots")
    assert code == 2
    assert "The definition has changed, not necessarily the data" in output
    assert "differs" not in output
    code, output = output_of(*TRAIN, "data=dots", "recipe.warmup=0.5")
    assert (code, "it differs in: recipe.warmup" in output) == (2, True)
    for command in (SCORE, ["score", "run=outputs/run", "matrix.datasets=[dots]"], ["report", "outputs/run"]):
        code, output = output_of(*command)
        assert code == 0, output
    assert Path("outputs/run/scores.csv").is_file()
