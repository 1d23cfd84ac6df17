"""What runs only where it is installed: bitsandbytes, FlashAttention-2, TRL."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.gpu import shapes
from benchmarks.gpu.bits import checkpoint
from benchmarks.gpu.findings import FAMILY, Finding, Scope, all_of, at_most, left_out, ratio, text
from benchmarks.gpu.right import BF16, STEPS, max_difference, questions
from benchmarks.gpu.short_run import ROOT, answer_of
from benchmarks.gpu.training import BATCH, begin, for_memory, reset_peak, side, stage
from forgetbench.config import Dtype, ModelConfig, Optimiser, Precision, Quantisation, RecipeConfig
from forgetbench.core.files import write_json
from forgetbench.core.records import Decoding
from forgetbench.data.collate import Encoder
from forgetbench.evaluation.settings import Settings
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.models.load import load_model
from forgetbench.models.precision import FLASH, flash_runs
from forgetbench.training.loop import Trainer
from forgetbench.training.prepare import prepare
from tests.support.asking import asked
from tests.support.runs import plan

TRL = "FORGETBENCH_TRL_PYTHON"
TRL_SCRIPT = ROOT / "benchmarks" / "baselines" / "trl_sft.py"
TRL_STEPS, LEFT_OUT = 8, 2
"""Of each; at the beginning, which the speed leaves out, as TRL's script does."""


def bitsandbytes(scope: Scope) -> Iterator[Finding]:
    """LoRA on 4-bit weights, and moments in 8 bits: some steps with finite losses, and choices as without."""
    if importlib.util.find_spec("bitsandbytes") is None:
        yield left_out("bitsandbytes is not installed")
        return
    packed = ModelConfig(path=checkpoint(scope), dtype=Dtype.bf16, quantisation=Quantisation.nf4)
    yield all_of("nf4: LoRA steps with a finite loss", trained(packed, LoRA(rank=2), Optimiser.adamw), STEPS)
    whole = ModelConfig(path=checkpoint(scope))
    steps = trained(whole, Method(), Optimiser.adamw_8bit)
    yield all_of("8-bit AdamW: steps with a finite loss", steps, STEPS)


def trained(model: ModelConfig, method: Method, optimiser: Optimiser) -> int:
    """How many steps the loop makes; it refuses a loss that is no number."""
    recipe = RecipeConfig(
        lr=1e-3, parts=["language"], batch_size=4, precision=Precision.bf16, optimiser=optimiser, warmup=0.0
    )
    loaded = load_model(model)
    prepare(loaded.model, [recipe], method, seed=0)
    trainer = Trainer(loaded, Encoder(loaded.processor), method, recipe, seed=0)
    return sum(1 for _ in trainer.run(plan(STEPS, only_pictures=True)))


def flash(scope: Scope) -> Iterator[Finding]:
    """FlashAttention-2 beside PyTorch's own kernel, in bf16, padding and all."""
    if not flash_runs():
        yield left_out("FlashAttention-2 is not installed, or there is no GPU")
        return
    path, way = checkpoint(scope), Settings(Decoding.choice, "bf16", 4)
    flash_answers, sdpa_answers = (
        asked(load_model(ModelConfig(path=path, dtype=Dtype.bf16, attention=kernel)), questions(), way)
        for kernel in (FLASH, "sdpa")
    )
    yield at_most(
        f"{FAMILY}: FlashAttention-2 beside sdpa, log-probability", max_difference(flash_answers, sdpa_answers), BF16
    )


def trl(scope: Scope, name: str) -> Iterator[Finding]:
    """TRL's trainer on items for the first time, beside our loop on as many, from weights of the same random values."""
    python = os.environ.get(TRL) or (sys.executable if importlib.util.find_spec("trl") else "")
    if not python or not importlib.util.find_spec("datasets"):
        yield left_out(f"TRL is not installed, or datasets is not; {TRL} may name an interpreter that has TRL")
        return
    from benchmarks.baselines.export import export_checkpoint, export_items

    config, reason = for_memory(scope, name, ["language"], Method(), BATCH)
    if reason:
        yield left_out(f"training the language part: {reason}")
        return
    steps, batch = 3 if scope.tiny else TRL_STEPS, config.recipe.batch_size
    samples = shapes.items(side(scope, name), steps * batch)
    folder, items = scope.scratch / "trl", scope.scratch / "items.parquet"
    export_checkpoint(shapes.make(scope, name), folder)
    # The published one has a half for videos, which TRL's process loads with the rest.
    write_json(folder / "video_preprocessor_config.json", {"video_processor_type": "Qwen2VLVideoProcessor"})
    export_items(samples, items)
    reset_peak()
    options = ["--checkpoint", str(folder), "--items", str(items), "--steps", str(steps), "--batch-size", str(batch)]
    command = [python, str(TRL_SCRIPT), *options, "--precision", "bf16", "--gpu"]
    theirs = answer_of(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))["steps_per_s"]
    reports = begin(scope, name, config).trainer.run([stage(samples, steps)])
    seconds = [report.seconds for report in reports][LEFT_OUT:]
    yield text("steps/s, TRL", f"{theirs:.3g}")
    yield ratio(f"{name} training loop/TRL", len(seconds) / sum(seconds) / theirs)
