"""Configurations that name code to be run: of somebody else's files, and typed."""

from __future__ import annotations

from collections.abc import Iterator

from tools.hostile.case import Case, Ends, Place

_TARGETS = {
    "pandas.read_pickle": "{_target_: pandas.read_pickle, filepath_or_buffer: data.pkl}",
    "numpy.load": "{_target_: numpy.load, file: data.pkl, allow_pickle: true}",
    "torch.load": "{_target_: torch.load, f: data.pkl, weights_only: false}",
    "Path.touch": "{_target_: pathlib.Path.touch, self: {_target_: pathlib.Path, _args_: [../outside/pwned]}}",
    "eval": "{_target_: builtins.eval, _args_: ['open(\"../outside/pwned\", \"w\")']}",
    "os.system": "{_target_: os.system, command: 'touch ../outside/pwned'}",
    "a partial": "{_target_: os.system, _partial_: true, command: 'touch ../outside/pwned'}",
    "deep inside": "{a: {b: [{c: {_target_: os.system, command: 'touch ../outside/pwned'}}]}}",
}
_PLACES = {
    "a strategy's callbacks": ("strategy", "# @package _global_\nhydra: {{callbacks: {{x: {0}}}}}"),
    "a strategy's launcher": ("strategy", "# @package _global_\nhydra: {{launcher: {0}}}"),
    "a strategy's method": ("strategy", "# @package _global_\nmethod: {0}"),
    "a sweep's sweeper": ("sweep", "# @package _global_\nhydra: {{sweeper: {0}}}"),
    "a sweep's sampler": ("sweep", "# @package _global_\nhydra: {{sweeper: {{sampler: {0}}}}}"),
    "a recipe": ("recipe", "defaults: [/schema/recipe@_here_, _self_]\nmix: {0}"),
    "a model": ("model", "path: embedded:tiny\nx: {0}"),
    "a stage": ("data", "stages: [{{set: fashion_naming, recipe: {0}}}]"),
    "a launcher's callbacks": ("launcher", "# @package _global_\nhydra: {{callbacks: {{x: {0}}}}}"),
    "a launcher": ("launcher", "# @package _global_\nhydra: {{launcher: {0}}}"),
    "a launcher's loggers": ("launcher", "# @package _global_\nhydra: {{job_logging: {{handlers: {{x: {0}}}}}}}"),
}


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for place, (group, text) in _PLACES.items():
        for target in _OF_GROUP.get(group, list(_TARGETS)[:3]):
            yield _file(f"{target} in {place}", group, text.format(_TARGETS[target]))
    for what, (group, text) in _FILES.items():
        yield _file(what, group, text)
    for what, words in _TYPED.items():
        command = "sweep" if "a sweep" in what else "finetune"
        yield Case(f"typed {what}", (command, *words, *_SHORT), _nothing)
    for what, words in _LAUNCHERS.items():
        yield Case(f"typed {what}", ("sweep", "--cfg", *words), _nothing, Ends.works)


_SHORT = ("name=x", "recipe.steps=1", "recipe.batch_size=2", "threads=1")
_OF_GROUP = {"strategy": list(_TARGETS), "launcher": list(_TARGETS)[3:6]}
_LOGGING = "# @package _global_\nhydra: {job_logging: "
_FILES = {
    "a logger made by a factory in a launcher": ("launcher", _LOGGING + "{handlers: {x: {(): os.system}}}}"),
    "a logger of a class in a launcher": ("launcher", _LOGGING + "{handlers: {x: {class: os.system}}}}"),
    "a formatter of a class in a launcher": ("launcher", _LOGGING + "{formatters: {x: {class: os.system}}}}"),
    "a filter made by a factory in a launcher": ("launcher", _LOGGING + "{filters: {x: {(): builtins.eval}}}}"),
    "a stream that is a module in a launcher": (
        "launcher",
        _LOGGING + "{handlers: {x: {class: logging.StreamHandler, stream: 'ext://antigravity'}}}}",
    ),
    "a logger that sends pickles in a launcher": (
        "launcher",
        _LOGGING + "{handlers: {x: {class: logging.handlers.SocketHandler, host: x, port: 1}}}}",
    ),
    "a sweeper that is no plugin in a launcher": ("launcher", "# @package _global_\nhydra: {sweeper: {_target_: os.system}}"),
    "an interpolated target in a launcher": (
        "launcher",
        "# @package _global_\nname: os.system\nhydra: {launcher: {_target_: '${name}'}}",
    ),
    "a target made by a resolver in a launcher": (
        "launcher",
        "# @package _global_\nhydra: {launcher: {x: '${oc.create:{_target_:os.system}}'}}",
    ),
    "Hydra's callback in a strategy": (
        "strategy",
        "# @package _global_\nhydra: {callbacks: {x: {_target_: hydra.experimental.callbacks.LogJobReturnCallback}}}",
    ),
    "a YAML object": ("recipe", "lr: !!python/object/apply:os.system ['touch ../outside/pwned']"),
    "a YAML name": ("recipe", "lr: !!python/name:os.system"),
    "a YAML module": ("strategy", "lr: !!python/module:antigravity"),
    "a YAML tag of its own": ("recipe", "lr: !evil {a: 1}"),
}
_TYPED = {
    "a callback": ("+hydra.callbacks.x._target_=os.system", "+hydra.callbacks.x.command=true"),
    "a callback of pandas": ("+hydra.callbacks.x={_target_: pandas.read_pickle, filepath_or_buffer: x}",),
    "a callback deep inside one of Hydra's": (
        "+hydra.callbacks.x={_target_: hydra.experimental.callbacks.LogJobReturnCallback, y: {_target_: os.system}}",
    ),
    "a launcher": ("hydra.launcher._target_=os.system",),
    "a launcher of a sweep": ("hydra.launcher._target_=os.system", "seed=0,1"),
    "a sweeper of a sweep": ("hydra.sweeper._target_=os.system", "seed=0,1"),
    "a sampler of a sweep": ("+hydra.sweeper.sampler._target_=os.system", "seed=0,1"),
    "a launcher that is a sweeper in a sweep": (
        "hydra.launcher._target_=hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "seed=0,1",
    ),
    "a target through a key": ("+hydra.launcher.x=${method}", "+method._target_=os.system"),
    "a logger": ("+hydra.job_logging.handlers.x={class: os.system}",),
    "a logger of Hydra's own": ("+hydra.hydra_logging.handlers.x={class: os.system}",),
    "a stream": ("+hydra.job_logging.handlers.x={class: logging.StreamHandler, stream: 'ext://os.environ'}",),
    "a target in a stage": ("data.stages=[{set: fashion_naming, recipe: {_target_: os.system}}]",),
    "a target in the recipe": ("+recipe._target_=os.system",),
    "a target in the method": ("+method._target_=os.system",),
    "a callback in a sweep's grid": ("+hydra.callbacks.x._target_=os.system,os.popen",),
    "a target of a sweep in the matrix": ("+matrix._target_=os.system",),
    "a plugin that is not there": ("hydra/launcher=evil",),
    "callbacks that are a list": ("hydra.callbacks=[{_target_: os.system}]",),
    "callbacks that are a text": ("hydra.callbacks=os.system",),
}
_LAUNCHERS = {
    "joblib by Hydra's name": ("hydra/launcher=joblib", "seed=0,1"),
    "Hydra's own launcher": ("hydra/launcher=basic", "seed=0,1"),
    "joblib": ("launcher=joblib", "seed=0,1"),
    "submitit on this machine": ("launcher=submitit_local", "seed=0,1"),
    "submitit with a partition": ("launcher=submitit", "hydra.launcher.partition=gpu", "seed=0,1"),
    "submitit with commands of the cluster": ("launcher=submitit", "hydra.launcher.setup=['module load cuda']", "seed=0,1"),
    "Hydra's logging to the screen": ("hydra/job_logging=stdout", "seed=0,1"),
}


def _file(name: str, group: str, text: str) -> Case:
    sweeps = group in ("sweep", "launcher")

    def make(place: Place) -> None:
        place.write("data.pkl", b"cposix\nsystem\n(S'touch ../outside/pwned'\ntR.")
        place.write(f"conf/{group}/evil.yaml", f"{text}\n")

    command = ("sweep" if sweeps else "finetune", f"{group}=evil", *(("seed=0,1",) if group == "launcher" else ()))
    return Case(name, (*command, *_SHORT), make)


def _nothing(_: Place) -> None:
    """No file is needed."""
