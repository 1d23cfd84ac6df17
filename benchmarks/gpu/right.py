"""Tiny models of all families on the device: the CPU's answers, whatever the batch; training steps of every method."""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from benchmarks.gpu.bits import checkpoint
from benchmarks.gpu.findings import FAMILY, Finding, Scope, all_of, at_most, text
from benchmarks.gpu.short_run import answer_of, started
from forgetbench.config import ModelConfig
from forgetbench.core.records import AnswerKind, Decoding, ImageRef, Prediction, Sample
from forgetbench.data.batching import batch_prompts
from forgetbench.data.collate import Encoder
from forgetbench.evaluation.engine import Engine
from forgetbench.evaluation.settings import Settings
from forgetbench.models.load import LoadedModel, load_model
from tests.support.asking import asked
from tests.support.families import FAMILIES
from tests.support.methods import ADAPTERS, DURING
from tests.support.runs import ITEMS, plan, trainer

BATCH, ITEMS_ASKED, STEPS = 4, 9, 3
FP32, BF16, LOSS = 1e-4, 0.3, 1e-3
"""Bounds: of what a log-probability may move in fp32 and in bf16; of the first loss, in shares of it."""
COLOURS = (("red", "green", "blue", "yellow"), ("red", "dark red", "light blue"))


def questions() -> list[Sample]:
    """Letters and words, short and long prompts, pictures of several sizes."""
    samples = []
    for i in range(ITEMS_ASKED):
        kind = AnswerKind.letter if i % 3 else AnswerKind.option
        options = COLOURS[i % 2]
        stream = io.BytesIO()
        noise = random.Random(i).randbytes(3 * (16 + 4 * (i % 3)) * 16)
        Image.frombytes("RGB", (16 + 4 * (i % 3), 16), noise).save(stream, "PNG")
        prompt = "What is in this picture? " + "Answer directly. " * (i % 4) + ", ".join(options)
        answer = "A" if kind is AnswerKind.letter else options[0]
        image = ImageRef("memory", f"{i}.png", stream.getvalue())
        samples.append(Sample.question(str(i), prompt, answer, kind, (image,), (answer,), options))
    return samples


@dataclass(frozen=True)
class Answers:
    """Answers of a model on a device."""

    logits: Tensor
    choice: Sequence[Prediction]
    greedy: Sequence[Prediction]


@torch.inference_mode()
def answers(loaded: LoadedModel, device: str) -> Answers:
    """In fp32, in batches, no features kept."""
    encoder, samples = Encoder(loaded.processor), questions()
    engine = Engine(loaded, encoder, 0, device=device)
    inputs = batch_prompts([encoder.prompt(sample) for sample in samples], encoder.pad_id)
    logits_BV = loaded.model(**{key: tensor.to(device) for key, tensor in inputs.items()}, use_cache=False).logits[
        :, -1
    ]
    ways = (Settings(Decoding.choice, "fp32", BATCH), Settings(Decoding.greedy, "fp32", BATCH, 6))
    return Answers(logits_BV.float().cpu(), *(asked(loaded, samples, way, engine) for way in ways))


def families(scope: Scope) -> Iterator[Finding]:
    """Answers on the device beside the CPU's, in other batches, in bf16, with kept features."""
    for family in scope.families or FAMILIES:
        loaded = load_model(ModelConfig(path=checkpoint(scope, family)))
        cpu = answers(loaded, "cpu")
        device = answers(loaded, scope.device)
        yield from beside_cpu(family, cpu, device)
        if scope.device == "cuda":
            yield from without_tf32(family, loaded, cpu)
        ask = partial(asked, loaded, questions())
        without_features, with_features = (
            Engine(loaded, Encoder(loaded.processor), size, device=scope.device) for size in (0, 1 << 30)
        )
        for precision, most in (("fp32", FP32), ("bf16", BF16)):
            single, batched = (ask(Settings(Decoding.choice, precision, size), without_features) for size in (1, BATCH))
            yield at_most(
                f"{family}: batches of 1 and {BATCH}, {precision}, log-probability",
                max_difference(single, batched),
                most,
            )
        with_kept = ask(Settings(Decoding.choice, "fp32", BATCH), with_features)
        yield at_most(f"{family}: features kept, log-probability", max_difference(device.choice, with_kept), FP32)


def beside_cpu(family: str, cpu: Answers, device: Answers) -> Iterator[Finding]:
    """Logits near, choice and text equal."""
    apart = (cpu.logits - device.logits).abs().max() / cpu.logits.abs().max()
    yield at_most(f"{family}: logits, of the largest", float(apart), FP32)
    chosen = sum(
        best(cpu_prediction) == best(device_prediction)
        for cpu_prediction, device_prediction in zip(cpu.choice, device.choice, strict=True)
    )
    yield all_of(f"{family}: the CPU's choice", chosen, len(cpu.choice))
    written = sum(
        cpu_prediction.text == device_prediction.text
        for cpu_prediction, device_prediction in zip(cpu.greedy, device.greedy, strict=True)
    )
    yield all_of(f"{family}: the CPU's greedy text", written, len(cpu.greedy))


def without_tf32(family: str, loaded: LoadedModel, cpu: Answers) -> Iterator[Finding]:
    """PyTorch lets cuDNN's convolutions, such as those that cut patches, round fp32 to TF32 unless told not to."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        device = answers(loaded, "cuda")
    finally:
        torch.backends.cudnn.allow_tf32 = before
    apart = (cpu.logits - device.logits).abs().max() / cpu.logits.abs().max()
    yield text(f"{family}: logits without TF32 in convolutions", f"{float(apart):.1e}")


def best(prediction: Prediction) -> int:
    """The candidate that is most likely."""
    assert prediction.option_logprobs
    return max(range(len(prediction.option_logprobs)), key=prediction.option_logprobs.__getitem__)


def max_difference(first: Sequence[Prediction], second: Sequence[Prediction]) -> float:
    """The most that a log-probability differs."""
    pairs = zip(first, second, strict=True)
    return max(
        abs(first_logprob - second_logprob)
        for a, b in pairs
        for first_logprob, second_logprob in zip(a.option_logprobs or (), b.option_logprobs or (), strict=True)
    )


def steps(scope: Scope) -> Iterator[Finding]:
    """Three steps of LoRA on every family and of every method on one, beside the CPU's losses."""
    pairs = [(family, "lora") for family in scope.families or FAMILIES]
    pairs += [(FAMILY, method) for method in scope.methods or DURING if (FAMILY, method) not in pairs]
    for family in {family for family, _ in pairs}:
        checkpoint(scope, family)
    on_cpu = None
    if scope.device == "cuda":
        command = [sys.executable, "-m", "benchmarks.gpu.right", str(scope.scratch), json.dumps(pairs)]
        on_cpu = started(command, {"CUDA_VISIBLE_DEVICES": ""})
    device_losses = [losses(scope.scratch, *pair) for pair in pairs]
    expected = answer_of(on_cpu) if on_cpu else device_losses
    for (family, method), ours, theirs in zip(pairs, device_losses, expected, strict=True):
        first, last = (abs(ours[step] / theirs[step] - 1) for step in (0, -1))
        name = f"{family}: {method}, first and last loss beside the CPU's"
        yield Finding(name, f"{first:.1e}, {last:.1e}", first <= LOSS, f"the first at most {LOSS:.0e}")


def losses(scratch: Path, family: str, method: str) -> list[float]:
    """Of three steps in fp32 on the device that is there."""
    parts = ["language"] if method in ADAPTERS else ["vision", "projector", "language"]
    subject = trainer(scratch / "models" / family, DURING[method](), read={"general": ITEMS[:2]}, parts=parts)
    return [report.loss for report in subject.run(plan(STEPS, only_pictures=True))]


def main() -> None:
    """Train some pairs of family and method and print the losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("pairs", type=json.loads)
    given = parser.parse_args()
    print(json.dumps([losses(given.scratch, *pair) for pair in given.pairs]))


if __name__ == "__main__":
    main()
