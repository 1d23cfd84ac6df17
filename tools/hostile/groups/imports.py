"""Folders of other trainers: what lies in them, their trainer_state.json, their model card."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.hostile.case import Case, Ends, Place
from tools.hostile.model_files import Make, deep

_IMPORT = ("import", "saved", "name=x", "threads=1")
_STATE = "saved/checkpoint-2/trainer_state.json"


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, arrange in _LAYOUTS.items():
        yield Case(f"folder: {what}", _IMPORT, arrange, says=("saved",))
    for what, arrange in _FINE_LAYOUTS.items():
        yield Case(f"folder: {what}", _IMPORT, _on_adapter(arrange), Ends.works)
    for what, content in _STATES.items():
        yield Case(f"trainer_state.json: {what}", _IMPORT, _with(_STATE, content), says=("trainer_state.json",))
    for what, state in _WRONG_VALUES.items():
        make = _with(_STATE, json.dumps(state))
        yield Case(f"trainer_state.json: {what}", _IMPORT, make, says=("trainer_state.json",))
    for what, state in _FINE_VALUES.items():
        yield Case(f"trainer_state.json: {what}", _IMPORT, _with(_STATE, json.dumps(state)), Ends.works)
    for what, lines in _CARDS.items():
        card = f"---\nlicense: mit\n---\n### Training hyperparameters\n\n{lines}\n\n### Training results\n"
        yield Case(f"card: {what}", _IMPORT, _with("saved/README.md", card), says=("README.md",))
    for what, content in _FINE_CARDS.items():
        yield Case(f"card: {what}", _IMPORT, _with("saved/README.md", content), Ends.works)
    for what, argument in _ARGUMENTS.items():
        make = _on_adapter(lambda folder: None)
        yield Case(f"argument: {what}", ("import", argument, "name=x", "threads=1"), make)


def _nothing(place: Place) -> None:
    (place.folder / "saved").mkdir()


def _file(place: Place) -> None:
    place.write("saved", "text")


def _fifo(place: Place) -> None:
    os.mkfifo(place.folder / "saved")


def _loop(place: Place) -> None:
    (place.folder / "saved").symlink_to("saved")


def _pickles(place: Place) -> None:
    place.write("saved/checkpoint-2/pytorch_model.bin", pickle.dumps({"a": 1}))


def _pickled_adapter(place: Place) -> None:
    place.copy("adapter", "saved/checkpoint-2")
    (place.folder / "saved/checkpoint-2/adapter_model.safetensors").unlink()
    place.write("saved/checkpoint-2/adapter_model.bin", pickle.dumps({"a": 1}))


def _shards(place: Place) -> None:
    place.write("saved/checkpoint-2/global_step2/zero_pp_rank_0_mp_rank_00_model_states.pt", b"x")


def _no_settings(place: Place) -> None:
    place.copy("adapter", "saved/checkpoint-2")
    (place.folder / "saved/checkpoint-2/adapter_config.json").unlink()


def _no_step(place: Place) -> None:
    place.copy("adapter", "saved")


def _two_of_one_step(place: Place) -> None:
    place.copy("adapter", "saved/checkpoint-2")
    place.copy("adapter", "saved/checkpoint-02")
    path = place.folder / "saved/checkpoint-02/adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4:] = b"\x00\x00\x80\x3f"
    path.write_bytes(bytes(content))


def _step_zero(place: Place) -> None:
    place.copy("adapter", "saved/checkpoint-0")


def _huge_step(place: Place) -> None:
    place.copy("adapter", f"saved/checkpoint-{'9' * 200}")


def _model_of_another(place: Place) -> None:
    """Full weights whose config.json is not that of the base."""
    path = place.copy("model", "saved/checkpoint-2") / "config.json"
    content = json.loads(path.read_text())
    content["text_config"]["rope_parameters"]["rope_theta"] = 5.0
    path.write_text(json.dumps(content))


def _model_of_a_billion_layers(place: Place) -> None:
    path = place.copy("model", "saved/checkpoint-2") / "config.json"
    content = json.loads(path.read_text())
    content["text_config"]["num_hidden_layers"] = 10**9
    path.write_text(json.dumps(content))


def _model_without_settings(place: Place) -> None:
    (place.copy("model", "saved/checkpoint-2") / "config.json").unlink()


def _model_of_other_words(place: Place) -> None:
    path = place.copy("model", "saved/checkpoint-2") / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] = {f"w{number}": number for number in range(1536)}
    content["model"]["merges"] = []
    path.write_text(json.dumps(content))


def _model_with_damaged_words(place: Place) -> None:
    (place.copy("model", "saved/checkpoint-2") / "tokenizer.json").write_text('{"version": "1.0", "model": 4}')


def _run_of_ours(place: Place) -> None:
    place.copy("outputs/lora", "saved")


_LAYOUTS: dict[str, Make] = {
    "empty": _nothing,
    "a file": _file,
    "a FIFO": _fifo,
    "a link to itself": _loop,
    "pickles": _pickles,
    "an adapter that is a pickle": _pickled_adapter,
    "pieces of a sharded model": _shards,
    "an adapter without its settings": _no_settings,
    "an adapter that does not say its step": _no_step,
    "two different checkpoints of one step": _two_of_one_step,
    "a checkpoint of step 0": _step_zero,
    "a checkpoint of a step with 200 digits": _huge_step,
    "a model of other settings": _model_of_another,
    "a model of a billion layers": _model_of_a_billion_layers,
    "a model without config.json": _model_without_settings,
    "a model of another vocabulary": _model_of_other_words,
    "a model with a damaged vocabulary": _model_with_damaged_words,
    "a run of forgetbench": _run_of_ours,
}


def _on_adapter(arrange: Callable[[Path], object]) -> Make:
    """An adapter that is right, and something beside it."""

    def make(place: Place) -> None:
        place.copy("adapter", "saved/checkpoint-2")
        arrange(place.folder / "saved")

    return make


def _with(name: str, content: str | bytes) -> Make:
    def make(place: Place) -> None:
        place.copy("adapter", "saved/checkpoint-2")
        place.write(name, content)

    return make


_FINE_LAYOUTS: dict[str, Callable[[Path], object]] = {
    "files of other kinds beside": lambda folder: (folder / "training_args.bin").write_bytes(b"\x80\x04N."),
    "a checkpoint that is a file": lambda folder: (folder / "checkpoint-9").write_text("text"),
    "an empty checkpoint": lambda folder: (folder / "checkpoint-9").mkdir(),
    "a link to itself beside": lambda folder: (folder / "checkpoint-9").symlink_to("checkpoint-9"),
    "a FIFO beside": lambda folder: os.mkfifo(folder / "checkpoint-9"),
    "a checkpoint whose number is no ASCII": lambda folder: (folder / "checkpoint-٣").mkdir(),
}
_STATES: dict[str, str | bytes] = {
    "null": "null",
    "a list": "[]",
    "a number": "5",
    "no JSON": "{global_step: 2}",
    "empty": b"",
    "cut short": '{"global_step": 2, "log_history": [{"lo',
    "10,000 levels": deep(),
    "UTF-16": '{"global_step": 2}'.encode("utf-16"),
    "no text": b"\x80\x04\x95",
}
_ROW = {"step": 1, "loss": 0.5, "learning_rate": 1e-4, "grad_norm": 1.0}
_WRONG_VALUES: dict[str, object] = {
    "a log that is null": {"log_history": None},
    "a log that is a number": {"log_history": 4},
    "a log that is a text": {"log_history": "loss"},
    "a log that is an object": {"log_history": {"loss": 1}},
    "a log of numbers": {"log_history": [1, 2]},
    "a log of nulls": {"log_history": [None]},
    "a loss that is a text": {"log_history": [{**_ROW, "loss": "low"}]},
    "a loss that is a list": {"log_history": [{**_ROW, "loss": [0.5]}]},
    "a step that is a text": {"log_history": [{**_ROW, "step": "first"}]},
    "a step that is null": {"log_history": [{**_ROW, "step": None}]},
    "a rate that is a text": {"log_history": [{**_ROW, "learning_rate": "slow"}]},
    "a rate that is an object": {"log_history": [{**_ROW, "learning_rate": {"vision": 1}}]},
    "a norm that is a text": {"log_history": [{**_ROW, "grad_norm": "small"}]},
}
_FINE_VALUES: dict[str, object] = {
    "an empty object": {},
    "an empty log": {"log_history": []},
    "rows of evaluation": {"log_history": [{"step": 1, "eval_loss": 0.5}, _ROW]},
    "a rate that is null": {"log_history": [{**_ROW, "learning_rate": None}]},
    "a loss that is not a number": {"log_history": [{**_ROW, "loss": float("nan")}]},
    "a last step that is a text": {"global_step": "two", "log_history": [_ROW]},
    "more keys": {"log_history": [{**_ROW, "of_tomorrow": [1]}], "of_tomorrow": None},
    "a key that is an escape sequence": {"log_history": [{**_ROW, "\x1b[31m": 1}]},
}
_CARDS = {
    "a rate that is a word": "- learning_rate: slow",
    "a rate that is not a number": "- learning_rate: nan",
    "an infinite rate": "- learning_rate: inf",
    "a negative rate": "- learning_rate: -1",
    "a batch that is a word": "- train_batch_size: many",
    "a batch that is a fraction": "- train_batch_size: 2.5",
    "a batch that is negative": "- train_batch_size: -2",
    "a batch of zero": "- total_train_batch_size: 0",
    "accumulation that is a word": "- gradient_accumulation_steps: some",
    "warm-up that is a word": "- lr_scheduler_warmup_steps: a few",
    "warm-up that is infinite": "- lr_scheduler_warmup_ratio: inf",
    "a number of 5,000 digits": f"- train_batch_size: {'9' * 5000}",
    "a seed of 5,000 digits": f"- seed: {'9' * 5000}",
    "a seed that is a word": "- seed: lucky",
    "a seed in another script's digits": "- seed: ²",
}
_FINE_CARDS: dict[str, str | bytes] = {
    "empty": b"",
    "no text": b"\xff\xfe\x00\x80",
    "no list": "### Training hyperparameters\n\nnone",
    "a head that is no YAML": "---\n{[\n---\n",
    "an escape sequence": "### Training hyperparameters\n\n- optimizer: \x1b[31mred\n",
}
_ARGUMENTS = {
    "nowhere": "nowhere",
    "a file": "saved/checkpoint-2/README.md",
    "a name of 5,000 letters": "n" * 5000,
    "a device": "/dev/null",
    "in proc": "/proc/self/fd",
}
