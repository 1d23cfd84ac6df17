"""Speed and memory of scoring, as ratios against named baselines in one run on one machine.

    python -m benchmarks.evaluation [--write docs/results/evaluation_speed.md]

Whole processes: checkpoints of one run over four lettered datasets, ours against a process per checkpoint that makes a
forward pass per option, against lmms-eval and LLaMA-Factory (where FORGETBENCH_LMMS_PYTHON names an interpreter and
FORGETBENCH_LLAMAFACTORY a `llamafactory-cli`) and against bare forward passes.
The loop alone: our engine against forward passes of batches that were collated beforehand.

What breaks a baseline: lmms-eval 0.7.3 fails with filelock above 3.20, and its `llava_hf` needs decord, which it does
not ask for. A baseline that fails is left out with its own error.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.baselines import llamafactory, lmms_eval
from benchmarks.baselines.export import eval_samples, export_checkpoint, export_items
from benchmarks.engine_loop import loop_rows, tower_row

Cost: TypeAlias = tuple[float, float, float]
"""Seconds, CPU seconds and peak memory in MiB."""
NAMES = ("fashion_naming", "fashion_knowledge", "digits_questions", "emoji_category")
CHECKPOINTS, MANY = 5, 20
NAIVE = Path(__file__).with_name("baselines") / "naive.py"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Measured:
    """One way to score all checkpoints."""

    name: str
    rounds: Sequence[float]
    """Seconds of each."""
    cpu: Sequence[float]
    """CPU seconds of each: other work on the machine moves them less."""
    peak_mb: float
    """The largest of its processes."""
    items: int

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(self.rounds)

    @property
    def span(self) -> str:
        """Seconds, with the range where there were several rounds."""
        ends = f" ({min(self.rounds):.1f} to {max(self.rounds):.1f})" if len(self.rounds) > 1 else ""
        return f"{self.seconds:.1f}{ends}"


class FailedError(Exception):
    """A process of a baseline ended with an error; its last words."""


def _beginning(command: Sequence[str]) -> str:
    """The first words of a command, its program without the folder, which says nothing on another machine."""
    return " ".join([Path(command[0]).name, *map(str, command[1:5])])


def main() -> None:
    """Measure everything and print the table; the ratios, named, are the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100, help="items of each dataset")
    parser.add_argument("--rounds", type=int, default=2, help="of our own processes; the median counts")
    parser.add_argument("--write", type=Path, help="write the table, as Markdown, to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        operation_context = OperationContext(Path(scratch), given.items, given.rounds)
        measured = operation_context.processes()
        lines, ratios = table(measured)
        lines += operation_context.failures
    for row in (*loop_rows(NAMES, given.items), tower_row()):
        lines.append(row.line)
        ratios |= row.ratios
    text = "\n".join(lines)
    last = "ratios: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    print(f"{text}\n{last}")
    if given.write:
        command = f"python -m benchmarks.evaluation --items {given.items} --rounds {given.rounds} --write {given.write}"
        named = [f"{name}=... " for name in (lmms_eval.VARIABLE, llamafactory.VARIABLE) if name in os.environ]
        given.write.write_text(f"# Speed of scoring\n\n    {''.join(named)}{command}\n\n{text}\n\n{last}\n", "utf-8")


class OperationContext:
    """The checkpoints and items that every way scores."""

    def __init__(self, scratch: Path, n_items: int, rounds: int) -> None:
        """Train two short runs and export the first one's checkpoints for the others."""
        self.scratch, self.n_items, self.rounds = scratch, n_items, rounds
        self.failures: list[str] = []
        self.said = ""
        """The error of the last process, or the last line that it wrote."""
        self.items = [scratch / "items" / f"{name}.parquet" for name in NAMES]
        for name, path in zip(NAMES, self.items, strict=True):
            export_items(eval_samples(name, n_items), path)
        for name, checkpoints in (("few", CHECKPOINTS), ("many", MANY)):
            train = ["finetune", f"name={name}", f"recipe.steps={checkpoints - 1}", "recipe.checkpoints.every=1"]
            self.ours([*train, "recipe.checkpoints.log_spaced=null", "recipe.batch_size=8", "threads=1"])
        self.folders = self.export()

    def export(self) -> list[Path]:
        """The base and every checkpoint of the shorter run as folders that transformers loads."""
        from forgetbench.config import ModelConfig
        from forgetbench.evaluation.swap import WeightSwap
        from forgetbench.models.checkpoint import list_checkpoints
        from forgetbench.models.load import load_model

        loaded = load_model(ModelConfig(path="embedded:tiny", attention="eager"))
        swap, folders = WeightSwap(loaded.model), []
        for checkpoint in list_checkpoints(self.scratch / "outputs" / "few"):
            swap.to(checkpoint.delta())
            folders.append(self.scratch / "exported" / checkpoint.name)
            export_checkpoint(loaded, folders[-1])
        return folders

    def ours(self, arguments: Sequence[str]) -> Cost:
        """One command of ours."""
        return self.run([sys.executable, "-m", "forgetbench", *arguments], ENVIRONMENT)

    def run(self, command: Sequence[str], environment: dict[str, str]) -> Cost:
        """What a process takes."""
        started = time.perf_counter()
        path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), environment.get("PYTHONPATH"))))
        process = subprocess.Popen(
            command, cwd=self.scratch, env={**environment, "PYTHONPATH": path}, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        errors = process.stderr.read().decode("utf-8", "replace")
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        self.said = ([line for line in lines if "Error" in line] or lines or [""])[-1]
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise FailedError(f"{_beginning(command)} ...: {self.said}")
        return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10

    def processes(self) -> list[Measured]:
        """Every way, as whole processes: ours and the bare one in interleaved rounds, the slow ones once."""
        ways = {
            "forgetbench, greedy": lambda: self.scored("few", "[greedy]"),
            "forgetbench, choice": lambda: self.scored("few", "[choice]"),
            "forgetbench, choice and greedy": lambda: self.scored("few", "[choice,greedy]"),
            "forgetbench, greedy, bf16": lambda: self.scored("few", "[greedy]", "matrix.precision=bf16"),
            "forgetbench, again, all cells there": lambda: self.scored(
                "few", "[greedy]", "matrix.precision=bf16", fresh=False
            ),
            "bare forward passes, fp32": lambda: self.bare(CHECKPOINTS),
            "bare forward passes, bf16": lambda: self.bare(CHECKPOINTS, "--bf16"),
        }
        many = {
            f"forgetbench, greedy, {MANY} checkpoints": lambda: self.scored("many", "[greedy]"),
            f"bare forward passes, fp32, {MANY} times": lambda: self.bare(MANY),
        }
        slow = {"naive: a process per checkpoint, a pass per option": self.naive}
        python = lmms_eval.interpreter()
        if python is None:
            print(f"lmms-eval is left out: {lmms_eval.VARIABLE} names no interpreter that has it.")
        else:
            lmms_eval.export_tasks(NAMES, self.n_items, self.scratch / "tasks")
            with suppress(FailedError):  # its first run builds caches; an error comes again below
                self.lmms(python, "llava_hf", 1, self.folders[:1])
            slow["lmms-eval, llava_hf"] = lambda: self.lmms(python, "llava_hf", 1, self.folders)
            slow["lmms-eval, generic, batch 16, patched"] = lambda: self.lmms(python, "huggingface", 16, self.folders)
        cli = llamafactory.program()
        if cli is None:
            print(f"LLaMA-Factory is left out: {llamafactory.VARIABLE} names no llamafactory-cli.")
        else:
            llamafactory.export_datasets(NAMES, self.n_items, self.scratch / "conversations")
            slow[f"LLaMA-Factory, batch 16, one checkpoint times {CHECKPOINTS}"] = lambda: self.factory(cli)
        costs: dict[str, list[Cost]] = {name: [] for name in (*ways, *many, *slow)}
        for number in range(self.rounds):
            for name, way in (ways | many).items():
                costs[name].append(way())
            for name, way in ({} if number else slow).items():
                try:
                    costs[name].append(way())
                except FailedError as error:
                    self.failures.append(f"{name} failed, and is left out. {error}")
        return [
            Measured(
                name,
                [seconds for seconds, _, _ in rounds],
                [cpu for _, cpu, _ in rounds],
                max(peak for _, _, peak in rounds),
                (MANY if name in many else CHECKPOINTS) * len(NAMES) * self.n_items,
            )
            for name, rounds in costs.items()
            if rounds
        ]

    def scored(self, run: str, decodings: str, *more: str, fresh: bool = True) -> Cost:
        """Our command on one run, with nothing stored unless told."""
        if fresh:
            for stored in (".cells", ".cache"):
                shutil.rmtree(self.scratch / "outputs" / stored, ignore_errors=True)
        names = f"matrix.datasets=[{','.join(NAMES)}]"
        limit = f"matrix.limit={self.n_items}"
        return self.ours(
            ["eval-matrix", f"run=outputs/{run}", names, limit, f"matrix.decodings={decodings}", "threads=1", *more]
        )

    def naive(self) -> Cost:
        """A process per checkpoint."""
        return _total(
            [
                self.run([sys.executable, str(NAIVE), str(folder), *map(str, self.items)], ENVIRONMENT)
                for folder in self.folders
            ]
        )

    def bare(self, times: int, *more: str) -> Cost:
        """One process that passes the items through one checkpoint so many times."""
        command = [sys.executable, str(NAIVE), "--bare", str(times), *more, str(self.folders[0])]
        return self.run([*command, *map(str, self.items)], ENVIRONMENT)

    def lmms(self, python: Path, model: str, batch_size: int, folders: Sequence[Path]) -> Cost:
        """A process per checkpoint, as lmms-eval works."""
        tasks, output = self.scratch / "tasks", self.scratch / "samples"
        environment = {**lmms_eval.environment(tasks), "OMP_NUM_THREADS": "1"}
        rounds = []
        for folder in folders:
            shutil.rmtree(output, ignore_errors=True)
            command = lmms_eval.command(python, folder, tasks, NAMES, model, batch_size, output)
            rounds.append(self.run(command, environment))
            if len(list(output.rglob("*samples_*.jsonl"))) < len(NAMES):
                raise FailedError(f"{_beginning(command)} ... left no samples: {self.said}")
        return _total(rounds)

    def factory(self, cli: Path) -> Cost:
        """A process per checkpoint and dataset, measured on one checkpoint."""
        output, environment = self.scratch / "predicted", {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""}
        rounds = []
        for name in NAMES:
            shutil.rmtree(output, ignore_errors=True)
            command = llamafactory.command(cli, self.folders[0], self.scratch / "conversations", name, output)
            rounds.append(self.run(command, environment))
            if not (output / "generated_predictions.jsonl").is_file():
                raise FailedError(f"LLaMA-Factory left no predictions: {' '.join(map(str, command))}")
        seconds, cpu, peak = _total(rounds)
        return seconds * CHECKPOINTS, cpu * CHECKPOINTS, peak


def _total(rounds: Sequence[Cost]) -> Cost:
    seconds, cpu, peak = zip(*rounds, strict=True)
    return sum(seconds), sum(cpu), max(peak)


def table(measured: Sequence[Measured]) -> tuple[list[str], dict[str, float]]:
    """A Markdown table of whole processes, and the ratios that have a target."""
    by_name = {row.name: row for row in measured}
    ours = by_name["forgetbench, greedy"]
    lines = [
        f"Whole processes, {CHECKPOINTS} checkpoints unless said otherwise, one thread:",
        "",
        "| way | seconds | CPU seconds | items/s | peak MiB | time an item, of ours (greedy) |",
        "|---|---|---|---|---|---|",
    ]
    for row in measured:
        relative = row.seconds / row.items / (ours.seconds / ours.items)
        cpu = f"{statistics.median(row.cpu):.1f}"
        cells = (row.span, cpu, f"{row.items / row.seconds:.0f}", f"{row.peak_mb:.0f}", f"{relative:.2f}")
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    many, bare = by_name[f"forgetbench, greedy, {MANY} checkpoints"], by_name["bare forward passes, fp32"]
    more = (by_name[f"bare forward passes, fp32, {MANY} times"].seconds - bare.seconds) / (MANY - CHECKPOINTS)
    ratios = {
        "greedy/choice": ours.seconds / by_name["forgetbench, choice"].seconds,
        "a checkpoint more/its bare forward passes": (many.seconds - ours.seconds) / (MANY - CHECKPOINTS) / more,
    }
    if naive := by_name.get("naive: a process per checkpoint, a pass per option"):
        ratios["naive/ours"] = naive.seconds / by_name["forgetbench, choice"].seconds
    if llava := by_name.get("lmms-eval, llava_hf"):
        ratios["lmms-eval llava_hf/ours"] = llava.seconds / ours.seconds
        # A process per checkpoint: the time of 20 is four times that of 5.
        twenty = llava.seconds * MANY / CHECKPOINTS / many.seconds
        ratios[f"lmms-eval llava_hf/ours at {MANY} checkpoints"] = twenty
    if generic := by_name.get("lmms-eval, generic, batch 16, patched"):
        ratios["lmms-eval generic/ours"] = generic.seconds / ours.seconds
    for row in measured:
        if row.name.startswith("LLaMA-Factory"):
            ratios["LLaMA-Factory/ours"] = row.seconds / ours.seconds
    ratios["bare process/ours fp32"] = bare.seconds / ours.seconds
    ratios["seconds of a finished matrix"] = by_name["forgetbench, again, all cells there"].seconds
    return [*lines, ""], ratios


if __name__ == "__main__":
    main()
