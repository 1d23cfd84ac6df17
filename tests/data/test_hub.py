"""Sets of the Hub and of tables: cached, streamed or out of reach; pictures that stay where they are stored."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from forgetbench.core.errors import UserError
from forgetbench.data import item_pictures, tables
from forgetbench.data.manifest import Manifest
from forgetbench.data.manifest_file import load_manifest
from forgetbench.data.pictures import decode_image, read_image
from forgetbench.data.sources import load_samples

Row = dict[str, Any]


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    held = io.BytesIO()
    Image.fromarray(noise).save(held, "PNG")
    return held.getvalue()


PICTURES = [picture(seed) for seed in range(40)]


def rows(column: Callable[[bytes], Any] = lambda data: {"bytes": data, "path": None}) -> list[Row]:
    return [{"my image/#1": column(data), "question": f"{n}?", "answer": "x"} for n, data in enumerate(PICTURES)]


def manifest(folder: Path, **source: Any) -> Manifest:
    path = folder / "mine.yaml"
    given = {"source": {"columns": {"image": "my image/#1"}} | source, "splits": {"train": {}}}
    if source["kind"] != "hub":
        given["splits"] = {"train": {"files": [f"items.{source['kind']}"]}}
    path.write_text(yaml.safe_dump(given | {"image_domains": ["a"], "text_tasks": ["b"]}))
    return load_manifest(path)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is cached, and there is no network; gives the folder that repositories are downloaded to."""
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def repository(folder: Path, held: Sequence[Row]) -> None:
    """A repository's files."""
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(held)), folder / "data" / "train-00000-of-00001.parquet")


def downloaded(hub: Path, name: str, held: Sequence[Row]) -> None:
    """What `hf download` leaves."""
    folder, commit = hub / f"datasets--{name.replace('/', '--')}", "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    repository(folder / "snapshots" / commit, held)


def hub_set(folder: Path, hub_id: str = "owner/name", **source: Any) -> Manifest:
    return manifest(folder, kind="hub", hub_id=hub_id, **source)


# Pictures that stay in their table.


@pytest.fixture(params=["struct", "bytes", "list"])
def parquet(request: pytest.FixtureRequest, tmp_path: Path) -> Manifest:
    columns: dict[str, Callable[[bytes], Any]] = {
        "struct": lambda data: {"bytes": data, "path": "x.png"},
        "bytes": lambda data: data,
        "list": lambda data: [{"bytes": data, "path": None}],
    }
    table = pa.Table.from_pylist(rows(columns[request.param]))
    pq.write_table(table, tmp_path / "items.parquet", row_group_size=7)
    return manifest(tmp_path, kind="parquet")


def test_pictures_beyond_what_memory_may_hold_are_read_from_their_table_in_any_order(
    parquet: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = load_samples(parquet, "train")
    monkeypatch.setattr(item_pictures, "IN_MEMORY", 3 * len(PICTURES[0]))
    stored = load_samples(parquet, "train")
    held = sum(len(sample.images[0].data or b"") for sample in stored)
    assert 0 < held <= 3 * len(PICTURES[0])
    assert [sample.clusters for sample in stored] == [sample.clusters for sample in in_memory]
    assert [sample.images[0].name for sample in stored] == [sample.images[0].name for sample in in_memory]
    order = list(range(40))
    random.Random(0).shuffle(order)
    assert [read_image(stored[place].images[0]) for place in order] == [PICTURES[place] for place in order]


def test_of_a_table_the_last_row_groups_stay_in_memory_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.Table.from_pylist(rows()), tmp_path / "items.parquet", row_group_size=5)
    monkeypatch.setattr(item_pictures, "IN_MEMORY", 0)
    monkeypatch.setattr(tables, "_groups", tables.groups_cache(12 * len(PICTURES[0])))
    samples = load_samples(manifest(tmp_path, kind="parquet"), "train")
    assert len(samples) == 40
    for sample in samples:
        read_image(sample.images[0])
        assert 0 < tables.groups_in_memory() <= 12 * len(PICTURES[0])


def test_a_row_group_larger_than_the_limit_is_read_once_for_all_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.Table.from_pylist(rows()), tmp_path / "items.parquet", row_group_size=5)
    monkeypatch.setattr(item_pictures, "IN_MEMORY", 0)
    samples = load_samples(manifest(tmp_path, kind="parquet"), "train")
    monkeypatch.setattr(tables, "_groups", tables.groups_cache(1))
    read, opened = [], tables._parquet

    def counted(path: str, changed_ns: int) -> Any:
        read.append(path)
        return opened(path, changed_ns)

    monkeypatch.setattr(tables, "_parquet", counted)
    for sample in samples[:10]:
        read_image(sample.images[0])
    assert len(read) == 2


def test_one_picture_of_several_rows_is_one_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.Table.from_pylist([*rows(), *rows()]), tmp_path / "items.parquet")
    monkeypatch.setattr(item_pictures, "IN_MEMORY", 0)
    samples = load_samples(manifest(tmp_path, kind="parquet"), "train")
    assert [sample.images for sample in samples[:40]] == [sample.images for sample in samples[40:]]


def test_a_table_that_was_replaced_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "items.parquet"
    pq.write_table(pa.Table.from_pylist(rows()), path)
    monkeypatch.setattr(item_pictures, "IN_MEMORY", 0)
    samples = load_samples(manifest(tmp_path, kind="parquet"), "train")
    path.unlink()
    with pytest.raises(UserError, match=r"items.parquet no longer holds the picture at 0/39/"):
        read_image(samples[39].images[0])
    for fewer in (rows()[:5], rows()[::-1]):
        pq.write_table(pa.Table.from_pylist(fewer), path)
        with pytest.raises(UserError, match=r"items.parquet no longer holds the picture at 0/39/.*was it changed"):
            read_image(samples[39].images[0])
    again = load_samples(manifest(tmp_path, kind="parquet"), "train")
    assert read_image(again[39].images[0]) == PICTURES[0]


def test_a_cached_hub_set_is_read_from_its_cache_and_not_held(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(offline / "copy", rows())
    monkeypatch.setattr(item_pictures, "IN_MEMORY", 0)
    samples = load_samples(hub_set(offline, "copy"), "train")
    assert all(sample.images[0].data is None for sample in samples)
    assert [read_image(sample.images[0]) for sample in reversed(samples)] == PICTURES[::-1]


def test_part_of_a_hub_split_shows_its_own_pictures(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(offline / "copy", rows())
    monkeypatch.setattr(item_pictures, "IN_MEMORY", 0)
    made = hub_set(offline, "copy")
    made.splits["train"].hub_split = "train[10:20]"
    assert [read_image(sample.images[0]) for sample in load_samples(made, "train")] == PICTURES[10:20]


def test_base64_text_is_a_picture(tmp_path: Path) -> None:
    held = base64.b64encode(PICTURES[0]).decode()
    (tmp_path / "items.jsonl").write_text(json.dumps({"image": held, "question": "?", "answer": "x"}))
    made = manifest(tmp_path, kind="jsonl", columns={})
    (sample,) = load_samples(made, "train")
    assert read_image(sample.images[0]) == PICTURES[0]
    (tmp_path / "items.jsonl").write_text(json.dumps({"image": held[:-3], "question": "?", "answer": "x"}))
    with pytest.raises(UserError, match="item 0 of split 'train'"):
        load_samples(made, "train")


# Streaming.


def test_a_streamed_set_is_the_same_set_and_stores_nothing(offline: Path) -> None:
    repository(offline / "copy", rows())
    streamed = load_samples(hub_set(offline, "copy", streaming=True), "train")
    assert not list(offline.parent.rglob("*.arrow"))
    whole = load_samples(hub_set(offline, "copy"), "train")
    assert streamed == whole
    assert decode_image(streamed[3].images[0]).tobytes() == decode_image(whole[3].images[0]).tobytes()


def test_a_streamed_set_that_memory_cannot_hold_keeps_its_pictures_in_files(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(offline / "copy", rows())
    monkeypatch.setenv("FORGETBENCH_DOWNLOADS", str(offline / "sets"))
    monkeypatch.setattr(item_pictures, "IN_MEMORY", 6 * len(PICTURES[0]))
    made = hub_set(offline, "copy", streaming=True)
    samples = load_samples(made, "train")
    kept = sorted(path.name for path in (offline / "sets/.streamed/mine").iterdir())
    assert kept == sorted({sample.images[0].name for sample in samples if sample.images[0].data is None}) != []
    assert [read_image(sample.images[0]) for sample in samples] == PICTURES
    assert [sample.clusters for sample in samples] == [
        sample.clusters for sample in load_samples(hub_set(offline, "copy"), "train")
    ]


def test_a_few_items_of_a_stream_are_those_of_the_downloaded_set_and_keep_their_pictures_alone(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(offline / "copy", rows())
    monkeypatch.setenv("FORGETBENCH_DOWNLOADS", str(offline / "sets"))
    monkeypatch.setattr(item_pictures, "IN_MEMORY", 0)
    made = hub_set(offline, "copy", streaming=True)
    made.splits["train"].n, made.splits["train"].limit = len(PICTURES), 5
    few = load_samples(made, "train")
    assert [sample.id for sample in few] == [
        sample.id for sample in load_samples(hub_set(offline, "copy"), "train", limit=5)
    ]
    assert len(list((offline / "sets/.streamed/mine").iterdir())) == 5
    assert [sample.id for sample in load_samples(made, "train", limit=3)] == [
        sample.id for sample in load_samples(hub_set(offline, "copy"), "train", limit=3)
    ]
    made.splits["train"].n = len(PICTURES) + 1
    with pytest.raises(UserError, match=f"write n: {len(PICTURES)}"):
        load_samples(made, "train")


# Without a network.


def test_what_was_downloaded_is_read_without_a_network(offline: Path) -> None:
    downloaded(offline, "owner/name", rows())
    samples = load_samples(hub_set(offline), "train")
    assert [read_image(sample.images[0]) for sample in samples] == PICTURES


def test_what_was_not_downloaded_is_refused_with_the_command_that_downloads_it(offline: Path) -> None:
    with pytest.raises(UserError, match=r"cannot load 'owner/name'") as message:
        load_samples(hub_set(offline, revision="abc"), "train")
    assert "HF_HUB_OFFLINE is set" in str(message.value)
    assert "hf download owner/name --repo-type dataset --revision abc" in str(message.value)


def test_an_unreachable_hub_is_asked_once_and_what_was_downloaded_is_read(
    offline: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    downloaded(offline, "second/name", rows()[:2])
    assert len(load_samples(hub_set(offline, hub_aliases=["second/name"]), "train")) == 2
    with pytest.raises(UserError, match=r"'owner/name': http://127.0.0.1:9 cannot be reached \(.+\)") as message:
        load_samples(hub_set(offline), "train")
    assert str(message.value).endswith("hf download owner/name --repo-type dataset")
    assert "Retrying" not in "".join(capfd.readouterr())
    assert datasets.config.HF_HUB_OFFLINE is False


def test_other_ids_of_a_set_are_tried_in_order(offline: Path) -> None:
    downloaded(offline, "second/name", rows()[:2])
    downloaded(offline, "third/name", rows()[:3])
    made = hub_set(offline, "first/name", hub_aliases=["second/name", "third/name"])
    assert len(load_samples(made, "train")) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("Dataset scripts are no longer supported, but found name.py"), "refs/convert/parquet"),
        (FileNotFoundError("Dataset 'owner/name' is a gated dataset on the Hub."), "hf auth login"),
    ],
)
def test_a_set_that_needs_a_step_more_says_which(
    offline: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    import datasets

    def refusing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset_builder", refusing)
    with pytest.raises(UserError, match=message):
        load_samples(hub_set(offline), "train")
