"""Models, adapters and data sets that bring code, pickles, or a template that reaches for Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from tools.hostile.case import Case, Ends, Place
from tools.hostile.groups.read_back import edited

_CODE = 'open("../outside/pwned", "w")\nclass Evil:\n    pass\n'
_PICKLE = b"cposix\nsystem\n(S'touch ../outside/pwned'\ntR."
_LOADED = ("eval-matrix", "model=local", "model.path=m", "matrix=quick", "matrix.limit=2", "threads=1")
_SHOWN = ("models", "show", "model=local", "model.path=m")


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, (name, changes) in _ASKS.items():
        yield Case(f"a model's {what}", _LOADED, _asks(name, changes), Ends.either)
    for what, name in _LYING.items():
        yield Case(f"in a model's folder lies {what}", _SHOWN, _lying(name), Ends.works)
    for what, template in _TEMPLATES.items():
        yield Case(f"a template {what}", _LOADED, _template(template), says=("template",))
        yield Case(f"a typed template {what}", (*_TYPED, "model.chat_template=t.jinja"), _given(template))
    for what, (name, content) in _PICKLES.items():
        yield Case(f"weights: {what}", _LOADED, _weights(name, content), Ends.refused)
    for what, (name, content) in _IMPORTED.items():
        command = ("import", "saves", "model=local", "model.path=embedded:tiny", "name=x", "data=fashion_naming")
        yield Case(f"imported: {what}", command, _imported(name, content), Ends.refused)
    for what, changes in _ADAPTERS.items():
        command = ("import", "saves", "model=local", "model.path=embedded:tiny", "name=x", "data=fashion_naming")
        yield Case(f"an adapter's {what}", command, _adapter(changes), Ends.either)
    for what, files in _REPOSITORIES.items():
        yield Case(f"a repository of data with {what}", ("data", "show", "set"), _repository(files), Ends.either)
    for what, text in _YAML.items():
        yield Case(f"a manifest with {what}", ("data", "show", "set"), _manifest(text), says=("set.yaml",))
        yield Case(f"a list of manifests with {what}", ("data", "list"), _manifest(text), Ends.either)


_TYPED = ("eval-matrix", "model=tiny", "matrix=quick", "matrix.limit=2", "threads=1")
_MAP = {"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil"}}
_ASKS: dict[str, tuple[str, dict[str, object]]] = {
    "configuration names code": ("config.json", {**_MAP, "model_type": "evil"}),
    "configuration names code for a known type": ("config.json", _MAP),
    "configuration names code of another repository": (
        "config.json",
        {"auto_map": {"AutoConfig": "other/repository--evil.Evil"}, "model_type": "evil"},
    ),
    "processor names code": ("processor_config.json", {"auto_map": {"AutoProcessor": "evil.Evil"}}),
    "processor is of another class": ("processor_config.json", {"processor_class": "Evil"}),
    "pictures are read by code": (
        "processor_config.json",
        {"image_processor": {"image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": "evil.Evil"}}},
    ),
    "tokenizer names code": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}),
    "tokenizer is of another class": ("tokenizer_config.json", {"tokenizer_class": "Evil"}),
    "tokenizer's file is elsewhere": ("tokenizer_config.json", {"tokenizer_file": "../outside/secret.txt"}),
    "vocabulary is elsewhere": ("tokenizer_config.json", {"vocab_file": "../outside/secret.txt"}),
    "attention is of a repository": ("config.json", {"_attn_implementation": "other/kernels"}),
    "text has attention of a repository": ("config.json", {"attn_implementation": {"text_config": "other/kernels"}}),
    "generation is code": ("generation_config.json", {"custom_generate": "other/repository"}),
    "weights are packed by another library": ("config.json", {"quantization_config": {"quant_method": "evil"}}),
    "weights are packed by GPTQ": ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
    "pipelines are code": ("config.json", {"custom_pipelines": {"x": {"impl": "evil.Evil", "pt": ["Evil"]}}}),
    "file names a target": ("config.json", {"_target_": "os.system"}),
}
_LYING = {
    "a module": "modeling_evil.py",
    "an initialiser": "__init__.py",
    "a module called like torch": "torch.py",
    "code of generation": "custom_generate/generate.py",
    "a set-up": "setup.py",
    "what Python starts with": "sitecustomize.py",
    "a module called like the processor": "processing_llava.py",
}
_TEMPLATES = {
    "asks for the class": "{{ messages.__class__.__mro__ }}",
    "asks for the class by a filter": "{{ messages | attr('__class__') }}",
    "asks for subclasses": "{{ ''.__class__.__base__.__subclasses__() }}",
    "asks for globals": "{{ raise_exception.__globals__ }}",
    "asks for globals of the clock": "{{ strftime_now.__globals__['os'].environ }}",
    "asks for globals of a cycler": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "asks for itself": "{{ self.__init__.__globals__ }}",
    "asks for globals of a lipsum": "{{ lipsum.__globals__['os'].environ }}",
    "includes a file": "{% include '/etc/passwd' %}",
    "imports a file": "{% import '/etc/passwd' as x %}",
    "extends a file": "{% extends '/etc/passwd' %}",
    "formats a text": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "changes the messages": "{% set _ = messages.append(1) %}{{ messages.clear() }}",
    "calls an import": "{{ __import__('os').environ }}",
}
_PICKLES = {
    "a pickle of the whole model": ("pytorch_model.bin", _PICKLE),
    "a pickle called safetensors": ("model.safetensors", _PICKLE),
    "a ZIP of a pickle": ("pytorch_model.bin", b"PK\x03\x04" + _PICKLE),
    "a pickle named by an index": (
        "pytorch_model.bin.index.json",
        json.dumps({"weight_map": {"a": "evil.bin"}}).encode(),
    ),
    "weights of TensorFlow": ("tf_model.h5", _PICKLE),
    "weights of Flax": ("flax_model.msgpack", _PICKLE),
}
_IMPORTED = {
    "a pickle": ("pytorch_model.bin", _PICKLE),
    "a pickle of an adapter": ("adapter_model.bin", _PICKLE),
    "arguments alone": ("training_args.bin", _PICKLE),
    "an optimiser alone": ("optimizer.pt", _PICKLE),
    "a pickle called safetensors": ("model.safetensors", _PICKLE),
    "a shard elsewhere": (
        "model.safetensors.index.json",
        json.dumps({"weight_map": {"a": "../../outside/secret.txt"}}).encode(),
    ),
}
_ADAPTERS: dict[str, dict[str, object]] = {
    "base is a module": {"auto_mapping": {"base_model_class": "system", "parent_library": "os"}},
    "base names code": {"base_model_name_or_path": "../evil", "trust_remote_code": True},
    "kind is another": {"peft_type": "EVIL"},
    "weights are initialised by a file": {"init_lora_weights": "../outside/secret.txt"},
    "layers are an expression": {"target_modules": "__import__('os').system('touch ../outside/pwned')"},
}
_ROWS = b'{"id": "a", "question": "Which?", "options": ["x", "y"], "answer": "A"}\n'
_REPOSITORIES: dict[str, dict[str, bytes]] = {
    "a script of its name": {"repository.py": _CODE.encode(), "test.jsonl": _ROWS},
    "a script alone": {"repository.py": _CODE.encode()},
    "a pickle": {"test.pkl": _PICKLE},
    "a pickle of pandas in its card": {
        "README.md": b"---\nconfigs: [{config_name: default, data_files: '*.pkl'}]\n---\n",
        "test.pkl": _PICKLE,
    },
    "a NumPy file of objects": {
        "test.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    },
    "a torch file": {"test.pt": _PICKLE},
    "a YAML object in its card": {
        "README.md": b"---\nx: !!python/object/apply:os.system ['id']\n---\n",
        "test.jsonl": _ROWS,
    },
    "a legacy description": {"dataset_infos.json": b'{"default": {"builder_name": "os"}}', "test.jsonl": _ROWS},
}
_YAML = {
    "an object": "title: !!python/object/apply:os.system ['touch ../outside/pwned']",
    "a new object": "title: !!python/object/new:os.system ['touch ../outside/pwned']",
    "a name": "title: !!python/name:os.system",
    "a module": "title: !!python/module:antigravity",
    "a tuple": "title: !!python/tuple [1]",
    "an object in a list": "stop: [!!python/object/apply:eval ['1']]",
}


def _asks(name: str, changes: dict[str, object]) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.copy("model", "m")
        place.write("m/evil.py", _CODE)
        edited(place.folder / "m" / name, lambda content: content.update(changes))

    return make


def _lying(name: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.copy("model", "m")
        place.write(f"m/{name}", _CODE)

    return make


def _template(text: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.copy("model", "m")
        place.write("m/chat_template.jinja", text)

    return make


def _given(text: str) -> Callable[[Place], object]:
    return lambda place: place.write("t.jinja", text)


def _weights(name: str, content: bytes) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        (place.copy("model", "m") / "model.safetensors").unlink()
        place.write(f"m/{name}", content)
        place.write("m/evil.bin", _PICKLE)

    return make


def _imported(name: str, content: bytes) -> Callable[[Place], object]:
    return lambda place: place.write(f"saves/checkpoint-2/{name}", content)


def _adapter(changes: dict[str, object]) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.copy("adapter", "saves/checkpoint-2")
        edited(place.folder / "saves/checkpoint-2/adapter_config.json", lambda content: content.update(changes))

    return make


def _repository(files: dict[str, bytes]) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        _manifest("source: {kind: hub, hub_id: ../repository}")(place)
        for name, content in files.items():
            place.write(f"repository/{name}", content)

    return make


def _manifest(text: str) -> Callable[[Place], object]:
    lists = (
        "splits: {test: {}}\nimage_domains: [text]\ntext_tasks: [a]\nprompt: '{question} {options}'\nanswer: letter\n"
    )
    return lambda place: place.write("data_manifests/set.yaml", f"{lists}{text}\n")
