"""Files that a manifest, an item, an archive, a repository or an index of weights names outside of its own folder."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from tools.hostile.case import Case, Ends, Place

_MANIFEST = """\
source: {source}
splits: {{test: {{files: [{file}]}}}}
image_domains: [{domain}]
text_tasks: [naming]
prompt: "{{question}} {{options}}"
answer: letter
"""
_ROW = {"id": "a", "question": "Which?", "options": ["x", "y"], "answer": "A"}
_CHECK, _SHOW = ("data", "check", "set"), ("data", "show", "set")
_AUDIT = ("data", "audit", "set")
"""Reads pictures, as `data check` does, which ends with 1 where a check fails."""
_OUT = {
    "above": "../../outside/secret.txt",
    "absolute": "{outside}/secret.txt",
    "above after a folder": "a/../../../outside/secret.txt",
    "of Windows": "C:\\secret.txt",
    "of Windows with slashes": "C:/secret.txt",
    "of Windows above": "..\\..\\outside\\secret.txt",
    "of a network": "\\\\host\\share\\secret.txt",
    "an address of a file": "file:///etc/passwd",
    "two dots": "..",
    "through proc": "/proc/self/environ",
}


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, name in _OUT.items():
        yield Case(f"a manifest's file is {what}", _SHOW, _file(name), says=("set.yaml",))
        yield Case(f"a manifest's references are {what}", _SHOW, _references(name), says=("set.yaml",))
        yield Case(f"an item's picture is {what}", _SHOW, _picture(name), says=("item 0",))
        yield Case(f"a picture in a ZIP is {what}", _SHOW, _picture(name, zipped=True), says=("item 0",))
        yield Case(f"an index of weights names a file {what}", _MODEL, _index(name), says=("index.json",))
    for what, name in list(_OUT.items())[:4]:
        yield Case(f"a card of a repository names data {what}", _SHOW, _card(name), says=("set.yaml",))
        yield Case(f"a picture of a table is {what}", _SHOW, _parquet(name), says=("item 0",))
    for what, name in _ADDRESSES.items():
        yield Case(f"a card of a repository names {what}", _SHOW, _card(name), says=("set.yaml",))
        yield Case(f"an item's picture is {what}", _SHOW, _picture(name), says=("item 0",))
    for what, root in _ROOTS.items():
        yield Case(f"a manifest's root is {what}", _SHOW, _root(root), says=("set.yaml",))
    for what, (make, command) in _LINKS.items():
        yield Case(f"a link: {what}", command, make, says=("lead" if "picture" in what else "outside",))
    for what, (make, command) in _MODEL_LINKS.items():
        yield Case(f"a link: {what}", command, make, says=("link",))
    for what, (make, command) in _GOOD.items():
        yield Case(what, command, make, Ends.works)
    for what, names in _ZIPS.items():
        yield Case(f"a ZIP of pictures with {what}", _CHECK, _zip(names), Ends.works)


_MODEL = ("eval-matrix", "model=local", "model.path=m", "matrix=quick", "matrix.limit=2", "threads=1")
_ADDRESSES = {
    "a page": "https://example.com/a.png",
    "a bucket": "s3://bucket/a.png",
    "a member of a remote archive": "zip://a.png::https://example.com/a.zip",
    "another repository": "hf://datasets/other/set/a.png",
}
_ROOTS = {
    "above the embedded world": "'embedded:../../..'",
    "absolute in the embedded world": "'embedded:/etc'",
    "above the downloads": "'downloads:../../outside'",
    "absolute in the downloads": "'downloads:/etc'",
}


def _write(
    place: Place,
    rows: list[dict[str, object]],
    source: str = "{root: ../data}",
    domain: str = "text",
    file: str = "rows.jsonl",
) -> None:
    place.write("data_manifests/set.yaml", _MANIFEST.format(source=source, file=json.dumps(file), domain=domain))
    place.write("data/rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _png() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(written, "PNG")
    return written.getvalue()


def _filled(place: Place, name: str) -> str:
    return name.replace("{outside}", str(place.outside))


def _file(name: str) -> Callable[[Place], None]:
    return lambda place: _write(place, [_ROW], file=_filled(place, name))


def _references(name: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        _write(place, [_ROW])
        path = place.folder / "data_manifests/set.yaml"
        written = path.read_text().replace("files:", f"references: {json.dumps(_filled(place, name))}, files:")
        path.write_text(written)

    return make


def _picture(name: str, zipped: bool = False) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        source = "{root: ../data, images: pictures.zip}" if zipped else "{root: ../data, images: pictures}"
        _write(place, [{**_ROW, "image": _filled(place, name)}], source, "photos")
        place.write("data/pictures/a.png", _png())
        with zipfile.ZipFile(place.folder / "data/pictures.zip", "w") as archive:
            archive.writestr("a.png", _png())

    return make


def _root(root: str) -> Callable[[Place], None]:
    return lambda place: _write(place, [_ROW], f"{{root: {root}}}", file="secret.txt")


def _repository(place: Place, card: str) -> None:
    source = "{kind: hub, hub_id: ../repository}"
    _write(place, [_ROW], source)
    path = place.folder / "data_manifests/set.yaml"
    path.write_text(path.read_text().replace('{files: ["rows.jsonl"]}', "{hub_split: test}"))
    place.write("repository/README.md", card)
    place.write("repository/test.jsonl", json.dumps(_ROW) + "\n")


def _card(name: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        files = json.dumps(_filled(place, name))
        data = f"data_files: [{{split: test, path: {files}}}]"
        _repository(place, f"---\nconfigs: [{{config_name: default, {data}}}]\n---\n")

    return make


def _parquet(name: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        _write(place, [], "{kind: parquet, root: ../data}", "photos", "rows.parquet")
        row = {**_ROW, "image": {"bytes": None, "path": _filled(place, name)}}
        pq.write_table(pa.Table.from_pylist([row]), place.folder / "data/rows.parquet")

    return make


def _model(place: Place) -> Path:
    return place.copy("model", "m")


def _index(name: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        (_model(place) / "model.safetensors").unlink()
        written = json.dumps({"metadata": {}, "weight_map": {"a.weight": _filled(place, name)}})
        place.write("m/model.safetensors.index.json", written)

    return make


def _linked_rows(place: Place) -> None:
    _write(place, [_ROW])
    (place.folder / "data/rows.jsonl").unlink()
    (place.folder / "data/rows.jsonl").symlink_to(place.outside / "secret.txt")


def _linked_folder(place: Place) -> None:
    _write(place, [_ROW], file="inside/secret.txt")
    (place.folder / "data/inside").symlink_to(place.outside)


def _linked_picture(place: Place) -> None:
    _picture("b.png")(place)
    (place.outside / "private.png").write_bytes(_png())
    (place.folder / "data/pictures/b.png").symlink_to(place.outside / "private.png")


def _linked_picture_folder(place: Place) -> None:
    _picture("inside/private.png")(place)
    (place.outside / "private.png").write_bytes(_png())
    (place.folder / "data/pictures/inside").symlink_to(place.outside)


def _linked_picture_in_case(place: Place) -> None:
    _picture("B.PNG")(place)
    (place.outside / "private.png").write_bytes(_png())
    (place.folder / "data/pictures/b.png").symlink_to(place.outside / "private.png")


def _linked_repository(place: Place) -> None:
    _repository(place, "")
    (place.folder / "repository/test.jsonl").unlink()
    (place.folder / "repository/test.jsonl").symlink_to(place.outside / "secret.txt")


_LINKS: dict[str, tuple[Callable[[Place], None], tuple[str, ...]]] = {
    "a manifest's file": (_linked_rows, _SHOW),
    "a folder of a manifest's file": (_linked_folder, _SHOW),
    "a picture": (_linked_picture, _AUDIT),
    "a folder of pictures in theirs": (_linked_picture_folder, _AUDIT),
    "a picture in another case": (_linked_picture_in_case, _AUDIT),
    "a file of a repository": (_linked_repository, _SHOW),
}


def _linked_in_model(name: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        path = _model(place) / name
        if path.is_file():
            path.rename(place.outside / "moved")
        else:
            (place.outside / "moved").write_text("text")
        path.symlink_to(place.outside / "moved")

    return make


_MODEL_LINKS = {
    f"a model's {name}": (_linked_in_model(name), _MODEL)
    for name in ("config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja", "processor_config.json")
}


def _good_pictures(place: Place) -> None:
    """The folder of pictures is on another disk."""
    _picture("a.png")(place)
    (place.folder / "data/pictures").rename(place.outside / "pictures")
    (place.folder / "data/pictures").symlink_to(place.outside / "pictures")


def _good_root(place: Place) -> None:
    """The whole folder of the data is."""
    _picture("a.png")(place)
    (place.folder / "data").rename(place.outside / "data")
    (place.folder / "data").symlink_to(place.outside / "data")


def _good_absolute(place: Place) -> None:
    """A picture by its whole path, and the root, too."""
    _picture(str(place.folder / "data/pictures/a.png"))(place)
    path = place.folder / "data_manifests/set.yaml"
    path.write_text(path.read_text().replace("../data", str(place.folder / "data")))


def _good_within(place: Place) -> None:
    _picture("b.png")(place)
    (place.folder / "data/pictures/b.png").symlink_to("a.png")


def _cached(place: Place, kind: str, files: dict[str, bytes]) -> Path:
    """A repository as the Hub's cache keeps it."""
    root = place.folder / f"cache/{kind}--me--mine"
    snapshot = root / "snapshots/0123456789abcdef"
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    for number, (name, content) in enumerate(files.items()):
        (root / f"blobs/{number:040x}").write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def _good_repository(place: Place) -> None:
    _repository(place, "")
    snapshot = _cached(place, "datasets", {"test.jsonl": (json.dumps(_ROW) + "\n").encode()})
    path = place.folder / "data_manifests/set.yaml"
    path.write_text(path.read_text().replace("../repository", os.path.relpath(snapshot, path.parent)))


def _good_model(place: Place) -> None:
    files = {path.name: path.read_bytes() for path in sorted((place.prepared / "model").iterdir()) if path.is_file()}
    (place.folder / "m").symlink_to(_cached(place, "models", files))


def _good_downloads(place: Place) -> None:
    """What a user links into the folder of downloads."""
    _picture("coco/a.png")(place)
    path = place.folder / "data_manifests/set.yaml"
    path.write_text(path.read_text().replace("../data", "downloads:set"))
    (place.folder / "downloads").mkdir()
    (place.folder / "data").rename(place.folder / "downloads/set")
    (place.outside / "a.png").write_bytes(_png())
    (place.folder / "downloads/set/pictures/coco").symlink_to(place.outside)


_GOOD: dict[str, tuple[Callable[[Place], None], tuple[str, ...]]] = {
    "a folder of pictures that is a link": (_good_pictures, _CHECK),
    "a folder of data that is a link": (_good_root, _CHECK),
    "a picture by its whole path": (_good_absolute, _CHECK),
    "a link from one picture to another": (_good_within, _CHECK),
    "a repository in the Hub's cache": (_good_repository, _SHOW),
    "a model in the Hub's cache": (_good_model, ("models", "show", "model=local", "model.path=m")),
    "a link in the downloads": (_good_downloads, _CHECK),
}
_ZIPS = {
    "a member above": ["a.png", "../../outside/pwned.png"],
    "an absolute member": ["a.png", "/elsewhere/pwned.png"],
    "a member of Windows": ["a.png", "C:\\pwned.png", "..\\pwned.png"],
    "the same member twice": ["a.png", "b.png", "B.PNG"],
}


def _zip(names: list[str]) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        _picture("a.png", zipped=True)(place)
        with zipfile.ZipFile(place.folder / "data/pictures.zip", "w") as archive:
            for name in names:
                archive.writestr(name, _png())

    return make
