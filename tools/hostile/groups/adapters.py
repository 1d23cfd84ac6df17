"""Adapters of other trainers: adapter_config.json, and tensors that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tools.hostile.case import Case, Ends, Place
from tools.hostile.model_files import Make, deep, safetensors, setting, split, with_edit

_SETTINGS, _TENSORS = "adapter_config.json", "adapter_model.safetensors"
_FOLDER = "saved/checkpoint-2"
_IMPORT = ("import", "saved", "name=x", "threads=1")


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, content in _CONTENTS.items():
        yield Case(f"{_SETTINGS}: {what}", _IMPORT, _with_settings(content), says=(_SETTINGS,))
    for what, (key, value) in _WRONG.items():
        make = with_edit(_SETTINGS, setting(key, value), "adapter", _FOLDER)
        yield Case(f"{_SETTINGS}: {what}", _IMPORT, make, says=(_FOLDER,))
    for ends, values in ((Ends.works, _FINE), (Ends.either, _ODD)):
        for what, (key, value) in values.items():
            make = with_edit(_SETTINGS, setting(key, value), "adapter", _FOLDER)
            yield Case(f"{_SETTINGS}: {what}", _IMPORT, make, ends)
    for what, change in _CHANGES.items():
        yield Case(f"tensors: {what}", _IMPORT, _changed(change), says=(_FOLDER,))


_CONTENTS: dict[str, bytes | str] = {
    "null": "null",
    "a list": "[]",
    "a text": '"LORA"',
    "no JSON": "{peft_type: LORA}",
    "cut short": '{"peft_type": "LO',
    "10,000 levels": deep(),
    "empty": b"",
    "UTF-16": '{"peft_type": "LORA"}'.encode("utf-16"),
    "no text": b"\x80\x04\x95",
    "an empty object": "{}",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1018\n",
    "only a type": '{"peft_type": "LORA"}',
}
_WRONG: dict[str, tuple[str, object]] = {
    "no type": ("peft_type", ...),
    "a type that is null": ("peft_type", None),
    "a type that is a list": ("peft_type", ["LORA"]),
    "a type that is an object": ("peft_type", {"LORA": 1}),
    "a type that is a number": ("peft_type", 4),
    "an unknown type": ("peft_type", "LORA_OF_TOMORROW"),
    "a type in small letters": ("peft_type", "lora"),
    "a type that learns prompts": ("peft_type", "PROMPT_TUNING"),
    "no rank": ("r", ...),
    "a rank that is null": ("r", None),
    "a rank that is a text": ("r", "8"),
    "a rank that is a word": ("r", "eight"),
    "a rank that is a list": ("r", [8]),
    "a rank that is a fraction": ("r", 7.5),
    "a rank of zero": ("r", 0),
    "a negative rank": ("r", -8),
    "a rank of a billion": ("r", 10**9),
    "a rank beyond 64 bits": ("r", 10**30),
    "another rank than the tensors": ("r", 4),
    "a scale that is a text": ("lora_alpha", "16"),
    "a scale that is a list": ("lora_alpha", [16]),
    "a scale that is not a number": ("lora_alpha", float("nan")),
    "an infinite scale": ("lora_alpha", float("inf")),
    "no targets": ("target_modules", None),
    "targets that are an empty list": ("target_modules", []),
    "targets that are a number": ("target_modules", 5),
    "targets that are numbers": ("target_modules", [1, 2]),
    "targets that are not there": ("target_modules", ["query_of_another_model"]),
    "targets that are an endless pattern": ("target_modules", "(a*)*b("),
    "a pattern that takes for ever": ("target_modules", "(((.*)*)*)*x!"),
    "a task that is unknown": ("task_type", "DREAM"),
    "dropout that is a text": ("lora_dropout", "none"),
    "layers that are texts": ("layers_to_transform", ["first"]),
    "layers that are not there": ("layers_to_transform", [99]),
    "ranks by module that are a list": ("rank_pattern", [8]),
    "ranks by module that are texts": ("rank_pattern", {"q_proj": "8"}),
    "scales by module that are a text": ("alpha_pattern", "16"),
    "a bias that is unknown": ("bias", "some"),
    "modules to save that are a number": ("modules_to_save", 1),
    "layers that are copied a billion times": ("layer_replication", [[0, 10**9]]),
    "DoRA without its tensors": ("use_dora", True),
    "a start that nobody knows": ("init_lora_weights", "magic"),
    "tokens that are texts": ("trainable_token_indices", ["a"]),
}
_ODD: dict[str, tuple[str, object]] = {
    "modules to save that are not there": ("modules_to_save", ["head_of_another_model"]),
    "a start that is computed from data": ("init_lora_weights", "eva"),
    "parameters that are not there": ("target_parameters", ["experts"]),
}
_FINE: dict[str, tuple[str, object]] = {
    "a key that nobody knows": ("of_tomorrow", 1),
    "a base that is a number": ("base_model_name_or_path", 7),
    "a base with an escape sequence": ("base_model_name_or_path", "\x1b[31mred"),
    "no base": ("base_model_name_or_path", None),
    "a version of tomorrow": ("peft_version", "99.0"),
    "a class of a module that is not there": ("auto_mapping", {"base_model_class": "A", "parent_library": "os.path"}),
}


def _with_settings(content: bytes | str) -> Make:
    def make(place: Place) -> None:
        place.copy("adapter", _FOLDER)
        place.write(f"{_FOLDER}/{_SETTINGS}", content)

    return make


def _changed(change: Callable[[dict[str, Any], bytearray], object]) -> Make:
    def make(place: Place) -> None:
        path = place.copy("adapter", _FOLDER) / _TENSORS
        header, data = split(path.read_bytes())
        edited = bytearray(data)
        change(header, edited)
        path.write_bytes(safetensors(header, bytes(edited)))

    return make


def _first(header: dict[str, Any]) -> str:
    return next(name for name in header if name != "__metadata__")


def _renamed(header: dict[str, Any], _: bytearray) -> None:
    header["base_model.model.another"] = header.pop(_first(header))


def _prefixed(header: dict[str, Any], _: bytearray) -> None:
    for name in [name for name in header if name != "__metadata__"]:
        header[f"transformer.{name}"] = header.pop(name)


def _transposed(header: dict[str, Any], _: bytearray) -> None:
    header[_first(header)]["shape"].reverse()


def _flat(header: dict[str, Any], _: bytearray) -> None:
    entry = header[_first(header)]
    count = 1
    for side in entry["shape"]:
        count *= side
    entry["shape"] = [count]


def _further(header: dict[str, Any], data: bytearray) -> None:
    header["further"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
    data.extend(bytes(4))


def _not_numbers(header: dict[str, Any], data: bytearray) -> None:
    start, end = header[_first(header)]["data_offsets"]
    data[start:end] = b"\x00\x00\xc0\x7f" * ((end - start) // 4)


def _emptied(header: dict[str, Any], data: bytearray) -> None:
    header.clear()
    data.clear()


_CHANGES = {
    "one under another name": _renamed,
    "all under another model's names": _prefixed,
    "one transposed": _transposed,
    "one of another number of dimensions": _flat,
    "one too many": _further,
    "one that is not a number": _not_numbers,
    "none": _emptied,
}
