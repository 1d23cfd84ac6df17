"""Numbers, lists and words on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tools.hostile.case import Case, Ends, Place
from tools.hostile.model_files import SHORT


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, words in _TRAINED.items():
        yield Case(f"finetune: {what}", ("finetune", "name=x", *SHORT, *words), _nothing, says=(_key(words[0]),))
    for what, words in _TRAINED_FINE.items():
        yield Case(f"finetune: {what}", ("finetune", "name=x", *SHORT, *words), _nothing, Ends.works)
    for what, words in _SCORED.items():
        command = ("eval-matrix", "matrix=quick", "threads=1", *words)
        yield Case(f"eval-matrix: {what}", command, _nothing, says=(_key(words[0]),))
    for what, words in _PLANNED.items():
        yield Case(f"models plan: {what}", ("models", "plan", *words), _nothing, says=(_key(words[0]),))
    for what, command in _COMMANDS.items():
        yield Case(what, command, _runs)
    for what, command in _FINE_COMMANDS.items():
        yield Case(what, command, _runs, Ends.works)


def _key(word: str) -> str:
    return word.lstrip("-+").partition("=")[0]


_TRAINED: dict[str, tuple[str, ...]] = {
    "a negative seed": ("seed=-1",),
    "a seed of 2^64": (f"seed={2**64}",),
    "a seed beyond 64 bits": (f"seed={10**30}",),
    "a seed of 5,000 digits": (f"seed={'9' * 5000}",),
    "a seed that is a fraction": ("seed=0.5",),
    "a seed that is a word": ("seed=lucky",),
    "a seed that is null": ("seed=null",),
    "a seed that is not a number": ("seed=nan",),
    "a seed that is infinite": ("seed=inf",),
    "a seed that is an object": ("seed={a:1}",),
    "steps beyond 64 bits": (f"recipe.steps={10**30}",),
    "a negative number of steps": ("recipe.steps=-1",),
    "no steps": ("recipe.steps=0",),
    "steps that are infinite": ("recipe.steps=inf",),
    "a batch of zero": ("recipe.batch_size=0",),
    "a batch beyond 64 bits": (f"recipe.batch_size={10**30}",),
    "a batch that is negative": ("recipe.batch_size=-4",),
    "a rate that is not a number": ("recipe.lr=nan",),
    "an infinite rate": ("recipe.lr=inf",),
    "a negative rate": ("recipe.lr=-1e-4",),
    "a rate that is a word": ("recipe.lr=slow",),
    "a rate that is a list": ("recipe.lr=[1e-4]",),
    "a rate of a part that is not there": ("recipe.lr={heart:1e-4}",),
    "warm-up that is not a number": ("recipe.warmup=nan",),
    "decay that is not a number": ("recipe.weight_decay=nan",),
    "infinite decay": ("recipe.weight_decay=inf",),
    "a norm that is not a number": ("recipe.max_grad_norm=nan",),
    "accumulation of zero": ("recipe.gradient_accumulation=0",),
    "threads beyond 64 bits": (f"threads={10**30}",),
    "a million threads": ("threads=1000000",),
    "threads that are a word": ("threads=all",),
    "last layers of zero": ("recipe.language_last_layers=0",),
    "more last layers than there are": ("recipe.language_last_layers=1000",),
    "a ratio above one": ("recipe.mix.ratio=1.5", "recipe.mix.data=[emoji_use]"),
    "a ratio that is not a number": ("recipe.mix.ratio=nan", "recipe.mix.data=[emoji_use]"),
    "a rank of zero": ("method.rank=0", "recipe=lora"),
    "a negative rank": ("method.rank=-8", "recipe=lora"),
    "a rank beyond 64 bits": (f"method.rank={10**30}", "recipe=lora"),
    "a rank of a billion": (f"method.rank={10**9}", "recipe=lora"),
    "a scale that is not a number": ("method.alpha=nan", "recipe=lora"),
    "dropout above one": ("method.dropout=2", "recipe=lora"),
    "checkpoints every zero steps": ("recipe.checkpoints.every=0",),
    "checkpoints at negative steps": ("recipe.checkpoints.steps=[-1]",),
    "checkpoints at steps beyond 64 bits": (f"recipe.checkpoints.steps=[{10**30}]",),
    "no pixels": ("model.max_pixels=0",),
    "pixels that are negative": ("model.max_pixels=-1",),
    "a longest text of zero": ("recipe.max_length=0",),
    "a longest text that is negative": ("recipe.max_length=-5",),
    "epochs that are not a number": ("data.stages=[{set:fashion_naming,epochs:nan}]",),
    "epochs without end": ("data.stages=[{set:fashion_naming,epochs:inf}]",),
    "a model without a path": ("model.path=''", "model=local"),
    "a model at a path of 5,000 letters": (f"model.path={'n' * 5000}", "model=local"),
    "a model at a loop": ("model.path=loop", "model=local"),
    "a model that is a device": ("model.path=/dev/zero", "model=local"),
    "a model that is a FIFO": ("model.path=fifo", "model=local"),
    "a model that is an id of the Hub with blanks": ("model.path='a b/c d'", "model=local"),
    "a model with a zero byte in its path": ("model.path='a\\\\0b'", "model=local"),
    "a revision of 5,000 letters": ("model.path=someone/something", "model=local", f"model.revision={'r' * 5000}"),
    "a list where a text belongs": ("name=[a,b]",),
    "an object where a text belongs": ("name={a:b}",),
    "null where a name belongs": ("name=null",),
    "brackets that are not closed": ("recipe.parts=[language",),
    "ten thousand brackets": (f"recipe.parts={'[' * 10_000}",),
    "a thousand parts": (f"recipe.parts=[{','.join(['language'] * 1000)}]",),
    "a hundred thousand brackets": (f"model.system_prompt={'{' * 100_000}",),
}
_TRAINED_FINE: dict[str, tuple[str, ...]] = {
    "the largest seed": (f"seed={2**32 - 1}",),
    "a rate of zero": ("recipe.lr=1e-30",),
}
_SCORED: dict[str, tuple[str, ...]] = {
    "a limit of zero": ("matrix.limit=0",),
    "a negative limit": ("matrix.limit=-5",),
    "a limit that is a fraction": ("matrix.limit=2.5",),
    "a batch of zero": ("matrix.batch_size=0",),
    "a negative batch": ("matrix.batch_size=-1",),
    "steps that are negative": ("matrix.steps=[-1]", "run=outputs/x"),
    "steps that are words": ("matrix.steps=[last]", "run=outputs/x"),
    "no decodings": ("matrix.decodings=[]",),
    "decodings that are a word": ("matrix.decodings=choice",),
    "a set twice": ("matrix.datasets=[fashion_naming,fashion_naming]",),
    "a negative seed of samples": ("matrix.sample_seed=-1",),
    "a seed of samples beyond 64 bits": (f"matrix.sample_seed={10**30}",),
    "a temperature of zero": ("matrix.temperature=0",),
    "a temperature that is not a number": ("matrix.temperature=nan",),
    "a negative number of tokens": ("matrix.max_new_tokens=-3",),
    "tokens beyond 64 bits": (f"matrix.max_new_tokens={10**30}",),
    "pictures of representation that are negative": ("matrix.representation.images=-1",),
    "a run that is a file": ("run=file",),
    "a run at a loop": ("run=loop",),
    "a run that is a device": ("run=/dev/null",),
}
_PLANNED: dict[str, tuple[str, ...]] = {
    "a batch beyond 64 bits": (f"recipe.batch_size={10**400}",),
    "pixels of 10^18": (f"model.max_pixels={10**18}",),
    "a rank of 400 digits": (f"method.rank={10**400}", "recipe=lora"),
}
_COMMANDS: dict[str, tuple[str, ...]] = {
    "eval-matrix: a run of 5,000 letters": ("eval-matrix", f"run={'n' * 5000}"),
    "show: a file": ("show", "file"),
    "show: a loop": ("show", "loop"),
    "show: a device": ("show", "/dev/zero"),
    "show: a name of 5,000 letters": ("show", "n" * 5000),
    "show: an empty folder": ("show", "empty"),
    "report: a FIFO": ("report", "fifo"),
    "report: a name of 5,000 letters": ("report", "n" * 5000),
    "report: a negative number of flips": ("report", "outputs/lora", "--flips", "-1"),
    "report: flips that are a word": ("report", "outputs/lora", "--flips", "many"),
    "compare: a margin that is not a number": ("compare", "outputs/lora", "--margin", "nan"),
    "compare: a negative margin": ("compare", "outputs/lora", "--margin", "-1"),
    "compare: an infinite margin": ("compare", "outputs/lora", "--margin", "inf"),
    "compare: a name of 5,000 letters": ("compare", "n" * 5000),
    "compare: a pattern that matches nothing": ("compare", "outputs/q*"),
    "compare: a pattern that is not closed": ("compare", "outputs/[a"),
    "compare: itself twice, one a file": ("compare", "outputs/lora", "file"),
    "compare: a decoding that nobody knows": ("compare", "outputs/lora", "--decoding", "dream"),
    "power: a change of zero": ("power", "outputs/lora", "--points", "0"),
    "power: a change that is not a number": ("power", "outputs/lora", "--points", "nan"),
    "power: a negative change": ("power", "outputs/lora", "--points", "-2"),
    "power: a probability of one": ("power", "outputs/lora", "--power", "1"),
    "power: a probability that is not a number": ("power", "outputs/lora", "--power", "nan"),
    "power: a level of zero": ("power", "outputs/lora", "--alpha", "0"),
    "power: a level above one": ("power", "outputs/lora", "--alpha", "2"),
    "export: onto a file": ("export", "outputs/lora", "file"),
    "export: onto a folder": ("export", "outputs/lora", "empty"),
    "export: onto a loop": ("export", "outputs/lora", "loop"),
    "export: below a file": ("export", "outputs/lora", "file/out"),
    "export: into proc": ("export", "outputs/lora", "/proc/out", "--adapter"),
    "export: a name of 256 letters": ("export", "outputs/lora", "n" * 256, "--adapter"),
    "export: a checkpoint that is not there": ("export", "outputs/lora/checkpoints/step_000099", "out"),
    "export: a file": ("export", "file", "out"),
    "export: the base as an adapter": ("export", "outputs/lora/checkpoints/base", "out", "--adapter"),
    "a command that nobody knows": ("train",),
    "an option that nobody knows": ("finetune", "--fast"),
    "no words at all of export": ("export",),
    "a word that is no setting": ("finetune", "fashion"),
    "an empty word": ("finetune", ""),
    "only a sign": ("finetune", "="),
    "a blank key": ("finetune", " =1"),
    "a key of 5,000 letters": ("finetune", f"{'k' * 5000}=1"),
    "a key of a thousand dots": ("finetune", f"{'.'.join('k' * 1000)}=1"),
}
_FINE_COMMANDS: dict[str, tuple[str, ...]] = {
    "debug before the command": ("--debug", "show", "outputs/lora"),
    "debug behind the command": ("show", "outputs/lora", "--debug"),
    "export: a name of 200 letters": ("export", "outputs/lora", "n" * 200, "--adapter"),
}


def _nothing(place: Place) -> None:
    place.write("file", "text")
    (place.folder / "loop").symlink_to("loop")
    os.mkfifo(place.folder / "fifo")


def _runs(place: Place) -> None:
    _nothing(place)
    place.copy("outputs/lora")
    place.copy("outputs/.cells")
    (place.folder / "empty").mkdir()
