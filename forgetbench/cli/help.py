"""What `--help` shows below the options: examples, keys and what they mean, config groups with their options."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from forgetbench.cli.keys import Key, keys
from forgetbench.core.dataset_groups import DatasetGroup, manifest_groups, sequence_groups
from forgetbench.core.options import GROUPS, options

MIN_WIDTH, WIDTH = 80, 100
"""Columns: as many as the terminal has, within these."""

EXAMPLES = {
    "finetune": """
        forgetbench finetune
        forgetbench finetune recipe=lora method.rank=16 model=local model.path=my_checkpoint data=my_set
        forgetbench finetune recipe.parts=[language,projector] recipe.lr='{language: 1e-5, projector: 1e-4}'
        forgetbench finetune data=five_tasks_a strategy=ewc
        forgetbench finetune guard.max_loss=5 guard.datasets=[digits_naming,fashion_knowledge]
        forgetbench finetune method=wise_ft method.alphas=[0.25,0.5,0.75] run=outputs/my_run
    """,
    "eval-matrix": """
        forgetbench eval-matrix run=outputs/fashion_naming-full_low_lr-seed0
        forgetbench eval-matrix run=outputs/my_run matrix=quick matrix.limit=50
        forgetbench eval-matrix run=outputs/my_run matrix.decodings=[choice] matrix.steps=[100]
        forgetbench eval-matrix run=outputs/my_run matrix.class_probe=[fashion_knowledge,emoji_use]
        forgetbench eval-matrix run=outputs/my_run matrix=last matrix.representation.images=256
        torchrun --nproc_per_node 4 -m forgetbench eval-matrix run=outputs/my_run
    """,
    "score": """
        forgetbench score run=outputs/my_run
        forgetbench score run=outputs/my_run lm_eval=true
        forgetbench score run=outputs/my_run matrix.decodings=[choice] --partial
        forgetbench score predictions=from_vllm name=from_vllm data=fashion_naming model_name=my_7b
    """,
    "sweep": """
        forgetbench sweep
        forgetbench sweep sweep=lr_x_parts
        forgetbench sweep method=plain,l2sp,spider,wise_ft matrix=quick
        forgetbench sweep data=five_tasks_a strategy=seq_full,replay,ewc matrix=continual
        forgetbench sweep sweep=mix_ratio launcher=joblib hydra.launcher.n_jobs=4
        forgetbench sweep sweep=search search.steps=2400
    """,
    "show": """
        forgetbench show outputs/my_run
        forgetbench show outputs/demo
        forgetbench show outputs/demo | cut -f 1,4,10,11
        forgetbench show outputs/demo --json > demo.json
    """,
    "compare": """
        forgetbench compare outputs/my_run
        forgetbench compare outputs/my_run/checkpoints/step_000120 outputs/my_run
        forgetbench compare outputs/demo/recipe-lora outputs/demo/recipe-full_low_lr --margin 1
        forgetbench compare 'outputs/findings/recipe-lora--*' 'outputs/findings/recipe-hybrid--*' --json
    """,
    "report": """
        forgetbench report outputs/demo
        forgetbench report outputs/my_run --open
        forgetbench report outputs/my_sweep --watch
    """,
    "doctor": """
        forgetbench doctor
        forgetbench doctor --json
        forgetbench doctor > machine.txt
    """,
    "power": """
        forgetbench power outputs/my_run
        forgetbench power outputs/my_run --points 0.5 --points 1 --power 0.9
        forgetbench power outputs/demo --points 2 --alpha 0.01 --json
    """,
    "data list": """
        forgetbench data list
        forgetbench data list mine
        forgetbench data list public ocr
        forgetbench data list 'fashion_*' --all
        forgetbench data list manifests=[my_manifests]
    """,
    "data show": """
        forgetbench data show fashion_naming
        forgetbench data show fashion_naming emoji_use
        forgetbench data show fashion_naming model=tiny
        forgetbench data show my_set manifests=[my_manifests]
    """,
    "data check": """
        forgetbench data check
        forgetbench data check textvqa gqa --remote
        forgetbench data check my_set
        forgetbench data check my_set manifests=[my_manifests]
    """,
    "data audit": """
        forgetbench data audit
        forgetbench data audit my_set fashion_naming
        forgetbench data audit my_set manifests=[my_manifests] --json
    """,
    "data build": """
        forgetbench data build imagenet_vqa --images path/to/ILSVRC2012
        forgetbench data build flowers102_vqa --clip openai/clip-vit-base-patch32
        forgetbench data build stanford_cars_vqa --limit 500 --batch-size 16
        forgetbench data build caltech101_vqa
        forgetbench data build imagenetv2_vqa
    """,
    "models show": """
        forgetbench models show
        forgetbench models show tiny smolvlm_256m
        forgetbench models show model=local model.path=my_checkpoint
    """,
    "models plan": """
        forgetbench models plan
        forgetbench models plan llava_1_5_7b recipe=lora
        forgetbench models plan qwen2_5_vl_7b recipe.gradient_checkpointing=true model.dtype=bf16
    """,
    "export": """
        forgetbench export outputs/my_run my_model
        forgetbench export outputs/my_run/checkpoints/step_000120 my_model
        forgetbench export outputs/my_lora my_adapter --adapter
    """,
    "import": """
        forgetbench import saves/qwen2_vl/full/sft model=local model.path=my_checkpoint data=my_set name=from_trainer
        forgetbench import saves/qwen2_vl/lora/sft model=local model.path=my_checkpoint data=my_set name=from_factory
        forgetbench import trl_output/checkpoint-500 model=local model.path=my_checkpoint data=my_set name=from_trl
    """,
}


@dataclass(frozen=True)
class Listing:
    """Which keys the help of a command lists."""

    config: str
    """Class of its configuration."""
    common: tuple[str, ...]
    """Keys that come first."""
    all_keys: bool = True
    """Whether the other keys follow; false for commands that read only a few."""


_PLACES = ("outputs", "manifests")
_TRAINING = (
    "name",
    "seed",
    *_PLACES,
    "data.stages",
    "data.training",
    "recipe.lr",
    "recipe.parts",
    "recipe.mix.data",
    "recipe.mix.ratio",
    "recipe.steps",
    "recipe.batch_size",
    "recipe.schedule",
    "guard.max_loss",
    "guard.datasets",
    "guard.items",
    "recipe.checkpoints.every",
    "recipe.checkpoints.log_spaced",
    "model.path",
    "method",
)
_SCORING = ("matrix.datasets", "matrix.limit", "matrix.decodings", "matrix.steps")
LISTINGS = {
    "finetune": Listing("FinetuneConfig", (*_TRAINING, "run")),
    "eval-matrix": Listing("EvalMatrixConfig", ("run", "name", *_PLACES, *_SCORING)),
    "score": Listing("ScoreConfig", ("run", "predictions", "name", "model_name", *_PLACES, *_SCORING)),
    "sweep": Listing("SweepConfig", (*_TRAINING, *_SCORING)),
    "data list": Listing("FinetuneConfig", ("manifests", "data.stages"), all_keys=False),
    "data show": Listing(
        "FinetuneConfig", ("manifests", "data.stages", "model.path", "model.system_prompt"), all_keys=False
    ),
    "data check": Listing("FinetuneConfig", ("manifests",), all_keys=False),
    "data audit": Listing("FinetuneConfig", _PLACES, all_keys=False),
    "models show": Listing("FinetuneConfig", ("model.path", "model.revision"), all_keys=False),
    "models plan": Listing(
        "FinetuneConfig",
        (
            "sharding",
            "model.path",
            "model.dtype",
            "model.quantisation",
            "recipe.parts",
            "recipe.batch_size",
            "recipe.gradient_accumulation",
            "recipe.optimiser",
            "recipe.gradient_checkpointing",
            "method",
        ),
        all_keys=False,
    ),
    "import": Listing("FinetuneConfig", ("name", *_PLACES, "model.path", "data.stages"), all_keys=False),
}
KEY_COLUMN = 25
"""A longer key has a line to itself."""
COMMAND_GROUPS = {
    **GROUPS,
    "eval-matrix": GROUPS["eval_matrix"],
    "models show": ("model",),
    "data show": ("model", "data"),
    "models plan": ("model", "recipe", "method"),
    "import": ("model", "data"),
    **dict.fromkeys(("show", "compare", "power", "report", "export", "data build", "doctor"), ()),
}


_GUIDES = {
    "method": "docs/methods.md",
    "strategy": "docs/continual.md",
    "launcher": "where points run; docs/clusters.md",
}


def epilog(command: str) -> str:
    """Examples, keys and config groups of a command, ready to print."""
    lines = ["Examples:", textwrap.indent(textwrap.dedent(EXAMPLES[command]).strip(), "  ")]
    groups = COMMAND_GROUPS.get(command, ("data",))
    if groups:  # commands without groups compose no configuration
        width = min(WIDTH, max(MIN_WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))
        lines += [*_key_lines(LISTINGS[command], width), *_group_lines(groups, width)]
    return "\n".join(lines) + "\n"


def _key_lines(listing: Listing, width: int) -> Iterator[str]:
    """The common keys, group by group, then the others."""
    config_keys = keys(listing.config)
    common = [key for key in config_keys if key.path in listing.common]
    yield from (
        "",
        "Keys (<key>=<value>):" if listing.all_keys else "Keys that matter here (--cfg prints all of them):",
    )
    yield from _blocks(common, width)
    if listing.all_keys:
        yield from ("", "More keys:")
        yield from _blocks([key for key in config_keys if key not in common], width)


def _blocks(listed_keys: Sequence[Key], width: int) -> Iterator[str]:
    for group in dict.fromkeys(key.group for key in listed_keys):
        yield f"  {group}"
        for key in listed_keys:
            if key.group == group:
                yield from _entry(key, width)


def _entry(key: Key, width: int) -> Iterator[str]:
    """A key and its meaning, in two columns."""
    margin = " " * (4 + KEY_COLUMN + 2)
    if len(key.path) > KEY_COLUMN:
        yield f"    {key.path}"
        yield from _filled(margin, key.meaning, width, margin)
    else:
        yield from _filled(f"    {key.path:<{KEY_COLUMN}}  ", key.meaning, width, margin)


def _group_lines(groups: Sequence[str], width: int) -> Iterator[str]:
    """Every config group with its options."""
    yield ""
    yield from _filled(
        "Config groups ", "(<group>=<option>; a file conf/<group>/<option>.yaml of yours is one, too):", width
    )
    for group in groups:
        if group == "data":
            yield from _dataset_lines(width)
        else:
            guide = f" ({_GUIDES[group]})" if group in _GUIDES else ""
            yield from _filled(f"  {group}{guide}: ", ", ".join(options(group)), width, "    ")


def _dataset_lines(width: int) -> Iterator[str]:
    """The options of `data` by group, without those that `data list` leaves out."""
    manifests = manifest_groups()
    sequences = sequence_groups(manifests)
    by_section = {"sequences": sorted(name for name, group in sequences.items() if group is None)} | {
        section.value: sorted(name for name, group in manifests.items() if group is section and name not in sequences)
        for section in DatasetGroup
        if not section.by_role
    }
    left_out = sum(group.by_role for group in manifests.values())
    yield "  data:"
    for title in ("yours", "embedded", "sequences", "public"):
        names = ", ".join(by_section[title]) or "none; a manifest data_manifests/<name>.yaml of yours is data=<name>"
        yield from _filled(f"    {title}: ", names, width, "      ")
    yield f"    {left_out} more (curricula, controls, validation): `forgetbench data list --all`"


def _filled(head: str, text: str, width: int, margin: str = "") -> list[str]:
    return textwrap.wrap(
        head + text, width, subsequent_indent=margin, break_on_hyphens=False, break_long_words=False
    ) or [head]
