"""A model's settings: config.json, generation_config.json, processor and tokenizer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tools.hostile.case import Case, Ends, Place
from tools.hostile.model_files import PLAN, SHOW, TRAIN, deep, setting, with_edit, with_file

_CONFIG, _PROCESSOR, _GENERATION = "config.json", "processor_config.json", "generation_config.json"
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for name in (_CONFIG, _GENERATION, _PROCESSOR, _TOKENIZER, _TOKENIZER_CONFIG):
        command = TRAIN if name == _GENERATION else PLAN
        for what, content in _CONTENTS.items():
            yield Case(f"{name}: {what}", command, with_file(name, content), says=(name,))
        for what, make in _NO_FILES.items():
            yield Case(f"{name}: {what}", TRAIN, _special(name, make), says=(name,))
    for what, (key, value) in _TOO_LARGE.items():
        for verb, command in {"shown": SHOW, "planned": PLAN, "trained": TRAIN}.items():
            make = with_edit(_CONFIG, setting(key, value))
            yield Case(f"{_CONFIG}: {what}, {verb}", command, make, says=(_CONFIG, key.rpartition(".")[2]))
    for name, command, ends, values in _VALUES:
        for what, (key, value) in values.items():
            says = ("m",) if ends is Ends.refused else ()
            yield Case(f"{name}: {what}", command, with_edit(name, setting(key, value)), ends, says)
    for what, change in _VOCABULARIES.items():
        yield Case(f"{_TOKENIZER}: {what}", TRAIN, with_edit(_TOKENIZER, change), says=("m",))


_CONTENTS: dict[str, bytes | str] = {
    "null": "null",
    "a list": "[]",
    "a text": '"llava"',
    "a number": "1e400",
    "no JSON": "{model_type: llava}",
    "cut short": '{"model_type": "lla',
    "10,000 levels": deep(),
    "10,000 levels of objects": deep(10_000, '{"a":', "}").replace(":}", ":1}"),
    "a number of 5,000 digits": '{"a": ' + "9" * 5000 + "}",
    "UTF-16": '{"model_type": "llava"}'.encode("utf-16"),
    "no text": b"\x80\x04\x95\xff",
    "empty": b"",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1530\n",
    "a page of HTML": b"<html>Sign in to the Hub</html>",
}
_NO_FILES: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}


def _special(name: str, make: Callable[[Path], object]) -> Callable[[Place], None]:
    def put(place: Place) -> None:
        path = place.copy("model", "m") / name
        path.unlink()
        make(path)

    return put


_WRONG: dict[str, tuple[str, object]] = {
    "no model_type": ("model_type", ...),
    "an unknown model_type": ("model_type", "llava_of_tomorrow"),
    "a model_type that is null": ("model_type", None),
    "a model_type that is a list": ("model_type", ["llava"]),
    "a model_type that is a number": ("model_type", 4),
    "a model without pictures": ("model_type", "gpt2"),
    "another family with pictures": ("model_type", "qwen2_vl"),
    "text_config is a list": ("text_config", []),
    "text_config is a text": ("text_config", "llama"),
    "text_config is a number": ("text_config", 7),
    "text_config of an unknown type": ("text_config.model_type", "llama9"),
    "vision_config is a list": ("vision_config", []),
    "vision_config is a text": ("vision_config", "clip"),
    "a width that is a text": ("text_config.hidden_size", "192"),
    "a width that is a list": ("text_config.hidden_size", [192]),
    "a width that is a fraction": ("text_config.hidden_size", 192.5),
    "a width that is null": ("text_config.hidden_size", None),
    "a width of zero": ("text_config.hidden_size", 0),
    "a negative width": ("text_config.hidden_size", -192),
    "a width of pictures that is negative": ("vision_config.hidden_size", -128),
    "layers that are a text": ("text_config.num_hidden_layers", "four"),
    "layers that are a list": ("text_config.num_hidden_layers", [4]),
    "a negative number of layers": ("text_config.num_hidden_layers", -1),
    "a vocabulary that is a text": ("text_config.vocab_size", "1536"),
    "no vocabulary": ("text_config.vocab_size", 0),
    "a negative vocabulary": ("text_config.vocab_size", -1536),
    "no heads": ("text_config.num_attention_heads", 0),
    "heads that do not divide the width": ("vision_config.num_attention_heads", 7),
    "a negative number of heads": ("text_config.num_attention_heads", -6),
    "no size of pictures": ("vision_config.image_size", 0),
    "a negative size of pictures": ("vision_config.image_size", -32),
    "a size of pictures that is a text": ("vision_config.image_size", "32"),
    "patches of no size": ("vision_config.patch_size", 0),
    "patches of a negative size": ("vision_config.patch_size", -8),
    "patches that are a text": ("vision_config.patch_size", "8"),
    "an activation that nobody knows": ("text_config.hidden_act", "sinus"),
    "an activation that is a number": ("vision_config.hidden_act", 1),
    "rope that is a text": ("text_config.rope_parameters", "default"),
    "rope of an unknown kind": ("text_config.rope_parameters.rope_type", "spiral"),
    "an epsilon that is a text": ("text_config.rms_norm_eps", "small"),
    "an image token that is a text": ("image_token_index", "<image>"),
    "a layer of features that is a text": ("vision_feature_layer", "last"),
    "a type of values that nobody knows": ("dtype", "float3"),
    "a type of values that is a module's name": ("dtype", "os"),
    "compression that is a text": ("quantization_config", "int8"),
}
_TOO_LARGE: dict[str, tuple[str, object]] = {
    "a billion layers": ("text_config.num_hidden_layers", 10**9),
    "a billion layers of pictures": ("vision_config.num_hidden_layers", 10**9),
    "a billion values in a width": ("text_config.hidden_size", 10**9),
    "a vocabulary of 10^12": ("text_config.vocab_size", 10**12),
    "pictures of 10^6 pixels along an edge": ("vision_config.image_size", 10**6),
    "a billion values between layers": ("text_config.intermediate_size", 10**9),
    "a billion heads": ("text_config.num_attention_heads", 10**9),
    "layers beyond 64 bits": ("text_config.num_hidden_layers", 10**30),
    "a vocabulary beyond 64 bits": ("text_config.vocab_size", 10**30),
}
_UNLIKE_WEIGHTS: dict[str, tuple[str, object]] = {
    "more layers than weights": ("text_config.num_hidden_layers", 5),
    "a hundred layers where weights have 4": ("text_config.num_hidden_layers", 100),
    "a vocabulary of a million": ("text_config.vocab_size", 10**6),
    "another width": ("text_config.hidden_size", 96),
    "ten times the width between layers": ("text_config.intermediate_size", 5120),
    "larger pictures than weights": ("vision_config.image_size", 3200),
    "smaller patches than weights": ("vision_config.patch_size", 1),
    "an image token beyond the vocabulary": ("image_token_index", 10**9),
    "a negative image token": ("image_token_index", -5),
    "a layer of features that is not there": ("vision_feature_layer", 99),
    "text_config is null": ("text_config", None),
    "vision_config of a language model": ("vision_config.model_type", "llama"),
    "untied embeddings": ("tie_word_embeddings", "no"),
}
_ODD: dict[str, tuple[str, object]] = {
    "compression of an unknown kind": ("quantization_config", {"quant_method": "magic"}),
}
_FINE: dict[str, tuple[str, object]] = {
    "no architectures": ("architectures", ...),
    "an architecture of another name": ("architectures", ["Of Somebody Else"]),
    "a key that nobody knows": ("of_tomorrow", {"a": [1, None]}),
    "a key that is an escape sequence": ("\x1b[31mred", "\x1b[0m"),
}
_OF_GENERATION: dict[str, tuple[str, object]] = {
    "an end token that is a text": ("eos_token_id", "</s>"),
    "a list of end tokens": ("eos_token_id", [1, 2]),
    "an end token beyond the vocabulary": ("eos_token_id", 10**12),
    "a negative end token": ("eos_token_id", -1),
    "an end token that is null": ("eos_token_id", None),
    "a length that is negative": ("max_length", -5),
    "a length that is a text": ("max_length", "long"),
    "a temperature that is a text": ("temperature", "hot"),
    "a hundred thousand beams": ("num_beams", 100_000),
    "bad words that are a text": ("bad_words_ids", "word"),
    "a sampler that is an object": ("do_sample", {"a": 1}),
}
_PICTURES: dict[str, tuple[str, object]] = {
    "no image processor": ("image_processor", ...),
    "an image processor that is null": ("image_processor", None),
    "an image processor that is a list": ("image_processor", []),
    "an image processor of an unknown type": ("image_processor.image_processor_type", "EyeProcessor"),
    "a type that is a number": ("image_processor.image_processor_type", 1),
    "a class that nobody knows": ("processor_class", "EyeProcessor"),
    "a class that is a list": ("processor_class", []),
    "a size that is a text": ("image_processor.size", "large"),
    "a size of zero": ("image_processor.size.shortest_edge", 0),
    "a negative size": ("image_processor.size.shortest_edge", -32),
    "a size of a million": ("image_processor.size.shortest_edge", 10**6),
    "a size that is null": ("image_processor.size.shortest_edge", None),
    "a crop of a million": ("image_processor.crop_size", {"height": 10**6, "width": 10**6}),
    "a crop that is negative": ("image_processor.crop_size", {"height": -1, "width": -1}),
    "a mean that is a text": ("image_processor.image_mean", "grey"),
    "a mean of two colours": ("image_processor.image_mean", [0.5, 0.5]),
    "a deviation of zero": ("image_processor.image_std", [0, 0, 0]),
    "a factor that is a text": ("image_processor.rescale_factor", "1/255"),
    "a factor that is not a number": ("image_processor.rescale_factor", float("nan")),
    "a way to resize that nobody knows": ("image_processor.resample", 99),
    "patches of no size": ("patch_size", 0),
    "patches that are a text": ("patch_size", "8"),
    "a billion further tokens of a picture": ("num_additional_image_tokens", 10**9),
    "further tokens that are a text": ("num_additional_image_tokens", "one"),
}
_TOKENS: dict[str, tuple[str, object]] = {
    "a class that nobody knows": ("tokenizer_class", "WordTokenizer"),
    "a class that is a number": ("tokenizer_class", 7),
    "an end token that is a number": ("eos_token", 1),
    "an end token that is a list": ("eos_token", ["</s>"]),
    "an end token that is an object": ("eos_token", {"content": "</s>", "of_tomorrow": True}),
    "an end token that is not in the vocabulary": ("eos_token", "<the end>"),
    "no end token": ("eos_token", ...),
    "a padding token that is null": ("pad_token", None),
    "no padding token": ("pad_token", ...),
    "a longest text that is a text": ("model_max_length", "512"),
    "a longest text that is negative": ("model_max_length", -1),
    "a longest text of zero": ("model_max_length", 0),
    "added tokens that are a list": ("added_tokens_decoder", []),
    "added tokens that are numbers": ("added_tokens_decoder", {"0": 1}),
    "added tokens whose ids are words": ("added_tokens_decoder", {"zero": {"content": "<a>"}}),
    "special tokens that are a text": ("extra_special_tokens", "<a>"),
    "a chat template that is a number": ("chat_template", 1),
    "a side of padding that nobody knows": ("padding_side", "above"),
}


def _without_tokens(content: Any) -> None:
    content["model"]["vocab"] = {}


def _another_vocabulary(content: Any) -> None:
    content["model"]["vocab"] = {f"w{number}": number for number in range(100)}
    content["model"]["merges"] = []


def _huge_ids(content: Any) -> None:
    first = next(iter(content["model"]["vocab"]))
    content["model"]["vocab"][first] = 2**31


def _negative_ids(content: Any) -> None:
    first = next(iter(content["model"]["vocab"]))
    content["model"]["vocab"][first] = -1


def _more_tokens(content: Any) -> None:
    """More tokens than the embeddings have rows."""
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {word: number + 5000 for word, number in vocabulary.items()}


_VOCABULARIES: dict[str, Callable[[Any], Any]] = {
    "no model": setting("model", ...),
    "a model that is null": setting("model", None),
    "a model of an unknown type": setting("model.type", "Words"),
    "a vocabulary that is a list": setting("model.vocab", []),
    "a vocabulary that is a text": setting("model.vocab", "a b c"),
    "an empty vocabulary": _without_tokens,
    "the vocabulary of another model": _another_vocabulary,
    "an id beyond 31 bits": _huge_ids,
    "a negative id": _negative_ids,
    "more tokens than embeddings": _more_tokens,
    "a version of tomorrow": setting("version", "99"),
    "added tokens that are a text": setting("added_tokens", "<image>"),
    "added tokens without content": setting("added_tokens", [{"id": 0}]),
    "a splitter of an unknown type": setting("pre_tokenizer", {"type": "Knife"}),
    "a splitter with an endless pattern": setting(
        "pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a*)*b("}, "behavior": "Isolated", "invert": False}
    ),
    "a decoder that is a number": setting("decoder", 1),
    "a post-processor that is a text": setting("post_processor", "none"),
}
_ODD_PICTURES: dict[str, tuple[str, object]] = {
    "an image token that is a list": ("image_token", ["<image>"]),
    "an image token that the tokenizer does not know": ("image_token", "<of another model>"),
    "a way to resize that is a text": ("image_processor.resample", "soft"),
    "a way of features that nobody knows": ("vision_feature_select_strategy", "best"),
}
_VALUES: tuple[tuple[str, tuple[str, ...], Ends, dict[str, tuple[str, object]]], ...] = (
    (_CONFIG, PLAN, Ends.refused, _WRONG),
    (_CONFIG, TRAIN, Ends.refused, _UNLIKE_WEIGHTS),
    (_CONFIG, TRAIN, Ends.works, _FINE),
    (_CONFIG, TRAIN, Ends.either, _ODD),
    (_GENERATION, TRAIN, Ends.either, _OF_GENERATION),
    (_PROCESSOR, PLAN, Ends.refused, _PICTURES),
    (_PROCESSOR, PLAN, Ends.either, _ODD_PICTURES),
    (_TOKENIZER_CONFIG, PLAN, Ends.either, _TOKENS),
)
"""Which file, which command reads it, how that ends, and the values."""
