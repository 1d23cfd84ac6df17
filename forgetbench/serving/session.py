"""Score through a server from beginning to end: what transformers says first, then the server, then what was compared.

The model in this process and the server are never there at the same time, as they may share one GPU.
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
from forgetbench.evaluation.evaluate import Work
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.context import context_of
from forgetbench.models.held import HeldModel
from forgetbench.runs.run import Run
from forgetbench.serving.checked import CheckedRunner, Comparisons
from forgetbench.serving.checks import Case
from forgetbench.serving.engines import Identity
from forgetbench.serving.runner import ServerRunner
from forgetbench.serving.served import Adapter, Attached, Own
from forgetbench.serving.weights import Exports
from forgetbench.tables.scores import write_csv

_ROOM = 1.5
"""Memory of a model that is asked, in sizes of its weights."""
LOG, TABLE = "engine.log", "engine.csv"
_KEYS = ("engine", "precision", "checkpoint", "dataset")
"""Columns that tell rows of the table apart."""
_FIRST_WITH_TOKENS = Version("0.32")
"""The vLLM whose `--enable-scale-out` opens `/inference/v1/generate`."""


@dataclass(frozen=True)
class Scoring:
    """What is to be scored by a server."""

    engine: EngineConfig
    identity: Identity
    matrix: MatrixConfig
    run: Run | None
    """None for a base alone."""
    model: ModelConfig
    digest: str
    """Of the base, as it is scored."""
    folder: Path
    """Where the tables go; the log and engine.csv, too."""
    outputs: Path
    missing: Sequence[Work]
    """Cells that are not there."""
    held: HeldModel
    """The base, without what a method attaches."""


@contextmanager
def serving(work: Scoring) -> Iterator[Callable[[], ServerRunner]]:
    """Give what starts the server, at its first call; afterwards it is stopped, and engine.csv is written.

    Raises:
        UserError: there is no such server, or its log-probabilities are not those of transformers.
    """
    tables: list[Comparisons] = []
    with ExitStack() as held:
        started: list[ServerRunner] = []

        def runner() -> ServerRunner:
            if not started:
                comparisons, one = _start(work, held)
                tables.append(comparisons)
                started.append(one)
            return started[0]

        try:
            yield runner
        finally:
            for one in tables:
                _write(work.folder / TABLE, one.rows())


def _start(work: Scoring, held: ExitStack) -> tuple[Comparisons, ServerRunner]:
    """Ask transformers what will be compared, free its memory, and prepare the server."""
    exports = Exports(held.enter_context(scratch(work.outputs / "served")), work.run, work.model, work.held)
    adapters = _adapters(work, exports)
    cases = _cases(work, adapters)
    kept = work.outputs / ".engines"
    comparisons = Comparisons(cases, work.engine, work.identity.label, work.digest, work.matrix, kept)
    template = None
    if work.engine.name is Engine.vllm:  # while the model is there
        exports.base()
        template = exports.chat_template()
    loaded, model = work.held.get()
    encoder = shared_encoder(loaded.processor, model, loaded.inputs_digest)
    context, inputs_digest = context_of(loaded.model.config), loaded.inputs_digest
    ends = end_tokens(encoder, loaded.model.generation_config, loaded.model.config)
    cache = work.outputs / ".cache"
    if comparisons.is_open:
        if work.run:
            work.run.attach_method(loaded.model)
        without = replace(work.matrix, representation=replace(work.matrix.representation, enabled=False))
        device = _device(loaded.model) if work.engine.name is Engine.server else None
        comparisons.ask(ModelRunner(loaded, encoder, without, cache, device))
    del loaded
    work.held.drop()
    served: Attached | Own
    if work.engine.name is Engine.vllm:
        served = Own(
            work.engine, work.folder / LOG, _arguments(work, encoder, template), _weights(exports, adapters), adapters
        )
    else:
        served = Attached(work.engine, exports.adapter)
    held.callback(served.stop)
    runner = CheckedRunner(served, encoder, inputs_digest, context, work.matrix, cache, work.engine, ends, model)
    held.callback(runner.close)
    in_place = isinstance(served, Own) and work.engine.reload is Reload.in_place
    runner.begin(comparisons, adapters, served.start if in_place and isinstance(served, Own) else None)
    return comparisons, runner


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write what was compared; what an earlier command compared of other datasets and checkpoints stays."""
    if not rows:
        return
    table = pd.DataFrame(rows)
    with suppress(OSError, ValueError, KeyError):  # there is none, or it is none of ours
        before = pd.read_csv(path)
        known = set(zip(*(table[key] for key in _KEYS), strict=True))
        is_other = [one not in known for one in zip(*(before[key] for key in _KEYS), strict=True)]
        if list(before) == list(table) and any(is_other):
            table = pd.concat([before[is_other], table], ignore_index=True)
    write_csv(table, path)


def _device(model: Any) -> str | None:
    """Where a model runs beside a server that may be on the same GPU: on the CPU, unless there is room for both."""
    import torch

    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    needed = sum(one.numel() * one.element_size() for one in model.parameters())
    return None if needed * _ROOM < free else "cpu"


def _weights(exports: Exports, adapters: dict[str, Adapter]) -> Callable[[Checkpoint], str]:
    return lambda one: exports.base() if one.name in adapters else exports.whole(one)


def _adapters(work: Scoring, exports: Exports) -> dict[str, Adapter]:
    """The checkpoints that a vLLM of our own serves as adapters."""
    if not work.engine.adapters or work.engine.name is not Engine.vllm:
        return {}
    checkpoints = {one.checkpoint.name: one.checkpoint for one in work.missing}
    found = {name: exports.adapter(one) for name, one in checkpoints.items()}
    return {name: one for name, one in found.items() if one is not None}


def _cases(work: Scoring, adapters: Container[str]) -> list[Case]:
    """What is compared: every dataset at the base, at the last adapter, and at the first and last full checkpoint.

    The first, as nothing is to be stored of weights that were read wrongly; the last, as it is the furthest from its
    base, so that what was not read shows. Wherever weights are somebody else's or replaced in place: at every one.
    """
    by_kind = dict[tuple[str, str], list[Work]]()
    every = work.engine.name is Engine.server or work.engine.reload is Reload.in_place
    for one in work.missing:
        name = one.checkpoint.name
        kind = "base" if not one.checkpoint.path else "adapter" if name in adapters else name if every else "full"
        by_kind.setdefault((kind, one.dataset.manifest.name), []).append(one)
    cases: dict[tuple[str, str], Case] = {}
    for (kind, dataset), works in by_kind.items():
        for name in {works[-1].checkpoint.name, *([works[0].checkpoint.name] if kind == "full" else [])}:
            same = [one for one in works if one.checkpoint.name == name]
            scores_options = any(one.settings.decoding is Decoding.choice for one in same)
            cases[name, dataset] = Case(same[0].checkpoint, same[0].dataset, scores_options)
    order = list(dict.fromkeys((one.checkpoint.name, one.dataset.manifest.name) for one in work.missing))
    return [cases[key] for key in order if key in cases]


def _arguments(work: Scoring, encoder: Encoder, template: str | None) -> list[str]:
    """Arguments of vLLM that follow from the model and the matrix."""
    narrow = work.matrix.precision is Precision.bf16 or work.model.dtype is Dtype.bf16
    found = ["--dtype", "bfloat16" if narrow else "float32", "--generation-config", "vllm"]
    if work.model.revision:
        found += ["--revision", work.model.revision]
    if work.model.trust_remote_code:
        found += ["--trust-remote-code"]
    if template:
        found += ["--chat-template", template]
    if pictures := _of_pictures(encoder):
        found += ["--mm-processor-kwargs", json.dumps(pictures)]
    try:
        takes_tokens = Version(work.identity.version) >= _FIRST_WITH_TOKENS
    except InvalidVersion:
        takes_tokens = False
    return [*found, "--enable-scale-out"] if takes_tokens else found


def _of_pictures(encoder: Encoder) -> dict[str, Any]:
    """How vLLM is to bring pictures to their size: as here.

    It takes torchvision where that is installed, whose resizing moved log-probabilities by 0.05; the old name of this
    setting is the one that every transformers takes, and that leaves processors of videos alone.
    """
    by_pillow = type(encoder.processor.image_processor).__name__.endswith("Pil")
    return {**encoder.limits, **({"use_fast": False} if by_pillow else {})}
