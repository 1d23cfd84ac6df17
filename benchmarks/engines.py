"""Scoring by transformers and by vLLM, one checkpoint and five, letters and replies of 64 tokens, in one run.

    FORGETBENCH_VLLM=... python -m benchmarks.engines [--write docs/results/engines.md]

The checkpoints are adapters of the embedded architecture with random weights, whose replies hardly ever end early.
Baselines are vLLM's server with the same requests made beforehand, and, where FORGETBENCH_LMMS_VLLM_PYTHON names an
interpreter that has both, lmms-eval's own way through vLLM: it takes no adapters, so every checkpoint, merged, is a
process of its own. One is measured; five take five times as long. lmms-eval 0.7.3 fails with filelock above 3.20; if it
fails, it is left out with its own error.

Seconds are of whole processes, start of vLLM included. `asking` is the part in which requests are on their way: of ours
what the cells say, of the bare server from its first request to its last answer. The first time that vLLM scores a base
and a run, it is also compared with transformers; `again` is without that, as any later matrix is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.baselines import lmms_eval
from forgetbench.config import ModelConfig, Weights
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import shared_encoder
from forgetbench.data.sources import load_samples
from forgetbench.evaluation.engine import end_tokens
from forgetbench.exchange.whole_model import save_base
from forgetbench.models.load import load_model
from forgetbench.serving.process import vllm_version
from forgetbench.serving.question import QuestionBuilder
from forgetbench.serving.tokens import TokenProtocol

NAMES = ("fashion_naming", "fashion_knowledge", "digits_questions", "emoji_category")
CHECKPOINTS, TOKENS, IN_FLIGHT = 5, 64, 128
VARIABLE = "FORGETBENCH_VLLM"
BARE_SCRIPT = Path(__file__).with_name("baselines") / "bare_vllm.py"
TRANSFORMERS, OURS, AGAIN = "forgetbench, transformers", "forgetbench, vLLM", "forgetbench, vLLM, again"
BARE, LMMS = "bare vLLM, same requests", "lmms-eval, vLLM"
MODEL = ModelConfig(path="embedded:tiny", weights=Weights.random, attention="eager")
ARGUMENTS = "{enforce_eager: true, max_num_seqs: 64, max_model_len: 512}"
BARE_ARGUMENTS = [
    *("--dtype", "float32", "--generation-config", "vllm", "--enable-scale-out", "--enforce-eager"),
    *("--max-num-seqs", "64", "--max-model-len", "512", "--mm-processor-kwargs", '{"use_fast": false}'),
]
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Round:
    """One time that a way was gone."""

    seconds: float
    asking: float | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of request per item."""

    name: str
    decoding: str
    sets: Sequence[str]
    items: int
    """Of each set."""


def main() -> None:
    """Measure everything and print the table; the ratios, named, are the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--items",
        type=int,
        default=100,
        help="items of each of four datasets for letters, twice as many of one for replies",
    )
    parser.add_argument("--rounds", type=int, default=2, help="of all but transformers, which goes once")
    parser.add_argument("--write", type=Path, help="write the table, as Markdown, to this file")
    given = parser.parse_args()
    python = os.environ.get(VARIABLE)
    if not python:
        raise SystemExit(f"{VARIABLE} names no interpreter of an environment with vLLM (CONTRIBUTING.md).")
    kinds = (
        Kind("letters", "choice", NAMES, given.items),
        Kind(f"replies of {TOKENS} tokens", "greedy", NAMES[:1], 2 * given.items),
    )
    with tempfile.TemporaryDirectory() as scratch:
        benchmark = EngineBenchmark(Path(scratch), python)
        lines, ratios = table(benchmark.measured(kinds, given.rounds), kinds)
    lines += ["", *benchmark.failures]
    last = "ratios: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    text = "\n".join(
        [f"vLLM {vllm_version(python)}, {os.cpu_count()} CPUs, {given.rounds} rounds.", "", *lines, "", last]
    )
    print(text)
    if given.write:
        options = f"--items {given.items} --rounds {given.rounds} --write {given.write}"
        named = "".join(f"{variable}=... " for variable in (VARIABLE, lmms_eval.WITH_VLLM) if variable in os.environ)
        command = f"    {named}python -m benchmarks.engines {options}"
        given.write.write_text(f"# Speed of scoring through vLLM\n\n{command}\n\n{_description()}\n\n{text}\n", "utf-8")


def _description() -> str:
    return (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2].strip()


class EngineBenchmark:
    """The checkpoints that every way scores, and the ways."""

    def __init__(self, scratch: Path, python: str) -> None:
        """Train a short run; write its checkpoints for the others."""
        self.scratch, self.python = scratch, python
        self.failures: list[str] = []
        base = scratch / "whole/base"
        base.mkdir(parents=True)
        save_base(load_model(MODEL), MODEL, base)
        self.model = ModelConfig(path=str(base), attention="eager")
        self.loaded = load_model(self.model)
        train = ["finetune", *self.base, "name=few", "recipe=lora", f"recipe.steps={CHECKPOINTS - 1}", "recipe.lr=1e-6"]
        more = ["recipe.checkpoints.log_spaced=null", "recipe.checkpoints.every=1", "recipe.batch_size=8", "threads=1"]
        self.ours([*train, *more])
        self.run_folders = sorted((scratch / "outputs/few/checkpoints").iterdir())
        for checkpoint in self.run_folders:
            self.ours(["export", str(checkpoint), f"adapters/{checkpoint.name}", "--adapter"])
            self.ours(["export", str(checkpoint), f"whole/{checkpoint.name}"])

    @property
    def base(self) -> list[str]:
        """The model that is trained."""
        return ["model=local", f"model.path={self.model.path}", "model.attention=eager"]

    def measured(self, kinds: Sequence[Kind], rounds: int) -> dict[tuple[str, str, int], list[Round]]:
        """Rounds by way, kind and number of checkpoints."""
        rounds_by_way: dict[tuple[str, str, int], list[Round]] = {}
        for number in range(rounds):
            for kind in kinds:
                for way, count, go in self.ways(kind, is_first=number == 0):
                    try:
                        result = go()
                    except FailedError as error:
                        if way != LMMS:
                            raise SystemExit(str(error)) from error
                        self.failures.append(f"{way}, {kind.name}: failed, and is left out. {error}")
                        continue
                    rounds_by_way.setdefault((way, kind.name, count), []).append(result)
                    print(f"{way}, {kind.name}, {count}: {result}", file=sys.stderr)
        return rounds_by_way

    def ways(self, kind: Kind, is_first: bool) -> list[tuple[str, int, Callable[[], Round]]]:
        """Measurements of a round: name, number of checkpoints, function."""
        lmms = lmms_eval.interpreter(lmms_eval.WITH_VLLM)
        ways: list[tuple[str, int, Callable[[], Round]]] = []
        for count in (1, CHECKPOINTS):
            if is_first:
                ways.append((TRANSFORMERS, count, partial(self.scored, kind, count)))
            ways.append((OURS, count, partial(self.scored, kind, count, *self.engine)))
        ways.append((AGAIN, CHECKPOINTS, partial(self.scored, kind, CHECKPOINTS, *self.engine, known=True)))
        ways.append((BARE, CHECKPOINTS, partial(self.bare, kind, CHECKPOINTS)))
        if lmms:
            ways.append((LMMS, 1, partial(self.lmms, lmms, kind)))
        return ways

    @property
    def engine(self) -> list[str]:
        """Arguments that select the engine."""
        return ["engine=vllm", f"engine.python={self.python}", f"engine.args={ARGUMENTS}"]

    def scored(self, kind: Kind, count: int, *engine: str, known: bool = False) -> Round:
        """Score the base or the run with forgetbench, no cell stored; `known`: engine comparisons kept."""
        for stored in (".cells", ".cache", *([] if known else [".engines"])):
            shutil.rmtree(self.scratch / "outputs" / stored, ignore_errors=True)
        for table in (self.scratch / "outputs").glob("*/scores.csv"):
            table.unlink()
        what = ["run=outputs/few"] if count > 1 else [*self.base, "data=fashion_naming"]
        matrix = [f"matrix.datasets=[{','.join(kind.sets)}]", f"matrix.limit={kind.items}"]
        how = [f"matrix.decodings=[{kind.decoding}]", f"matrix.max_new_tokens={TOKENS}"]
        seconds = self.ours(
            ["eval-matrix", *what, *matrix, *how, "matrix.representation.enabled=false", "threads=1", *engine]
        )
        (written,) = (self.scratch / "outputs").glob("*/scores.csv")
        cells = pd.read_csv(written).drop_duplicates("cell")
        return Round(seconds, float(cells["seconds"].sum()))

    def bare(self, kind: Kind, count: int) -> Round:
        """The same requests straight to a server."""
        names = ["base", *(checkpoint.name for checkpoint in self.run_folders)][:count]
        requests = self.scratch / "requests.jsonl"
        bodies = list(self.bodies(kind))
        requests.write_text("\n".join(json.dumps(body | {"model": name}) for name in names for body in bodies))
        adapters = [json.dumps({"name": name, "path": str(self.scratch / "adapters" / name)}) for name in names[1:]]
        lora = ["--enable-lora", "--max-lora-rank", "8", "--max-cpu-loras", str(max(2, count - 1))]
        model = ["--model", str(self.scratch / "whole/base"), "--served-model-name", "base"]
        arguments = [*model, *BARE_ARGUMENTS, *([*lora, "--lora-modules", *adapters] if adapters else [])]
        started = time.perf_counter()
        output = self.run([sys.executable, str(BARE_SCRIPT), self.python, str(requests), str(IN_FLIGHT), *arguments])
        return Round(time.perf_counter() - started, json.loads(output.splitlines()[-1])["asking_s"])

    def bodies(self, kind: Kind) -> Iterator[dict[str, Any]]:
        """Requests that forgetbench sends for a checkpoint."""
        encoder = shared_encoder(self.loaded.processor, self.model, self.loaded.inputs_digest)
        ends = list(end_tokens(encoder, self.loaded.model.generation_config, self.loaded.model.config))
        questions, recorder = QuestionBuilder(encoder, None), Recorder()
        protocol: Any = TokenProtocol(recorder, lambda *_: None)  # type: ignore[arg-type]
        for name in kind.sets:
            manifest = Catalogue().load(name)
            for sample in load_samples(manifest, manifest.eval_split, kind.items):
                question = questions.question(sample, encoder.prompt(sample).tokens["input_ids"].tolist())
                try:
                    if kind.decoding == "choice":
                        protocol.logprobs(
                            "", question, [], [candidate[-1] for candidate in encoder.candidate_ids(sample)]
                        )
                    else:
                        protocol.reply("", question, TOKENS, [], ends)
                except RecordedError as recorded:
                    yield recorded.body

    def lmms(self, python: Path, kind: Kind) -> Round:
        """The process that lmms-eval needs for every checkpoint."""
        tasks, output = self.scratch / "tasks", self.scratch / "samples"
        lmms_eval.export_tasks(kind.sets, kind.items, tasks)
        shutil.rmtree(output, ignore_errors=True)
        cap = lmms_eval.MAX_NEW_TOKENS if kind.decoding == "choice" else TOKENS
        folder = self.scratch / "whole" / self.run_folders[-1].name
        command = lmms_eval.command(python, folder, tasks, kind.sets, "vllm", 64, output, cap)
        started = time.perf_counter()
        output_text = self.run(command, {**ENVIRONMENT, **lmms_eval.environment(tasks)})
        if len(list(output.rglob("*samples_*.jsonl"))) < len(kind.sets):
            raise FailedError(
                next((line for line in output_text.splitlines()[::-1] if "Error" in line), "It left no samples.")
            )
        return Round(time.perf_counter() - started)

    def ours(self, arguments: Sequence[str]) -> float:
        """Seconds of a forgetbench command."""
        started = time.perf_counter()
        self.run([sys.executable, "-m", "forgetbench", *arguments], ENVIRONMENT | {"PYTHONPATH": _HERE})
        return time.perf_counter() - started

    def run(self, command: Sequence[str], environment: dict[str, str] = ENVIRONMENT) -> str:
        """Output of a process."""
        done = subprocess.run(command, cwd=self.scratch, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FailedError(f"{' '.join(map(str, command[:4]))} ...:\n{done.stderr[-4000:]}")
        return done.stderr + done.stdout  # an answer is the last line


_HERE = str(Path(__file__).parents[1])


class FailedError(Exception):
    """A process failed; says what it wrote last."""


class RecordedError(Exception):
    """Carries a request in the place of its answer."""

    def __init__(self, body: dict[str, Any]) -> None:
        """Keep the request."""
        super().__init__("recorded")
        self.body = body


class Recorder:
    """Replaces the engine's client of the server."""

    url = ""

    def post(self, path: str, body: dict[str, Any], what: str) -> None:
        """Hand the request to whoever asked for it."""
        raise RecordedError(body)


def table(
    measured: dict[tuple[str, str, int], list[Round]], kinds: Sequence[Kind]
) -> tuple[list[str], dict[str, float]]:
    """A Markdown table with medians and ranges, and the ratios that have a goal."""
    lines = [
        "| way | asked for | checkpoints | items | seconds | asking | items/s while asking |",
        "|---|---|---|---|---|---|---|",
    ]
    ratios: dict[str, float] = {}
    for kind in kinds:
        of_kind = {(way, count): rounds for (way, name, count), rounds in measured.items() if name == kind.name}
        for (way, count), rounds in sorted(of_kind.items(), key=lambda entry: (entry[0][1], entry[0][0])):
            items = count * kind.items * len(kind.sets)
            asking = [result.asking for result in rounds if result.asking is not None]
            rate = f"{items / statistics.median(asking):.0f}" if asking else ""
            cells = [way, kind.name, count, items, _range([result.seconds for result in rounds]), _range(asking), rate]
            lines.append(f"| {' | '.join(map(str, cells))} |")
        many = {way: rounds for (way, count), rounds in of_kind.items() if count == CHECKPOINTS}
        ratios[f"{kind.name}: bare/ours, asking"] = _median(many[BARE], "asking") / _median(many[AGAIN], "asking")
        ratios[f"{kind.name}: bare/ours, whole"] = _median(many[BARE]) / _median(many[AGAIN])
        ratios[f"{kind.name}: transformers/ours"] = _median(many[TRANSFORMERS]) / _median(many[OURS])
        if lmms := of_kind.get((LMMS, 1)):
            ratios[f"{kind.name}: lmms-eval/ours"] = CHECKPOINTS * _median(lmms) / _median(many[OURS])
    return lines, ratios


def _median(rounds: Sequence[Round], what: str = "seconds") -> float:
    return float(statistics.median(getattr(result, what) for result in rounds))


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    main()
