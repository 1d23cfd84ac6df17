"""What `--help` shows below the options: examples, the keys that matter, and every config group with its options."""

from __future__ import annotations

import textwrap

from forgetbench.core.options import GROUPS, options

WIDTH = 100

EXAMPLES = {
    "finetune": """
        forgetbench finetune
        forgetbench finetune recipe=lora method.rank=16 model=local model.path=my_checkpoint data=my_set
        forgetbench finetune recipe.parts=[language,projector] recipe.lr='{language: 1e-5, projector: 1e-4}'
        forgetbench finetune data=five_tasks_a strategy=ewc
        forgetbench finetune method=wise_ft method.alphas=[0.25,0.5,0.75] run=outputs/my_run
    """,
    "eval-matrix": """
        forgetbench eval-matrix run=outputs/fashion_naming-full_low_lr-seed0
        forgetbench eval-matrix run=outputs/my_run matrix=quick matrix.limit=50
        forgetbench eval-matrix run=outputs/my_run matrix.decodings=[choice] matrix.steps=[100]
        forgetbench eval-matrix run=outputs/my_run matrix.class_probe=[fashion_knowledge,emoji_use]
        forgetbench eval-matrix run=outputs/my_run matrix.representation.images=256
        torchrun --nproc_per_node 4 -m forgetbench eval-matrix run=outputs/my_run
    """,
    "score": """
        forgetbench score run=outputs/my_run
        forgetbench score run=outputs/my_run lm_eval=true
        forgetbench score predictions=from_vllm name=from_vllm data=fashion_naming model_name=my_7b
    """,
    "sweep": """
        forgetbench sweep
        forgetbench sweep sweep=lr_x_parts
        forgetbench sweep method=plain,l2sp,spider,wise_ft matrix=quick
        forgetbench sweep data=five_tasks_a strategy=seq_full,replay,ewc matrix=continual
        forgetbench sweep sweep=mix_ratio launcher=joblib hydra.launcher.n_jobs=4
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
    "power": """
        forgetbench power outputs/my_run
        forgetbench power outputs/my_run --points 0.5 --points 1 --power 0.9
        forgetbench power outputs/demo --points 2 --alpha 0.01 --json
    """,
    "data list": """
        forgetbench data list
        forgetbench data list manifests=[my_manifests]
        forgetbench data list manifests=[my_manifests,more_manifests]
    """,
    "data show": """
        forgetbench data show fashion_naming
        forgetbench data show fashion_naming emoji_use
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

TRAINING_KEYS = {
    "name": "the folder under outputs/ (default: from data, recipe, seed and other overrides)",
    "seed, threads": "same seed and CPU threads, same bytes",
    "data.stages": "[{set: <name>, steps: <n>, recipe: {lr: 1e-5}}, ...]: target sets in order (docs/continual.md)",
    "data.training": "sequence, joint (all stages at once) or none (zero-shot)",
    "recipe.lr": "peak learning rate: a number, or one per part",
    "recipe.parts": "trained parts: vision, projector, language",
    "recipe.language_last_layers": "train only the last k layers of `language`",
    "recipe.mix.data, .ratio": "auxiliary sets, and their share of the instances",
    "recipe.replay.earlier, .samples": "earlier tasks, and how many items of each to repeat",
    "recipe.steps, .batch_size": "optimiser steps, instances a step",
    "recipe.checkpoints": "every=<n>, steps=[...] or log_spaced=<n>",
    "method": "name and its own keys, such as method.rank (docs/methods.md says what each does)",
    "model.dtype, .quantisation": "how frozen weights are held: fp32 or bf16; nf4 for adapters (docs/models.md)",
    "sharding": "of several processes: none (each holds the model) or fsdp2 (each holds a slice)",
    "tracker": "tensorboard, trackio, wandb or mlflow, beside train.csv",
    "outputs, manifests": "folder to write to, folders with your own manifests",
}
SCORING_KEYS = {
    "matrix.datasets, .limit": "sets to score, and how many items of each",
    "matrix.decodings": "choice (likelihood of the options), greedy, sample",
    "matrix.class_probe": "sets to score once more with the class name among the wrong options",
    "matrix.representation": "enabled=false, images=<n>, layers=[...]: what representation.csv holds",
}
KEYS = {
    "finetune": TRAINING_KEYS
    | {"run": "a trained run, for methods after training (wise_ft, dare, ties, grafting, model_tailor)"},
    "eval-matrix": {
        "run": "a run's folder; model and target are read from it (default: the base model)",
        "matrix.steps": "score these checkpoints only",
        **SCORING_KEYS,
        "outputs, manifests": TRAINING_KEYS["outputs, manifests"],
    },
    "score": {
        "run": "a run's folder, whose stored predictions are scored again",
        "predictions": "a folder of predictions made elsewhere: base/, step_000100/, ..., in each a file per dataset",
        "name, model_name": "with predictions: the folder under outputs/, and what the tables call the model",
        "lm_eval": "true: also write lm-evaluation-harness's results JSON",
        **SCORING_KEYS,
        "outputs, manifests": TRAINING_KEYS["outputs, manifests"],
    },
    "sweep": TRAINING_KEYS
    | SCORING_KEYS
    | {"launcher": "where points run: one after the other here, or by joblib, Slurm or Ray (docs/clusters.md)"},
    "data list": {"manifests": "folders with your own manifests (default: [data_manifests])"},
    "data show": {"manifests": "folders with your own manifests (default: [data_manifests])"},
    "data check": {"manifests": "folders with your own manifests (default: [data_manifests])"},
    "data audit": {
        "manifests": "folders with your own manifests (default: [data_manifests])",
        "outputs": "pairs and contact sheet go to <outputs>/audit",
    },
    "models show": {
        "model.path": "hub id or folder",
        "model.revision": "branch, tag or commit of the hub",
    },
    "models plan": {
        "model.dtype, .quantisation": "how frozen weights are held: fp32 or bf16; nf4 for adapters",
        "recipe.batch_size, .gradient_accumulation": "their quotient is the micro-batch",
        "recipe.gradient_checkpointing, .optimiser": "activations computed again; adamw or adamw_8bit",
        "sharding": "none or fsdp2",
    },
    "import": {
        "name": "the folder under outputs/",
        "model": "the model that training started from",
        "data": "the set that it was trained on: quadrants are relative to it",
    },
}
COMMAND_GROUPS = {
    **GROUPS,
    "eval-matrix": GROUPS["eval_matrix"],
    "models show": ("model",),
    "models plan": ("model", "recipe", "method"),
    "import": ("model", "data"),
    **dict.fromkeys(("show", "compare", "power", "report", "export", "data build"), ()),
}


def epilog(command: str) -> str:
    """Examples, keys and config groups of a command, ready to print."""
    lines = ["Examples:", textwrap.indent(textwrap.dedent(EXAMPLES[command]).strip(), "  ")]
    if not COMMAND_GROUPS.get(command, ("data",)):  # it composes no configuration
        return "\n".join(lines) + "\n"
    keys = KEYS[command]
    width = max(map(len, keys))
    lines += ["", "Keys:"]
    lines += [f"  {key:<{width}}  {meaning}" for key, meaning in keys.items()]
    groups = COMMAND_GROUPS.get(command, ("data",))
    lines += [
        "",
        "Config groups (<group>=<option>; a file conf/<group>/<option>.yaml of yours is an option too):",
    ]
    for group in groups:
        head = f"  {group}: "
        lines.append(textwrap.fill(head + ", ".join(options(group)), WIDTH, subsequent_indent=" " * len(head)))
    if "data" in groups:
        lines.append("  A manifest data_manifests/<name>.yaml of yours is the option data=<name>.")
    return "\n".join(lines) + "\n"
