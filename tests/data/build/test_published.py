"""Published sets are listed from every layout they come in; what does not fit is refused by name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from forgetbench.core.errors import UserError
from forgetbench.data.build.pictures import PublishedDataset
from forgetbench.data.build.published import TARGETS, read, target
from tests.support.build_sets import flowers, put, table

TENCH, GOLDFISH = "n01440764", "n01443537"


def pictures_by_id(published: PublishedDataset) -> dict[str, tuple[str, str]]:
    """Id -> split and class name."""
    return {picture.id: (picture.split, published.names[picture.label]) for picture in published.pictures}


def test_the_ilsvrc_folder_with_sorted_validation_pictures(tmp_path: Path) -> None:
    put(tmp_path / f"train/{TENCH}/{TENCH}_1.JPEG")
    put(tmp_path / f"val/{GOLDFISH}/ILSVRC2012_val_00000001.JPEG")
    published = read("imagenet_vqa", tmp_path)
    assert pictures_by_id(published) == {
        f"train/{TENCH}/{TENCH}_1.JPEG": ("train", "tench"),
        f"val/{GOLDFISH}/ILSVRC2012_val_00000001.JPEG": ("test", "goldfish"),
    }
    assert published.wnids[0] == TENCH


def test_kaggles_archive_labels_its_validation_pictures_by_a_list(tmp_path: Path) -> None:
    base = tmp_path / "ILSVRC/Data/CLS-LOC"
    put(base / f"train/{TENCH}/{TENCH}_1.JPEG")
    put(base / "val/ILSVRC2012_val_00000007.JPEG")
    labels = f"ImageId,PredictionString\nILSVRC2012_val_00000007,{GOLDFISH} 85 1 499 272 {GOLDFISH} 1 2 3 4 \n"
    (tmp_path / "LOC_val_solution.csv").write_text(labels)
    published = read("imagenet_vqa", tmp_path)
    assert published.folder == base
    assert pictures_by_id(published)["val/ILSVRC2012_val_00000007.JPEG"] == ("test", "goldfish")


def test_validation_pictures_without_labels_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "val/ILSVRC2012_val_00000007.JPEG")
    with pytest.raises(UserError, match=r"nothing says their classes. Put Kaggle's LOC_val_solution.csv into"):
        read("imagenet_vqa", tmp_path)
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n")
    with pytest.raises(UserError, match=r"has no class of ImageNet-1k for ILSVRC2012_val_00000007.JPEG"):
        read("imagenet_vqa", tmp_path)


def test_a_folder_that_is_no_class_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "train/fish/1.JPEG")
    with pytest.raises(UserError, match=r"fish is not named by a class of ImageNet-1k \(n01440764"):
        read("imagenet_vqa", tmp_path)


def test_folders_of_classes_without_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / TENCH).mkdir(parents=True)
    with pytest.raises(UserError, match="has the right folders and no pictures in them; unpack them"):
        read("imagenet_vqa", tmp_path)


def test_imagenetv2s_folders_are_numbers_not_texts(tmp_path: Path) -> None:
    for label in ("0", "1", "2", "10"):
        put(tmp_path / f"imagenetv2-matched-frequency-format-val/{label}/a.jpeg")
    names = {id_: name for id_, (_, name) in pictures_by_id(read("imagenetv2_vqa", tmp_path)).items()}
    expected = {"0/a.jpeg": "tench", "1/a.jpeg": "goldfish", "2/a.jpeg": "great white shark", "10/a.jpeg": "brambling"}
    assert names == expected


def test_a_list_is_read_by_paths_of_another_machine(tmp_path: Path) -> None:
    published = read("flowers102_vqa", flowers(tmp_path))
    assert pictures_by_id(published)["jpg/image_00001.jpg"] == ("test", "rose")
    assert Counter(split for split, _ in pictures_by_id(published).values()) == {"train": 24, "test": 24}


def test_two_folders_of_caltech_may_share_a_name(tmp_path: Path) -> None:
    lines = []
    for folder in ("Faces", "Faces_easy"):
        put(tmp_path / "101_ObjectCategories" / folder / "image_0001.jpg")
        image = f"./data/Caltech101/101_ObjectCategories/{folder}/image_0001.jpg"
        lines.append(json.dumps({"image": image, "label": "face", "split": "train"}))
    (tmp_path / "caltech.jsonl").write_text("\n".join(lines))
    published = read("caltech101_vqa", tmp_path)
    assert published.names == ("face",)
    assert list(pictures_by_id(published)) == [
        f"101_ObjectCategories/{category}/image_0001.jpg" for category in ("Faces", "Faces_easy")
    ]


def test_pictures_of_a_list_that_are_not_here_are_refused(tmp_path: Path) -> None:
    flowers(tmp_path)
    (tmp_path / "jpg/image_00003.jpg").unlink()
    with pytest.raises(UserError, match=r"names 1 pictures that are not in .*, such as jpg/image_00003.jpg"):
        read("flowers102_vqa", tmp_path)
    (tmp_path / "jpg").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="no end of that path is in"):
        read("flowers102_vqa", tmp_path)


@pytest.mark.parametrize("line", ["not JSON", '{"image": "a.jpg"}', '{"image": "a", "label": "b", "split": "val"}'])
def test_a_damaged_list_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "cars.jsonl").write_text(line)
    with pytest.raises(UserError, match=r"cars\.jsonl: (not JSON lines of|splits are train and test)"):
        read("stanford_cars_vqa", tmp_path)


def test_cars_in_tables_are_called_by_the_year_first(tmp_path: Path) -> None:
    names = ["AM General Hummer SUV 2000", "Bugatti Veyron 16.4 Coupe 2009"]
    table(tmp_path / "data/train-00000-of-00001-ab12.parquet", [1, 0], names)
    table(tmp_path / "data/test-00000-of-00001.parquet", [0], names)
    assert pictures_by_id(read("stanford_cars_vqa", tmp_path)) == {
        "train/train-00000-of-00001-ab12/000000.jpg": ("train", "2009 Bugatti Veyron 16.4 Coupe"),
        "train/train-00000-of-00001-ab12/000001.jpg": ("train", "2000 AM General Hummer SUV"),
        "test/test-00000-of-00001/000000.jpg": ("test", "2000 AM General Hummer SUV"),
    }


def test_tables_without_class_names_or_labels_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "data/train-00000-of-00001.parquet", [0])
    with pytest.raises(UserError, match=r"train-00000-of-00001 has the label 0, but the tables name 0 classes"):
        read("stanford_cars_vqa", tmp_path)
    (tmp_path / "data/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="not a table with a column `label`"):
        read("stanford_cars_vqa", tmp_path)


def test_imagenets_tables_have_no_labels_in_their_test_split_so_validation_becomes_it(tmp_path: Path) -> None:
    table(tmp_path / "data/train-00000-of-00294.parquet", [0])
    table(tmp_path / "data/validation-00000-of-00014.parquet", [999])
    table(tmp_path / "data/test-00000-of-00028.parquet", [-1])
    assert set(pictures_by_id(read("imagenet_vqa", tmp_path)).values()) == {
        ("train", "tench"),
        ("test", "toilet tissue"),
    }


@pytest.mark.parametrize("name", TARGETS)
def test_an_empty_folder_says_what_is_expected_and_where_that_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"holds none of the layouts known. Expected there: [^ ].*\n.*docs/data.md"):
        read(name, tmp_path)
    with pytest.raises(UserError, match="none_here does not exist"):
        read(name, tmp_path / "none_here")


def test_a_misspelt_name_is_told_what_was_probably_meant() -> None:
    with pytest.raises(UserError, match=r"nothing to build under the name 'imagnet_vqa'. Did you mean imagenet_vqa"):
        target("imagnet_vqa")


def test_a_larger_limit_keeps_the_pictures_of_a_smaller_one(tmp_path: Path) -> None:
    published = read("flowers102_vqa", flowers(tmp_path))
    few, more, all_ = (published.limit_pictures(limit).pictures for limit in (5, 9, None))
    assert Counter(picture.split for picture in few) == {"train": 5, "test": 5}
    assert set(few) < set(more) < set(all_)
    assert list(all_) == sorted(all_, key=lambda picture: picture.id)
