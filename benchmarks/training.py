"""Speed and memory of training the embedded model, as ratios against named baselines in one run on one machine.

    python -m benchmarks.training [--quick]

Our loop against a bare PyTorch loop on collated batches; features of pictures seen before against encoding every
picture every time; ours, reading and encoding items it never saw, against TRL's SFTTrainer, where the environment
variable FORGETBENCH_TRL_PYTHON names an interpreter that has it; ours on conversations of mixed lengths against TRL,
against LLaMA-Factory, where FORGETBENCH_LLAMAFACTORY names a `llamafactory-cli`, and against an item for every reply.
Then the bare loop alone, in all the ways the hardware allows. Batches of 32, the language part trained, one thread
unless said otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.measure import OneRound, Speed, Worker, take_turns
from benchmarks.training_loop import BATCH, INSTRUCTIONS, TrainingSetup

TRL = "FORGETBENCH_TRL_PYTHON"
TRL_SCRIPT = Path(__file__).with_name("baselines") / "trl_sft.py"
LLAMAFACTORY_SCRIPT = TRL_SCRIPT.with_name("llamafactory_train.py")
TRL_STEPS = 20
MIXED_STEPS = 10
"""Of conversations, which take TRL and LLaMA-Factory ten seconds each."""
ACCUMULATION = 4
BEFORE = "forgetbench before conversations: an item per reply, micro-batches as drawn"
PRECISIONS = ("fp32", "bf16")
Ways = Mapping[str, TrainingSetup]


def main() -> None:
    """Measure everything, print a table for each question; the ratios, named, are the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one short round of a few ways, to see that it runs; the figures mean nothing",
    )
    quick = parser.parse_args().quick
    ratios = dict(loops(quick))
    if not quick:
        ratios |= dict(trl())
        ratios |= dict(instructions())
        hardware()
        batches()
    print("ratios: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))


def loops(quick: bool) -> Iterator[tuple[str, float]]:
    """Our loop with and without reuse, and the bare loop."""
    steps, rounds, precisions = (2, 1, PRECISIONS[1:]) if quick else (6, 10, PRECISIONS)
    ways: dict[str, TrainingSetup] = {}
    for precision in precisions:
        ways[f"bare PyTorch, {precision}"] = TrainingSetup("bare", precision, steps=steps)
        ways[f"forgetbench, no reuse, {precision}"] = TrainingSetup("ours", precision, steps=steps, reuse=False)
        ways[f"forgetbench, {precision}"] = TrainingSetup("ours", precision, steps=steps)
    speeds = measured("Loops, on items seen before", ways, rounds)
    for precision in precisions:
        bare, off, on = (speeds[name] for name in ways if name.endswith(precision))
        yield f"loop/bare {precision}", off.over(bare)
        yield f"reuse/no reuse {precision}", on.over(off)


def trl() -> Iterator[tuple[str, float]]:
    """Ours against TRL's, both on items for the first time; TRL's in a process of its own for each round."""
    python = os.environ.get(TRL)
    if not python:
        print(f"\nTRL is left out: {TRL} names no interpreter that has it. To have it, in an environment of its own,")
        print(f"pip install trl==1.16.0 transformers==5.23.0 torch pillow; {TRL} is that environment's bin/python.\n")
        return
    with tempfile.TemporaryDirectory() as scratch:
        options = [*exported(Path(scratch)), "--steps", str(TRL_STEPS), "--batch-size", str(BATCH), "--threads", "1"]
        processes: dict[str, Worker | OneRound] = {}
        for precision in PRECISIONS:
            processes[f"TRL, {precision}"] = OneRound([python, str(TRL_SCRIPT), *options, "--precision", precision])
            processes[f"forgetbench, {precision}"] = worker(
                TrainingSetup("ours", precision, fresh=True, steps=TRL_STEPS)
            )
        speeds = take_turns(processes, rounds=2)
    show("TRL's SFTTrainer, on items for the first time", speeds)
    for precision in PRECISIONS:
        yield f"ours/TRL {precision}", speeds[f"forgetbench, {precision}"].over(speeds[f"TRL, {precision}"])


def instructions() -> Iterator[tuple[str, float]]:
    """Conversations of mixed lengths: ours, ours an item per reply as before conversations, TRL's, LLaMA-Factory's.

    Steps of 32 instances in four micro-batches, all on instances for the first time.
    """
    from benchmarks.baselines import llamafactory
    from benchmarks.baselines.instructions import conversations, export_messages, export_sharegpt, n_replies
    from forgetbench.config import ModelConfig
    from forgetbench.data.collate import Encoder
    from forgetbench.models.pretrained import load_processor

    samples = conversations(INSTRUCTIONS)
    shared_setup = TrainingSetup("ours", "fp32", fresh=True, steps=MIXED_STEPS, accumulation=ACCUMULATION)
    ways = {
        "forgetbench": replace(shared_setup, instructions="conversations"),
        "forgetbench, an item per reply": replace(shared_setup, instructions="turn by turn"),
        BEFORE: replace(shared_setup, instructions="turn by turn", composed=False),
    }
    processes: dict[str, Worker | OneRound] = {name: worker(setup) for name, setup in ways.items()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checkpoint = exported(folder)[1]
        shared = ["--checkpoint", checkpoint, "--steps", str(MIXED_STEPS), "--batch-size", str(BATCH), "--threads", "1"]
        shared += ["--accumulation", str(ACCUMULATION)]
        if python := os.environ.get(TRL):
            export_messages(samples, folder / "messages.parquet")
            processes["TRL"] = OneRound(
                [python, str(TRL_SCRIPT), *shared, "--messages", str(folder / "messages.parquet")]
            )
        if cli := llamafactory.program():
            export_sharegpt(samples, folder / "sharegpt", "instructions")
            script = [str(cli.with_name("python")), "-P", str(LLAMAFACTORY_SCRIPT), *shared]
            processes["LLaMA-Factory"] = OneRound(
                [*script, "--datasets", str(folder / "sharegpt"), "--name", "instructions"]
            )
        speeds = take_turns(processes, rounds=2)
    encoder = Encoder(load_processor(ModelConfig(path="embedded:tiny")))
    tokens = sum(encoder.example(sample).length for sample in samples) / len(samples)
    replies = sum(map(n_replies, samples)) / len(samples)
    show_instructions(speeds, tokens, replies)
    ours = speeds["forgetbench"]
    for name in ("TRL", "LLaMA-Factory"):
        if name in speeds:
            yield f"conversations/{name}", ours.over(speeds[name])
    yield "replies a second, conversations/item per reply as before", ours.over(speeds[BEFORE]) * replies


def show_instructions(speeds: Mapping[str, Speed], tokens: float, replies: float) -> None:
    """A row for each way, in tokens and replies a second.

    Args:
        speeds: of the ways.
        tokens: of a conversation, padding not counted.
        replies: of a conversation.
    """
    title = f"Conversations of {replies:.1f} replies and {tokens:.0f} tokens, fp32, {BATCH} a step"
    table = Table(title=title, title_justify="left")
    for name in ("way", "tokens/s", "replies/s", "peak MiB"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for name, speed in speeds.items():
        instances = speed.steps_per_s * BATCH
        single = "an item per reply" in name
        read = "" if single else f"{instances * tokens:.0f}"
        answered = instances if single else instances * replies
        table.add_row(name, read, f"{answered:.1f}", f"{speed.peak_memory_mb:.0f}")
    Console().print(table)


def exported(folder: Path) -> list[str]:
    """The embedded model and its training items, as options of the TRL script."""
    from benchmarks.baselines.export import export_checkpoint, export_items, train_samples
    from forgetbench.config import ModelConfig
    from forgetbench.models.load import load_model

    checkpoint, items = folder / "checkpoint", folder / "items.parquet"
    export_checkpoint(load_model(ModelConfig(path="embedded:tiny", attention="eager")), checkpoint)
    export_items(train_samples("fashion_naming", TRL_STEPS * BATCH), items)
    return ["--checkpoint", str(checkpoint), "--items", str(items)]


def hardware() -> None:
    """The bare loop with either attention, in either precision, on one thread and on two."""
    ways = {
        f"{attention}, {precision}, {threads} thread{'s' * (threads > 1)}": TrainingSetup(
            "bare", precision, attention, threads
        )
        for attention in ("eager", "sdpa")
        for precision in PRECISIONS
        for threads in (1, 2)
    }
    speeds = measured("What the hardware gives (bare PyTorch)", ways, rounds=5)
    print(f"fastest: {max(speeds, key=lambda name: speeds[name].steps_per_s)}\n")


def batches() -> None:
    """The bare loop with logits of all positions, and with items of similar length in a batch."""
    ways = {}
    for precision in PRECISIONS:
        ways[f"logits of the answer, {precision}"] = TrainingSetup("bare", precision)
        ways[f"logits of all positions, {precision}"] = TrainingSetup("bare", precision, all_logits=True)
        ways[f"mixed lengths as drawn, {precision}"] = TrainingSetup("bare", precision, mixed=True)
        ways[f"mixed lengths, grouped, {precision}"] = TrainingSetup("bare", precision, mixed=True, grouped=True)
    measured("What batches cost (bare PyTorch)", ways, rounds=5)


def measured(title: str, ways: Ways, rounds: int) -> dict[str, Speed]:
    """Let the ways take turns, and show what came of it."""
    speeds = take_turns({name: worker(setup) for name, setup in ways.items()}, rounds)
    show(title, speeds)
    return speeds


def worker(setup: TrainingSetup) -> Worker:
    """The process that serves one way's rounds."""
    return Worker([sys.executable, "-m", "benchmarks.training_loop", json.dumps(asdict(setup))])


def show(title: str, speeds: Mapping[str, Speed]) -> None:
    """Print a table with a row for each way."""
    table = Table(title=title, title_justify="left")
    for name in ("way", "steps/s", "of the first", "peak MiB"):
        table.add_column(name, justify="left" if name == "way" else "right")
    first = next(iter(speeds.values()))
    for name, speed in speeds.items():
        table.add_row(name, f"{speed.steps_per_s:.2f}", f"{speed.over(first):.2f}", f"{speed.peak_memory_mb:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
