"""A short training of a tiny model in a process of its own, to be repeated, killed and taken up again.

    python -m benchmarks.gpu.short_run CHECKPOINT RUN --steps 6 [--precision bf16] [--deterministic]

The last line is JSON: the digest of all that training changed, and steps a second. LoRA with dropout, so that the
device's random generator counts; `--deterministic` asks PyTorch for deterministic kernels, which needs
CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from forgetbench.core.records import Precision
from forgetbench.methods.lora import LoRA
from forgetbench.models.checkpoint import list_checkpoints
from forgetbench.models.tensors import tensors_digest
from forgetbench.training.run import train
from tests.support.runs import plan, trainer

ROOT = Path(__file__).parents[2]
CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


@dataclass(frozen=True)
class ShortRun:
    """What to train, and where."""

    checkpoint: str
    folder: str
    steps: int
    precision: str = "fp32"
    deterministic: bool = False

    def run(self) -> str:
        """Train to the end, from where an earlier process stopped; the digest of what training changed."""
        torch.use_deterministic_algorithms(self.deterministic)
        try:
            method = LoRA(rank=2, dropout=0.3)
            subject = trainer(
                Path(self.checkpoint), method, parts=["language"], precision=Precision(self.precision), lr=1e-2
            )
            folder = Path(self.folder)
            folder.mkdir(parents=True, exist_ok=True)
            meta = {"method": asdict(method)}
            train(folder, subject, plan(self.steps), [self.steps], meta, resume_minutes=0)
            return tensors_digest(list_checkpoints(folder)[-1].delta())
        finally:
            torch.use_deterministic_algorithms(False)

    def start(self, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """The same in a separate process."""
        command = [sys.executable, "-m", "benchmarks.gpu.short_run", self.checkpoint, self.folder]
        command += ["--steps", str(self.steps), "--precision", self.precision]
        command += ["--deterministic"] * self.deterministic
        return started(command, environment)


def started(command: list[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A process of this repository whose last line of output is its answer; other output goes to standard error."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        command, env={**os.environ, **(environment or {}), "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )


def answer_of(process: subprocess.Popen[str]) -> Any:
    """The last line of a process; if it failed, this process ends too, with its error on standard error."""
    written, _ = process.communicate()
    if process.returncode:
        raise SystemExit(1)
    return json.loads(written.splitlines()[-1])


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--deterministic", action="store_true")
    short = ShortRun(**vars(parser.parse_args()))
    began = time.perf_counter()
    digest = short.run()
    print(json.dumps({"digest": digest, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
