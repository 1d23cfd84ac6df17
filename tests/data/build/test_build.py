"""A build offers what CLIP finds most similar, goes on where it stopped, and repeats itself to the bit."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, BertConfig, CLIPModel, CLIPTokenizer

from forgetbench.cli import app
from forgetbench.commands.data_build import data_build
from forgetbench.core.errors import UserError
from forgetbench.data.build import Options, score, tables
from forgetbench.data.build.clip import Clip, load_clip
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import DOWNLOADS
from forgetbench.data.pictures import decode_image
from forgetbench.data.sources import load_samples
from tests.support.build_sets import FLOWERS, flowers, picture, put, table, tiny_clip, tiny_siglip

Row = dict[str, Any]
Build = Callable[..., Path]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def build(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Build a set below `downloads` and return its folder; flowers unless told otherwise."""

    def built(name: str = "flowers102_vqa", downloads: str = "downloads", **given: Any) -> Path:
        monkeypatch.setenv(DOWNLOADS, str(tmp_path / downloads))
        if name == "flowers102_vqa":
            flowers(tmp_path / downloads / "flowers102")
        options = {"images": None, "clip": str(clip), "seed": 0, "batch_size": 8, "limit": None}
        data_build(name, Options(**options | given))
        return tmp_path / downloads / name

    return built


def rows(folder: Path, split: str = "train") -> list[Row]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text("utf-8").splitlines()]


def everything(folder: Path) -> list[bytes]:
    return [(folder / f"{split}.jsonl").read_bytes() for split in ("train", "test")]


@torch.inference_mode()
def most_similar(clip: Path, pictures: Path, ids: list[str]) -> dict[str, list[str]]:
    """Flower names from the most similar to a picture on, by CLIP's own forward pass over one picture at a time."""
    model, tokenizer = CLIPModel.from_pretrained(clip), CLIPTokenizer.from_pretrained(clip)
    texts = tokenizer([f"a photo of {name}" for name in FLOWERS], padding=True, return_tensors="pt")
    prepare = AutoImageProcessor.from_pretrained(clip, backend="pil")
    names = {}
    for picture_id in ids:
        pixels = prepare(images=Image.open(pictures / picture_id).convert("RGB"), return_tensors="pt")["pixel_values"]
        logits_N = model(**texts, pixel_values=pixels).logits_per_image[0]
        names[picture_id] = [FLOWERS[index] for index in logits_N.argsort(descending=True)]
    return names


def test_wrong_options_are_three_of_the_five_most_similar_wrong_classes(build: Build, clip: Path) -> None:
    folder = build()
    made = rows(folder) + rows(folder, "test")
    assert len(made) == 48
    similar = most_similar(clip, folder / "pictures", [row["id"] for row in made])
    assert len({tuple(names[:5]) for names in similar.values()}) > 10  # the pictures do differ
    drawn = set()
    for row in made:
        answer = row["class_name"]
        assert row["options"]["ABCD".index(row["answer"])] == answer
        hard = [name for name in similar[row["id"]] if name != answer][:5]
        assert len(set(row["options"])) == 4
        assert set(row["options"]) - {answer} <= set(hard)
        drawn |= {hard.index(name) for name in row["options"] if name != answer}
    assert drawn == {0, 1, 2, 3, 4}


@torch.inference_mode()
def test_siglip_ranks_by_its_own_logits_too(tmp_path: Path) -> None:
    model = tiny_siglip(tmp_path)
    loaded = load_clip(str(tmp_path))
    pictures = [Image.open(io.BytesIO(picture(str(number)))) for number in range(6)]
    pixels_BP, texts = loaded.pixels(pictures), [f"a photo of {name}" for name in FLOWERS]
    tokens = loaded.tokenizer(texts, padding="max_length", return_tensors="pt")["input_ids"]
    logits_BN = model(input_ids=tokens, pixel_values=pixels_BP).logits_per_image
    expected = logits_BN.argsort(dim=-1, descending=True)[:, :6]
    assert torch.equal(loaded.nearest(pixels_BP, loaded.embed_texts(texts), 6), expected)


def test_a_built_set_loads_with_the_papers_prompt(build: Build) -> None:
    folder = build()
    manifest = Catalogue().load("flowers102_vqa")
    row, sample = rows(folder)[0], load_samples(manifest, "train")[0]
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", row["options"], strict=True))
    question = "What is the class of this image? Please answer with a single letter (A, B, C or D)."
    assert sample.prompt == f"{question}\n{lines}"
    assert sample.answer == row["answer"]
    assert decode_image(sample.images[0]).size == (20, 18)


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("imagenet_vqa", "What is the class of this image?"),
        ("imagenetv2_vqa", "What is the class of this image?"),
        ("flowers102_vqa", "What is the class of this image?"),
        ("caltech101_vqa", "What is the object category in this image?"),
        ("stanford_cars_vqa", "What is the make and model of the car in this image?"),
    ],
)
def test_every_manifest_asks_in_the_papers_words(name: str, question: str) -> None:
    assert (
        Catalogue().load(name).prompt == f"{question} Please answer with a single letter (A, B, C or D).\n{{options}}"
    )


def test_the_record_says_how_a_set_was_made(build: Build, clip: Path, tmp_path: Path) -> None:
    record = json.loads((build(seed=3) / "build.json").read_text())
    assert record["source"] == {"layout": "flowers.jsonl", "folder": str(tmp_path / "downloads/flowers102")}
    assert (record["seed"], record["limit"], record["left_out"]) == (3, None, {})
    assert record["clip"]["path"] == str(clip)
    assert record["clip"]["template"] == "a photo of {name}"
    assert {split: made["n"] for split, made in record["splits"].items()} == {"train": 24, "test": 24}
    assert set(record["versions"]) == {"forgetbench", "python", "torch", "transformers", "pillow"}


def test_an_interrupted_build_goes_on_and_gives_the_same_bytes(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = everything(build(downloads="whole"))
    passes: list[int] = []
    nearest = Clip.nearest

    def counted(self: Clip, pixels_BP: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(passes) == 2:
            passes.clear()
            raise KeyboardInterrupt
        passes.append(len(pixels_BP))
        return nearest(self, pixels_BP, *rest)

    monkeypatch.setattr(Clip, "nearest", counted)
    with pytest.raises(KeyboardInterrupt):
        build(batch_size=18)
    monkeypatch.setattr(Clip, "nearest", lambda *given: passes.append(len(given[1])) or nearest(*given))
    assert everything(build(batch_size=18)) == whole
    assert passes == [12]  # two batches of 18 were kept


def test_batches_and_other_pictures_do_not_change_a_question(build: Build) -> None:
    whole = build()
    by_id = {row["id"]: row for row in rows(whole) + rows(whole, "test")}
    few = build(downloads="few", batch_size=5, limit=7)
    assert [len(rows(few, split)) for split in ("train", "test")] == [7, 7]
    for row in rows(few) + rows(few, "test"):
        assert row == by_id[row["id"]]


def test_what_clip_said_is_saved_as_it_comes_and_serves_other_seeds(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "SAVE_S", -1.0)
    first = everything(folder := build())
    assert len(list((folder / "clip_scores").glob("*/*.jsonl"))) == 6  # a part for each batch of 8
    monkeypatch.setattr(Clip, "nearest", None)
    monkeypatch.setattr(Clip, "embed_texts", None)
    assert everything(build(seed=1)) != first
    assert everything(build(seed=0)) == first


def test_other_pictures_under_the_same_ids_are_looked_at_again(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = flowers(tmp_path / "other")
    for file in images.glob("jpg/*"):
        Image.open(file).rotate(90).resize((7, 7)).save(file, "PNG")
    expected = everything(build(downloads="fresh", images=images))
    first = everything(build())
    assert everything(build(images=images)) == expected != first
    monkeypatch.setattr(Clip, "nearest", None)
    assert everything(build()) == first
    assert everything(build(images=images)) == expected


def test_a_damaged_cache_is_named_and_made_again(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    first = everything(folder := build())
    kept = list((folder / "clip_scores").glob("*/*"))
    assert sorted(path.suffix for path in kept) == [".jsonl", ".safetensors"]
    for path in kept:
        path.write_bytes(path.read_bytes()[:-9])
    assert everything(build()) == first
    err = capsys.readouterr().err
    assert all(f"{path} is damaged" in err for path in kept)


def test_a_broken_picture_is_left_out_and_named_until_it_is_repaired(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = flowers(tmp_path / "mine")
    (images / "jpg/image_00002.jpg").write_bytes(picture("torn")[:60])
    folder = build("flowers102_vqa", images=images)
    assert len(rows(folder)) == 23
    [(left_out, why)] = json.loads((folder / "build.json").read_text())["left_out"].items()
    assert left_out == "jpg/image_00002.jpg"
    assert "is broken" in why
    assert "1 pictures were left out" in capsys.readouterr().out
    put(images / left_out)
    assert len(rows(build("flowers102_vqa", images=images))) == 24


def test_a_set_of_broken_pictures_only_is_refused(build: Build, tmp_path: Path) -> None:
    images = flowers(tmp_path / "mine", each=1)
    for file in images.glob("jpg/*"):
        file.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"none of 12 pictures can be read. Picture 'jpg/image_000\d\d.jpg' of"):
        build(images=images)


def test_pictures_stay_where_they_are_and_downloads_can_be_moved(build: Build, tmp_path: Path) -> None:
    folder = build()
    assert (folder / "pictures").is_symlink()
    (tmp_path / "downloads").rename(tmp_path / "moved")
    assert (tmp_path / "moved/flowers102_vqa/pictures/jpg/image_00001.jpg").is_file()


def test_imagenets_questions_carry_wordnet_ids(build: Build, tmp_path: Path) -> None:
    cranes = ("n02012849", "n03126707")
    for wnid in (*cranes, "n01440764"):
        put(tmp_path / f"downloads/imagenet/train/{wnid}/{wnid}_1.JPEG")
    made = rows(folder := build("imagenet_vqa"))
    assert [(row["wnid"], row["class_name"]) for row in made] == [
        ("n01440764", "tench"),
        ("n02012849", "crane"),
        ("n03126707", "crane"),
    ]
    assert not (folder / "test.jsonl").exists()
    assert load_samples(Catalogue().load("imagenet_vqa"), "train")[1].class_name == "crane"


def test_classes_of_one_name_never_meet_in_a_question(build: Build, tmp_path: Path) -> None:
    names = ["Crane 2012", "Kite 2012", "crane 2012", "kite 2012", "Jay 2012", "Hen 2012"]
    table(tmp_path / "downloads/stanford_cars/data/train-0.parquet", list(range(6)), names)
    made = rows(build("stanford_cars_vqa"))
    assert len(made) == 6
    for row in made:
        assert sorted(name.casefold() for name in row["options"]) == [
            f"2012 {class_name}" for class_name in ("crane", "hen", "jay", "kite")
        ]


def test_pictures_in_tables_are_unpacked_byte_by_byte_those_asked_for_only(build: Build, tmp_path: Path) -> None:
    names = [f"Car {letter} 2012" for letter in "ABCDEF"]
    file = "train-00000-of-00001.parquet"
    table(tmp_path / "downloads/stanford_cars/data" / file, [0, 1, 2, 3, 4, 5, 0], names)
    folder = build("stanford_cars_vqa", limit=3)
    unpacked = {path.relative_to(folder / "pictures").as_posix() for path in folder.glob("pictures/*/*/*")}
    assert unpacked == {row["image"] for row in rows(folder)}
    assert len(unpacked) == 3
    folder = build("stanford_cars_vqa")
    assert len(rows(folder)) == 7
    for number, row in enumerate(rows(folder)):
        assert (folder / "pictures" / row["image"]).read_bytes() == picture(f"{file} {number}")
        assert row["class_name"].startswith("2012 Car ")


def test_a_table_that_was_replaced_is_unpacked_again(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"Car {letter} 2012" for letter in "ABCDEF"]
    kept, other = tmp_path / "downloads/stanford_cars/data/train-0.parquet", tmp_path / "other.parquet"
    table(kept, [0, 1], names)
    table(other, [0, 1], names)
    os.utime(other, (1e9, 1e9))
    build("stanford_cars_vqa")
    other.replace(kept)
    folder = build("stanford_cars_vqa")
    assert len(rows(folder)) == 2
    for number, row in enumerate(rows(folder)):
        assert (folder / "pictures" / row["image"]).read_bytes() == picture(f"other.parquet {number}")
    monkeypatch.setattr(tables, "_unpack_table", None)
    build("stanford_cars_vqa")


def test_unpacked_pictures_are_not_written_over_by_a_link(build: Build, tmp_path: Path) -> None:
    (tmp_path / "downloads/flowers102_vqa/pictures").mkdir(parents=True)
    with pytest.raises(UserError, match=r"pictures holds pictures unpacked from tables; to use those of .*, move it"):
        build()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", r"Cannot load --clip .*nowhere: there is no such folder, and as a Hub id it cannot be had"),
        ("no/where", r"Cannot load --clip no/where: HF_HUB_OFFLINE is set, and no/where is neither a folder nor"),
        ("empty", r"Cannot load --clip .*empty: "),
        ("bert", r"--clip .*bert is a model of type 'bert'; it must be one of clip, siglip"),
    ],
)
def test_what_is_no_clip_is_refused(build: Build, tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match=message):
        build(clip=given if "/" in given else str(tmp_path / given))


def test_fewer_than_four_names_make_no_question(build: Build, tmp_path: Path) -> None:
    table(tmp_path / "downloads/stanford_cars/data/train-0.parquet", [0], ["A 2012", "B 2012", "C 2012"])
    with pytest.raises(UserError, match="has 3 classes of different names; a question needs 4"):
        build("stanford_cars_vqa")


def test_the_command_builds_and_says_what_comes_next(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DOWNLOADS, str(tmp_path))
    flowers(tmp_path / "flowers102")
    app(["data", "build", "flowers102_vqa", "--clip", str(clip), "--limit", "2"], standalone_mode=False)
    out = capsys.readouterr().out
    assert f"flowers102_vqa: train 2, test 2 questions in {tmp_path / 'flowers102_vqa'}." in out
    assert "Next: forgetbench data check flowers102_vqa" in out
