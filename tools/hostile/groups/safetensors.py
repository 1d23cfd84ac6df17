"""Files of tensors: weights, their index, what a run changed of them, points to resume from, adapters."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tools.hostile.case import Case, Ends, Place
from tools.hostile.model_files import TRAIN, deep, safetensors, split

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_HEAD, _TENSOR = "multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.weight"


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, content in _NO_HEADER.items():
        yield Case(f"weights: {what}", TRAIN, partial(_replaced, content), says=(_WEIGHTS,))
    for what, content in _LACKING.items():
        yield Case(f"weights: {what}", TRAIN, partial(_replaced, content), says=("m",))
    for what, entry in _ENTRIES.items():
        yield Case(f"weights: {what}", TRAIN, partial(_with_entry, entry), says=(_WEIGHTS,))
    for what, change in _CHANGES.items():
        yield Case(f"weights: {what}", TRAIN, partial(_changed, change), says=("model.path=m",))
    for what, change in _FINE.items():
        yield Case(f"weights: {what}", TRAIN, partial(_changed, change), Ends.works)
    for what, make in _NO_FILES.items():
        yield Case(f"weights: {what}", TRAIN, partial(_special, make), says=("m",))
    for what, index in _INDICES.items():
        yield Case(f"index: {what}", TRAIN, partial(_indexed, index), says=(_INDEX,))
    yield Case("index: shards that are whole", TRAIN, _sharded, Ends.works)
    yield Case("index: a shard is a pickle", TRAIN, partial(_sharded, second=pickle.dumps({})), says=("model-2.",))
    yield Case("index: a shard is cut short", TRAIN, partial(_sharded, second=b"x" * 100), says=("model-2.",))
    for what, content in _ELSEWHERE.items():
        for where, (name, command, prepared) in _PLACES.items():
            make = partial(_put, prepared, name, content)
            yield Case(f"{where}: {what}", command, make, says=(str(Path(name).parent.name),))


_ADAPTER = "saved/checkpoint-2/adapter_model.safetensors"
_PLACES = {
    "delta": (
        "outputs/lora/checkpoints/step_000002/delta.safetensors",
        ("export", "outputs/lora", "out", "--adapter"),
        ("outputs/lora", None),
    ),
    "resume point": (
        "outputs/x/resume/step_000001/state.safetensors",
        ("finetune", "recipe=full_low_lr", "name=x", "recipe.steps=2", "recipe.batch_size=4", "threads=1"),
        ("outputs/plain", "outputs/x"),
    ),
    "adapter": (_ADAPTER, ("import", "saved", "name=x", "threads=1"), ("adapter", "saved/checkpoint-2")),
}
"""Other files of tensors: which command reads each, and what it is made from."""


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return stream.getvalue()


class _Opens:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ../outside/pwned",)


_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 11806968\n"
_NO_HEADER: dict[str, bytes | Callable[[bytes], bytes]] = {
    "empty": b"",
    "seven bytes": b"\x08\x00\x00\x00\x00\x00\x00",
    "a length and nothing else": struct.pack("<Q", 200),
    "a header of no bytes": struct.pack("<Q", 0) + b"{}",
    "a negative length": struct.pack("<q", -1) + b"{}",
    "the largest length": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a length beyond the file": struct.pack("<Q", 10**6) + b"{}",
    "a header of 101 MB": safetensors(b" " * 101_000_000),
    "a header that is no JSON": safetensors("{tensors: none}"),
    "a header that is no text": safetensors(b"\xff\xfe\x00{"),
    "a header that is a list": safetensors([]),
    "a header that is null": safetensors(None),
    "a header that is a number": safetensors(4),
    "a header of 10,000 levels": safetensors(deep(10_000, '{"a":', "}").replace(":}", ":1}")),
    "metadata of numbers": safetensors({"__metadata__": {"format": 1}}),
    "metadata that are a list": safetensors({"__metadata__": ["pt"]}),
    "without its last byte": lambda whole: whole[:-1],
    "without its second half": lambda whole: whole[: len(whole) // 2],
    "a byte too many": lambda whole: whole + b"\0",
    "cut in its header": lambda whole: whole[:500],
    "a damaged header": lambda whole: whole[:300] + b"\0" * 8 + whole[308:],
    "a pickle": pickle.dumps({"weight": [1.0]}),
    "a pickle that runs a command": pickle.dumps(_Opens()),
    "a zip archive": _zip(),
    "a gzip archive": gzip.compress(b"weights"),
    "a page of HTML": b"<!doctype html><html><head><title>404 Not Found</title></head></html>",
    "a message of JSON": b'{"error":"Repository not found"}',
    "a Git LFS pointer": _LFS,
    "GGUF": b"GGUF\x03\x00\x00\x00" + bytes(64),
    "NumPy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}" + bytes(64),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "text in UTF-16": "weights".encode("utf-16"),
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
}
_LACKING = {
    "a header with one name twice": safetensors(
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "no tensors": safetensors({}),
    "only metadata": safetensors({"__metadata__": {"format": "pt"}}),
    "a hundred thousand empty tensors": safetensors(
        {str(number): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(100_000)}
    ),
}
_ENTRIES: dict[str, object] = {
    "a tensor that is null": None,
    "a tensor that is a list": [],
    "a tensor that is a text": "F32",
    "a tensor without a type": {"shape": [1], "data_offsets": [0, 4]},
    "a tensor without a shape": {"dtype": "F32", "data_offsets": [0, 4]},
    "a tensor without offsets": {"dtype": "F32", "shape": [1]},
    "an unknown type": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]},
    "a type that is a number": {"dtype": 32, "shape": [1], "data_offsets": [0, 4]},
    "a shape that is negative": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
    "a shape that is a fraction": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]},
    "a shape that is a text": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]},
    "a shape that is null": {"dtype": "F32", "shape": None, "data_offsets": [0, 4]},
    "a shape in a shape": {"dtype": "F32", "shape": [[1]], "data_offsets": [0, 4]},
    "a shape whose product overflows": {"dtype": "F32", "shape": [2**63, 2**63], "data_offsets": [0, 4]},
    "a shape whose product wraps to the right size": {
        "dtype": "F32",
        "shape": [2**32, 2**32, 1],
        "data_offsets": [0, 0],
    },
    "a shape larger than its data": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4]},
    "a shape smaller than its data": {"dtype": "F32", "shape": [], "data_offsets": [0, 16]},
    "offsets beyond the file": {"dtype": "F32", "shape": [1], "data_offsets": [10**9, 10**9 + 4]},
    "offsets in reverse": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
    "negative offsets": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
    "offsets that are fractions": {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]},
    "offsets that are texts": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]},
    "three offsets": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]},
    "one offset": {"dtype": "F32", "shape": [1], "data_offsets": [0]},
    "offsets that overlap another tensor": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "offsets after a hole": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
}
"""What the header says of a second tensor; the first one has four bytes."""


def _retyped(kind: str, width: int) -> Callable[[dict[str, Any], bytearray], None]:
    """One tensor of another type, its values zero."""

    def change(header: dict[str, Any], data: bytearray) -> None:
        _resized(header, data, kind, header[_HEAD]["shape"], width)

    return change


def _reshaped(shape: list[int]) -> Callable[[dict[str, Any], bytearray], None]:
    def change(header: dict[str, Any], data: bytearray) -> None:
        _resized(header, data, "F32", shape, 4)

    return change


def _resized(header: dict[str, Any], data: bytearray, kind: str, shape: list[int], width: int) -> None:
    """Put zeros in place of one tensor, at the end of the data; what was there goes into a tensor of bytes."""
    count = 1
    for side in shape:
        count *= side
    start, end = header[_HEAD]["data_offsets"]
    header["left_over"] = {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
    header[_HEAD] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + count * width]}
    data.extend(bytes(count * width))


def _filled(value: float, name: str = _HEAD) -> Callable[[dict[str, Any], bytearray], None]:
    """One tensor of one value throughout."""

    def change(header: dict[str, Any], data: bytearray) -> None:
        start, end = header[name]["data_offsets"]
        data[start:end] = struct.pack("<f", value) * ((end - start) // 4)

    return change


def _lacking(header: dict[str, Any], _: bytearray) -> None:
    header["renamed"] = header.pop(_HEAD)


def _of_another_model(header: dict[str, Any], _: bytearray) -> None:
    for name in [name for name in header if name != "__metadata__"]:
        header[f"transformer.h.{name}"] = header.pop(name)


def _transposed(header: dict[str, Any], _: bytearray) -> None:
    header[_TENSOR]["shape"].reverse()


def _further(header: dict[str, Any], data: bytearray) -> None:
    header["further"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
    data.extend(bytes(4))


def _named(name: str) -> Callable[[dict[str, Any], bytearray], None]:
    def change(header: dict[str, Any], data: bytearray) -> None:
        _further(header, data)
        header[name] = header.pop("further")

    return change


_CHANGES = {
    "NaN in one tensor": _filled(float("nan")),
    "infinity in one tensor": _filled(float("inf")),
    "minus infinity in one tensor": _filled(float("-inf")),
    "one tensor of another shape": _reshaped([7]),
    "one tensor without a dimension": _reshaped([]),
    "one tensor of no values": _reshaped([0]),
    "one tensor transposed": _transposed,
    "one tensor under another name": _lacking,
    "all tensors under another model's names": _of_another_model,
}
_FINE = {
    "one tensor of fp64": _retyped("F64", 8),
    "one tensor of fp16": _retyped("F16", 2),
    "one tensor of integers": _retyped("I64", 8),
    "one tensor of truth values": _retyped("BOOL", 1),
    "one tensor of bytes": _retyped("U8", 1),
    "one tensor of bf16": _retyped("BF16", 2),
    "a tensor too many": _further,
    "a tensor whose name is empty": _named(""),
    "a tensor whose name is an escape sequence": _named("\x1b[31m"),
    "a tensor whose name has 100,000 letters": _named("n" * 100_000),
    "metadata of another library": lambda header, _: header.update(__metadata__={"format": "tf"}),
    "no metadata": lambda header, _: header.pop("__metadata__", None),
}


def _special(make: Callable[[Path], object], place: Place) -> None:
    path = place.copy("model", "m") / _WEIGHTS
    path.unlink()
    make(path)


_NO_FILES: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "no file": lambda path: None,
    "only a pickle beside it": lambda path: (path.parent / "pytorch_model.bin").write_bytes(pickle.dumps(_Opens())),
    "only TensorFlow's beside it": lambda path: (path.parent / "tf_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n"),
}
_INDICES: dict[str, object] = {
    "null": None,
    "a list": [],
    "a number": 1,
    "a text": '"model-1.safetensors"',
    "no JSON": "{weight_map",
    "10,000 levels": deep(),
    "UTF-16": json.dumps({"weight_map": {}}).encode("utf-16"),
    "an empty file": b"",
    "a Git LFS pointer": _LFS,
    "without a map": {"metadata": {"total_size": 1}},
    "a map that is null": {"weight_map": None},
    "a map that is a list": {"weight_map": [_HEAD]},
    "a map that is a text": {"weight_map": "model-1.safetensors"},
    "an empty map": {"weight_map": {}},
    "a shard that is null": {"weight_map": {_HEAD: None}},
    "a shard that is a number": {"weight_map": {_HEAD: 1}},
    "a shard that is a list": {"weight_map": {_HEAD: ["model-1.safetensors"]}},
    "a shard without a name": {"weight_map": {_HEAD: ""}},
    "a shard that is not there": {"weight_map": {_HEAD: "model-00001-of-00002.safetensors"}},
    "a shard above": {"weight_map": {_HEAD: "../outside/secret.txt"}},
    "a shard at an absolute path": {"weight_map": {_HEAD: "/etc/passwd"}},
    "a shard that is the folder": {"weight_map": {_HEAD: "."}},
    "a shard with a name of 5,000 letters": {"weight_map": {_HEAD: "n" * 5000}},
    "a shard with a zero byte": {"weight_map": {_HEAD: "model\0.safetensors"}},
    "the index as its own shard": {"weight_map": {_HEAD: _INDEX}},
}
_ELSEWHERE: dict[str, bytes | Callable[[bytes], bytes]] = {
    name: (_NO_HEADER | _LACKING)[name]
    for name in (
        "empty",
        "a length beyond the file",
        "a negative length",
        "a header that is no JSON",
        "a header that is a list",
        "a header of 10,000 levels",
        "metadata of numbers",
        "no tensors",
        "without its last byte",
        "a byte too many",
        "a pickle that runs a command",
        "a zip archive",
        "a Git LFS pointer",
        "zeros",
    )
}


def _replaced(content: bytes | Callable[[bytes], bytes], place: Place) -> None:
    _put(("model", "m"), f"m/{_WEIGHTS}", content, place)


def _put(prepared: tuple[str, str | None], name: str, content: bytes | Callable[[bytes], bytes], place: Place) -> None:
    """Copy what is prepared and replace one file of it; a file that is not there is like one that is whole."""
    place.copy(*prepared)
    path = place.folder / name
    if "resume" in name:
        step = path.parent.name
        place.copy("outputs/plain/checkpoints/step_000001/delta.safetensors", name)
        for other in (place.folder / "outputs/x/checkpoints").iterdir():
            if other.name > step:
                for file in other.iterdir():
                    file.unlink()
                other.rmdir()
    place.write(name, content if isinstance(content, bytes) else content(path.read_bytes()))


def _with_entry(entry: object, place: Place) -> None:
    header = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": entry}
    _replaced(safetensors(header, bytes(16)), place)


def _changed(change: Callable[[dict[str, Any], bytearray], object], place: Place) -> None:
    place.copy("model", "m")
    path = place.folder / "m" / _WEIGHTS
    header, data = split(path.read_bytes())
    edited = bytearray(data)
    change(header, edited)
    path.write_bytes(safetensors(header, bytes(edited)))


def _indexed(index: object, place: Place) -> None:
    """An index, and no single file of weights."""
    folder = place.copy("model", "m")
    (folder / _WEIGHTS).rename(folder / "model-1.safetensors")
    place.write(f"m/{_INDEX}", index if isinstance(index, str | bytes) else json.dumps(index))


def _sharded(place: Place, second: bytes | None = None) -> None:
    """The weights in two files, each whole, unless the second is given."""
    folder = place.copy("model", "m")
    path = folder / _WEIGHTS
    header, data = split(path.read_bytes())
    path.unlink()
    header.pop("__metadata__", None)
    names = sorted(header, key=lambda name: header[name]["data_offsets"])
    halves = {"model-1.safetensors": names[: len(names) // 2], "model-2.safetensors": names[len(names) // 2 :]}
    for file, half_names in halves.items():
        start, end = header[half_names[0]]["data_offsets"][0], header[half_names[-1]]["data_offsets"][1]
        moved = {
            name: {**header[name], "data_offsets": [offset - start for offset in header[name]["data_offsets"]]}
            for name in half_names
        }
        (folder / file).write_bytes(safetensors({"__metadata__": {"format": "pt"}, **moved}, data[start:end]))
    if second is not None:
        (folder / "model-2.safetensors").write_bytes(second)
    weight_map = {name: file for file, half_names in halves.items() for name in half_names}
    place.write(f"m/{_INDEX}", json.dumps({"metadata": {"total_size": len(data)}, "weight_map": weight_map}))
