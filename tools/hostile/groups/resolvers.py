"""Files of somebody else that refer to the environment, to Hydra or to other files."""

from __future__ import annotations

from collections.abc import Iterator

from tools.hostile.case import Case, Ends, Place

_HERE = "--cfg"
_ITEM = '{"id": "a", "question": "Which?", "options": ["x", "y"], "answer": "A"}\n'
_MANIFEST = """\
title: {title}
source: {{root: data}}
splits: {{test: {{files: [rows.jsonl]}}}}
image_domains: [text]
text_tasks: [naming]
prompt: "{prompt}"
answer: letter
"""


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, text in _REFERENCES.items():
        yield _manifest(f"a manifest's title is {what}", text, "{question} {options}")
        yield _conf(f"a recipe's precision is {what}", "recipe", f'precision: "{_quoted(text)}"')
        yield _conf(f"a model's path is {what}", "model", f'path: "{_quoted(text)}"')
        yield _conf(f"a strategy's name is {what}", "strategy", f'strategy: "{_quoted(text)}"', _GLOBAL)
    yield _manifest("a manifest's prompt is the environment", "x", "${oc.env:CANARY} {question} {options}")
    for what, text in _GOOD.items():
        yield _conf(f"a recipe refers to {what}", "recipe", text, ends=Ends.works)
    for what, (group, text) in _HYDRA.items():
        yield _conf(what, group, text, "" if text.startswith("#") else _GLOBAL)
    for what, (group, text) in _DEFAULTS.items():
        yield _conf(f"{group} defaults {what}", group, f"defaults:\n{text}\n")
    for what, words in _TYPED.items():
        yield Case(f"typed {what}", ("finetune", _HERE, *words), _nothing)
    for what, words in _TYPED_WELL.items():
        yield Case(f"typed {what}", ("finetune", _HERE, *words), _nothing, Ends.works, environment=_CLUSTER)
    for what, words in _SWEPT.items():
        yield Case(f"a sweep of {what}", ("sweep", _HERE, *words), _nothing)
    yield Case("a manifest called like a resolver", ("data", "list"), _odd_manifest, Ends.either)
    yield Case("a manifest called like a resolver is a target", _SHOWN_ODD, _odd_manifest, Ends.either)
    yield Case("a configuration folder elsewhere", _ELSEWHERE, _elsewhere, says=("evil.yaml", "oc.env"))
    yield Case("a manifests folder elsewhere", ("data", "show", "evil", "manifests=[far]"), _far, says=("evil.yaml",))


_GLOBAL = "# @package _global_\n"
_REFERENCES = {
    "the environment": "${oc.env:CANARY}",
    "the environment with a default": "${oc.env:CANARY,x}",
    "the environment in a text": "a ${oc.env:CANARY} b",
    "decoded": "${oc.decode:${oc.env:CANARY}}",
    "Hydra's folder": "${hydra:runtime.cwd}",
    "a node of Hydra's": "${hydra.runtime.cwd}",
    "a node of Hydra's from above": "${..hydra.runtime.cwd}",
    "made by a resolver": "${oc.create:{a: 1}}",
    "the keys of a mapping": "${oc.dict.keys:seed}",
    "our own resolver": "${folder_name:a}",
    "an escaped resolver": "\\${oc.env:CANARY}",
    "a resolver with blanks": "${ oc.env : CANARY }",
    "a resolver named by a key": "${${a}:CANARY}",
    "a key named by a resolver": "${a.${oc.env:CANARY}}",
    "an unknown resolver": "${nothing:here}",
}
_GOOD = {
    "a key of its own": "steps: 3\nbatch_size: ${.steps}",
    "a key of the configuration": "steps: ${recipe.batch_size}\nbatch_size: 4",
    "a key above": "steps: ${..recipe.batch_size}\nbatch_size: 4",
}
_HYDRA = {
    "a strategy says where Hydra writes": ("strategy", "hydra: {run: {dir: ../elsewhere}}"),
    "a strategy says where a sweep is": ("strategy", "hydra: {sweep: {dir: /elsewhere/elsewhere}}"),
    "a strategy sets the environment": ("strategy", "hydra: {job: {env_set: {HF_ENDPOINT: 'http://x'}}}"),
    "a strategy copies the environment": ("strategy", "hydra: {job: {env_copy: [HF_TOKEN]}}"),
    "a strategy changes the folder": ("strategy", "hydra: {job: {chdir: true}}"),
    "a strategy keeps Hydra's own files": ("strategy", "hydra: {output_subdir: .hydra}"),
    "a strategy adds a folder to read": ("strategy", "hydra: {searchpath: ['file:///etc']}"),
    "a strategy changes the mode": ("strategy", "hydra: {mode: MULTIRUN}"),
    "a strategy is verbose": ("strategy", "hydra: {verbose: true}"),
    "a strategy has launcher keys": ("strategy", "hydra: {launcher: {n_jobs: 100}}"),
    "a strategy has Hydra as a text": ("strategy", "hydra: x"),
    "a strategy has Hydra as nothing": ("strategy", "hydra: null"),
    "a recipe is of Hydra's package": ("recipe", "# @package hydra\nrun: {dir: x}"),
    "a recipe is of a package in Hydra": ("recipe", "# @package hydra.job\nchdir: true"),
    "a recipe is of a global package in Hydra": ("recipe", "# @package _global_.hydra.job\nchdir: true"),
    "a sweep names a search function": ("sweep", "hydra: {sweeper: {custom_search_space: os.system}}"),
    "a sweep stores elsewhere": ("sweep", "hydra: {sweeper: {storage: 'sqlite:////elsewhere/x.db'}}"),
    "a sweep over Hydra's keys": ("sweep", "hydra: {sweeper: {params: {hydra.job.chdir: 'true,false'}}}"),
    "a sweep adds callbacks": ("sweep", "hydra: {sweeper: {params: {+hydra.callbacks.x._target_: os.system}}}"),
    "a sweep over the environment": ("sweep", "hydra: {sweeper: {params: {recipe.lr: '${oc.env:CANARY}'}}}"),
    "a sweep over pieces": ("sweep", "hydra: {sweeper: {params: {recipe.lr: '$,{oc.env:CANARY}'}}}"),
    "a sweep's run folder": ("sweep", "hydra: {sweeper: {params: {seed: '0,1'}}, run: {dir: x}}"),
    "a sweep writes above": ("sweep", "outputs: ../elsewhere"),
    "a strategy writes to an absolute folder": ("strategy", "outputs: /elsewhere/elsewhere"),
    "a strategy writes to a home": ("strategy", "outputs: ~/elsewhere"),
    "a strategy is called above": ("strategy", "name: ../elsewhere"),
    "a strategy works on a run elsewhere": ("strategy", "run: /elsewhere/elsewhere"),
    "a strategy trusts code": ("strategy", "model: {trust_remote_code: true}"),
}
_DEFAULTS = {
    "to Hydra's launcher": ("recipe", "  - override /hydra/launcher: joblib"),
    "to a launcher": ("strategy", "  - override /launcher: submitit"),
    "to callbacks": ("recipe", "  - /hydra/callbacks: x"),
    "to logging": ("sweep", "  - override /hydra/job_logging: default"),
    "to a file above": ("recipe", "  - ../../secret"),
    "to an absolute file": ("recipe", "  - //etc/passwd"),
    "to an option above": ("strategy", "  - override /recipe: ../../secret"),
    "to an unknown group": ("recipe", "  - /elsewhere: x"),
    "to a package in Hydra": ("recipe", "  - /recipe/lora@hydra.callbacks.x"),
    "to a global package in Hydra": ("recipe", "  - /recipe/lora@_global_.hydra.callbacks.x"),
    "by the environment": ("recipe", "  - ${oc.env:CANARY}"),
    "by an option of the environment": ("strategy", "  - override /recipe: ${oc.env:CANARY}"),
    "that is a mapping": ("recipe", "  a: b"),
    "that holds a number": ("recipe", "  - 3"),
    "by an address": ("recipe", "  - file:///etc/passwd"),
}
_TYPED = {
    "a token as a name": ("name=${oc.env:HF_TOKEN}",),
    "a token in a name": ("name=x-${oc.env:HF_TOKEN}-y",),
    "a token with a default": ("name=${oc.env:HF_TOKEN,x}",),
    "a token as a number": ("recipe.lr=${oc.env:HF_TOKEN}",),
    "a token as a model": ("model.path=${oc.env:HF_TOKEN}",),
    "a token as outputs": ("outputs=${oc.env:HF_TOKEN}",),
    "a token for jobs": ("+hydra.job.env_set.A=${oc.env:HF_TOKEN}",),
    "a token copied to jobs": ("hydra.job.env_copy=[HF_TOKEN]",),
    "a token in a stage": ("data.stages=[{set: fashion_naming, recipe: {lr: '${oc.env:HF_TOKEN}'}}]",),
    "a token's own value": ("name=canary-of-the-environment-4711",),
    "another variable of that value": ("name=${oc.env:CANARY}",),
    "a list of a token": ("manifests=['${oc.env:HF_TOKEN}']",),
    "a variable that is not there": ("name=${oc.env:NOT_THERE_4711}",),
    "a password": ("name=${oc.env:DB_PASSWORD}",),
    "an access key": ("name=${oc.env:AWS_SECRET_ACCESS_KEY}",),
    "an API key": ("strategy=null", "model.system_prompt=${oc.env:WANDB_API_KEY}"),
    "a key that is not there": ("name=${nothing}",),
}
_CLUSTER = {"SCRATCH": "scratch", "SLURM_JOB_ID": "17", "TOKENIZERS_PARALLELISM": "false"}
_TYPED_WELL = {
    "the scratch folder": ("outputs=${oc.env:SCRATCH}",),
    "the job's number": ("name=job-${oc.env:SLURM_JOB_ID}",),
    "a default": ("name=${oc.env:NOT_THERE_4711,plain}",),
    "Hydra's choice": ("name=${hydra:runtime.choices.recipe}",),
    "a key of the recipe": ("name=b${recipe.batch_size}",),
    "a variable with token in its name": ("name=${oc.env:TOKENIZERS_PARALLELISM}",),
    "Hydra's own logging": ("hydra/job_logging=default",),
    "Hydra's own callback": ("+hydra.callbacks.x._target_=hydra.experimental.callbacks.LogJobReturnCallback",),
    "a variable for jobs": ("+hydra.job.env_set.A=${oc.env:SCRATCH}",),
    "an escaped reference": ("name='\\${oc.env:HF_TOKEN}'",),
}
_SWEPT = {
    "tokens": ("seed=0,1", "name=${oc.env:HF_TOKEN}"),
    "keys of Hydra": ("+hydra.callbacks.x._target_=os.system,os.popen", "name=x"),
}
_SHOWN_ODD = ("finetune", _HERE, "data='\\${oc.env:CANARY}'")
_ELSEWHERE = ("finetune", _HERE, "hydra.searchpath=[file://far,file://conf]", "recipe=near")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\")


def _manifest(name: str, title: str, prompt: str) -> Case:
    def make(place: Place) -> None:
        place.write("data_manifests/data/rows.jsonl", _ITEM)
        place.write("data_manifests/evil.yaml", _MANIFEST.format(title=f'"{_quoted(title)}"', prompt=prompt))

    return Case(name, ("data", "show", "evil"), make, says=("evil.yaml",))


def _conf(name: str, group: str, text: str, header: str = "", ends: Ends = Ends.refused) -> Case:
    command = ("sweep" if group == "sweep" else "finetune", _HERE, f"{group}=evil")

    def make(place: Place) -> None:
        place.write("secret.yaml", "lr: 0.00471\n")
        place.write(f"conf/{group}/evil.yaml", f"{header}{text}\n")

    return Case(name, command, make, ends, says=() if ends is Ends.works else ("evil",))


def _nothing(_: Place) -> None:
    """No file is needed."""


def _odd_manifest(place: Place) -> None:
    place.write("data_manifests/data/rows.jsonl", _ITEM)
    place.write("data_manifests/${oc.env:CANARY}.yaml", _MANIFEST.format(title="x", prompt="{question} {options}"))


def _elsewhere(place: Place) -> None:
    place.write("conf/recipe/near.yaml", "defaults: [evil, _self_]\n")
    place.write("far/recipe/evil.yaml", "precision: ${oc.env:CANARY}\n")


def _far(place: Place) -> None:
    place.write("far/data/rows.jsonl", _ITEM)
    place.write("far/evil.yaml", _MANIFEST.format(title="${oc.env:CANARY}", prompt="{question} {options}"))
