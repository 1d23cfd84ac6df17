"""lmms-eval as a baseline: the embedded model as a checkpoint folder, its sets as lmms-eval tasks, and the command.

The environment variable FORGETBENCH_LMMS_PYTHON names an interpreter that has lmms-eval 0.7.3 with decord, which its
`llava_hf` imports without requiring it; FORGETBENCH_LMMS_VLLM_PYTHON one that has vLLM beside it (and filelock below
3.21, as 0.7.3 imports what later ones have moved). forgetbench's own environment needs none of this.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.baselines.export import eval_samples, export_checkpoint, export_items

__all__ = ["command", "environment", "export_checkpoint", "export_tasks", "interpreter", "task_name"]

VARIABLE, WITH_VLLM = "FORGETBENCH_LMMS_PYTHON", "FORGETBENCH_LMMS_VLLM_PYTHON"
MAX_NEW_TOKENS = 4
PATCHED = Path(__file__).with_name("lmms_patched.py")
MODEL_ARGS = {
    "llava_hf": "device=cpu,device_map=cpu,dtype=float32,attn_implementation=eager",
    "huggingface": "device=cpu,device_map=cpu,attn_implementation=eager",
    "vllm": "dtype=float32,enforce_eager=True,max_model_len=512,max_num_seqs=64",
}
UTILS = '''\
"""How lmms-eval reads an item and scores an answer: right if it is the letter, with or without a full stop."""


def doc_to_visual(doc):
    return [doc["image"].convert("RGB")]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["prompt"]


def process_results(doc, results):
    return {"accuracy": float(results[0].strip().rstrip(".") == doc["answer"])}
'''


def interpreter(variable: str = VARIABLE) -> Path | None:
    """The interpreter to run lmms-eval with; None where there is none."""
    named = os.environ.get(variable)
    return Path(named) if named else None


def task_name(name: str) -> str:
    """A dataset's task, under a name that none of lmms-eval's own tasks has."""
    return f"forgetbench_{name}"


def export_tasks(names: Sequence[str], n_items: int, folder: Path) -> None:
    """Write lettered sets of one picture an item as tasks for `--include_path`, their items as Parquet files.

    Args:
        names: datasets that are answered by a letter.
        n_items: evaluation items of each.
        folder: made anew.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        path = folder.resolve() / "items" / f"{name}.parquet"
        export_items(eval_samples(name, n_items), path)
        # `!function` is no YAML that a safe dumper writes; lmms-eval resolves it beside the task's file.
        functions = "".join(
            f"{function}: !function utils.{function}\n" for function in ("doc_to_visual", "doc_to_text")
        )
        functions += "process_results: !function utils.process_results\n"
        (folder / f"{task_name(name)}.yaml").write_text(yaml.safe_dump(_task(name, path)) + functions, "utf-8")
    (folder / "utils.py").write_text(UTILS, "utf-8")


def _task(name: str, items: Path) -> dict[str, object]:
    return {
        "task": task_name(name),
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(items)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_target": "answer",
        "generation_kwargs": {"max_new_tokens": MAX_NEW_TOKENS, "temperature": 0, "do_sample": False},
        "metric_list": [{"metric": "accuracy", "aggregation": "mean", "higher_is_better": True}],
    }


def command(
    python: Path,
    checkpoint: Path,
    tasks: Path,
    names: Sequence[str],
    model: str = "llava_hf",
    batch_size: int = 1,
    output: Path | None = None,
    max_new_tokens: int | None = None,
) -> list[str]:
    """The whole process, to be run with `environment(tasks)`.

    It ends with 0 even when the evaluation failed: whether it worked is told by the files under `output`.

    Args:
        python: an interpreter that has lmms-eval.
        checkpoint: a folder of `export_checkpoint`.
        tasks: a folder of `export_tasks`.
        names: the datasets to run, among those exported.
        model: `llava_hf` (batches of 1 only) or `vllm` as it is, or the generic `huggingface`, patched.
        batch_size: items a batch.
        output: where to write samples and results; by default nothing is written.
        max_new_tokens: for `vllm`, which takes its own default where a task says less.
    """
    where = "model" if model == "vllm" else "pretrained"
    more = "" if max_new_tokens is None else f",max_new_tokens={max_new_tokens}"
    words = [
        # -P: beside the script lies this module, under the package's name.
        *(str(python), *(["-P", str(PATCHED)] if model == "huggingface" else ["-m", "lmms_eval"])),
        *("--model", model),
        *("--model_args", f"{where}={checkpoint},{MODEL_ARGS[model]}{more}"),
        *("--tasks", ",".join(map(task_name, names))),
        *("--include_path", str(tasks)),
        *("--batch_size", str(batch_size)),
    ]
    return words if output is None else [*words, "--log_samples", "--output_path", str(output)]


def environment(tasks: Path) -> dict[str, str]:
    """This process's variables, without network, and with lmms-eval's caches beside its tasks."""
    cache = tasks.resolve() / "cache"
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **offline, "HF_HOME": str(cache), "HF_DATASETS_CACHE": str(cache / "datasets")}
