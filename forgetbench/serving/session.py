"""Score through a server: compute expected values with transformers, start the server, write what was compared.

The model in this process and the server are never loaded at the same time, as they may share one GPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from packaging.version import InvalidVersion, Version

from forgetbench.config import Dtype, Engine, EngineConfig, MatrixConfig, ModelConfig, Reload
from forgetbench.core.files import scratch
from forgetbench.core.records import Decoding, Precision
from forgetbench.data.collate import Encoder, shared_encoder
from forgetbench.evaluation.engine import end_tokens
from forgetbench.evaluation.evaluate import PlannedCell
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.context import context_of
from forgetbench.models.held import HeldModel
from forgetbench.runs.run import Run
from forgetbench.serving.checked_runner import CheckedRunner, Comparisons
from forgetbench.serving.comparison import Case
from forgetbench.serving.engines import EngineIdentity
from forgetbench.serving.runner import ServerRunner
from forgetbench.serving.servers import Adapter, AttachedServer, ManagedServer
from forgetbench.serving.weights import Exports
from forgetbench.tables.scores import write_csv

_MEMORY_FACTOR = 1.5
"""Memory of a model in use, as a multiple of the size of its weights."""
LOG, TABLE = "engine.log", "engine.csv"
_KEYS = ("engine", "precision", "checkpoint", "dataset")
"""Columns that identify a row of the table."""
_FIRST_WITH_TOKENS = Version("0.32")
"""First vLLM whose `--enable-scale-out` opens `/inference/v1/generate`."""


@dataclass(frozen=True)
class ScoringJob:
    """The cells to score with a server, and their context."""

    engine: EngineConfig
    identity: EngineIdentity
    matrix: MatrixConfig
    run: Run | None
    """None if only a base is scored."""
    model: ModelConfig
    digest: str
    """Digest of the base, as it is scored."""
    folder: Path
    """Folder of the tables, the log and engine.csv."""
    outputs: Path
    missing: Sequence[PlannedCell]
    """Cells that are not stored yet."""
    held: HeldModel
    """The base, without the weights that a method attaches."""


@contextmanager
def server_session(job: ScoringJob) -> Iterator[Callable[[], ServerRunner]]:
    """Yield a function that starts the server at its first call; at the end stop it and write engine.csv.

    Raises:
        UserError: there is no such server, or its log-probabilities are not those of transformers.
    """
    tables: list[Comparisons] = []
    with ExitStack() as stack:
        started: list[ServerRunner] = []

        def runner() -> ServerRunner:
            if not started:
                comparisons, new_runner = _start(job, stack)
                tables.append(comparisons)
                started.append(new_runner)
            return started[0]

        try:
            yield runner
        finally:
            for table in tables:
                _write_table(job.folder / TABLE, table.rows())


def _start(job: ScoringJob, stack: ExitStack) -> tuple[Comparisons, ServerRunner]:
    """Compute the values to compare with transformers, free its memory, and prepare the server."""
    exports = Exports(stack.enter_context(scratch(job.outputs / "served")), job.run, job.model, job.held)
    adapters = _adapters(job, exports)
    cases = _cases(job, adapters)
    kept = job.outputs / ".engines"
    comparisons = Comparisons(cases, job.engine, job.identity.label, job.digest, job.matrix, kept)
    template = None
    if job.engine.name is Engine.vllm:  # while the model is loaded
        exports.base()
        template = exports.chat_template()
    loaded, model = job.held.get()
    encoder = shared_encoder(loaded.processor, model, loaded.inputs_digest)
    context, inputs_digest = context_of(loaded.model.config), loaded.inputs_digest
    ends = end_tokens(encoder, loaded.model.generation_config, loaded.model.config)
    cache = job.outputs / ".cache"
    if comparisons.has_pending:
        if job.run:
            job.run.attach_method(loaded.model)
        without = replace(job.matrix, representation=replace(job.matrix.representation, enabled=False))
        device = _device(loaded.model) if job.engine.name is Engine.server else None
        comparisons.ask(ModelRunner(loaded, encoder, without, cache, device))
    del loaded
    job.held.drop()
    served: AttachedServer | ManagedServer
    if job.engine.name is Engine.vllm:
        served = ManagedServer(
            job.engine, job.folder / LOG, _arguments(job, encoder, template), _weights(exports, adapters), adapters
        )
    else:
        served = AttachedServer(job.engine, exports.adapter)
    stack.callback(served.stop)
    runner = CheckedRunner(served, encoder, inputs_digest, context, job.matrix, cache, job.engine, ends, model)
    stack.callback(runner.close)
    in_place = isinstance(served, ManagedServer) and job.engine.reload is Reload.in_place
    runner.begin(comparisons, adapters, served.start if in_place and isinstance(served, ManagedServer) else None)
    return comparisons, runner


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write what was compared; rows of earlier commands on other datasets and checkpoints stay."""
    if not rows:
        return
    table = pd.DataFrame(rows)
    with suppress(OSError, ValueError, KeyError):  # there is no table, or it is another program's
        before = pd.read_csv(path)
        known = set(zip(*(table[key] for key in _KEYS), strict=True))
        is_other = [key not in known for key in zip(*(before[key] for key in _KEYS), strict=True)]
        if list(before) == list(table) and any(is_other):
            table = pd.concat([before[is_other], table], ignore_index=True)
    write_csv(table, path)


def _device(model: Any) -> str | None:
    """Device of a model that runs while a server may use the same GPU: the CPU, unless there is memory for both."""
    import torch

    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return None if needed * _MEMORY_FACTOR < free else "cpu"


def _weights(exports: Exports, adapters: dict[str, Adapter]) -> Callable[[Checkpoint], str]:
    return lambda checkpoint: exports.base() if checkpoint.name in adapters else exports.whole(checkpoint)


def _adapters(job: ScoringJob, exports: Exports) -> dict[str, Adapter]:
    """The checkpoints that a managed vLLM serves as adapters."""
    if not job.engine.adapters or job.engine.name is not Engine.vllm:
        return {}
    checkpoints = {cell.checkpoint.name: cell.checkpoint for cell in job.missing}
    exported = {name: exports.adapter(checkpoint) for name, checkpoint in checkpoints.items()}
    return {name: adapter for name, adapter in exported.items() if adapter is not None}


def _cases(job: ScoringJob, adapters: Container[str]) -> list[Case]:
    """The cases: every dataset at the base, at the last adapter, and at the first and last full checkpoint.

    The first, so that nothing is stored if weights were read wrongly. The last, as it is furthest from its base, so
    that weights that were not read show. If the server is somebody else's, or weights are replaced in place, every
    checkpoint is compared.
    """
    by_kind = dict[tuple[str, str], list[PlannedCell]]()
    every = job.engine.name is Engine.server or job.engine.reload is Reload.in_place
    for cell in job.missing:
        name = cell.checkpoint.name
        kind = "base" if not cell.checkpoint.path else "adapter" if name in adapters else name if every else "full"
        by_kind.setdefault((kind, cell.dataset.manifest.name), []).append(cell)
    cases: dict[tuple[str, str], Case] = {}
    for (kind, dataset), works in by_kind.items():
        for name in {works[-1].checkpoint.name, *([works[0].checkpoint.name] if kind == "full" else [])}:
            same = [cell for cell in works if cell.checkpoint.name == name]
            scores_options = any(cell.settings.decoding is Decoding.choice for cell in same)
            cases[name, dataset] = Case(same[0].checkpoint, same[0].dataset, scores_options)
    order = list(dict.fromkeys((cell.checkpoint.name, cell.dataset.manifest.name) for cell in job.missing))
    return [cases[key] for key in order if key in cases]


def _arguments(job: ScoringJob, encoder: Encoder, template: str | None) -> list[str]:
    """Arguments of vLLM that the model and the matrix decide."""
    narrow = job.matrix.precision is Precision.bf16 or job.model.dtype is Dtype.bf16
    arguments = ["--dtype", "bfloat16" if narrow else "float32", "--generation-config", "vllm"]
    if job.model.revision:
        arguments += ["--revision", job.model.revision]
    if job.model.trust_remote_code:
        arguments += ["--trust-remote-code"]
    if template:
        arguments += ["--chat-template", template]
    if pictures := _picture_arguments(encoder):
        arguments += ["--mm-processor-kwargs", json.dumps(pictures)]
    try:
        takes_tokens = Version(job.identity.version) >= _FIRST_WITH_TOKENS
    except InvalidVersion:
        takes_tokens = False
    return [*arguments, "--enable-scale-out"] if takes_tokens else arguments


def _picture_arguments(encoder: Encoder) -> dict[str, Any]:
    """Arguments that make vLLM resize pictures as this process does.

    By default vLLM resizes with torchvision if that is installed, which moved log-probabilities by 0.05. `use_fast` is
    the old name of the setting: every version of transformers takes it, and video processors ignore it.
    """
    by_pillow = type(encoder.processor.image_processor).__name__.endswith("Pil")
    return {**encoder.limits, **({"use_fast": False} if by_pillow else {})}
