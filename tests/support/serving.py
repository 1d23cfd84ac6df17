"""A few sets of pictures, and cells of them by any engine, without tables."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from forgetbench.config import Engine, EngineConfig, MatrixConfig, ModelConfig, RepresentationConfig
from forgetbench.core.processes import ProcessGroup
from forgetbench.core.records import Decoding
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import Encoder
from forgetbench.evaluation.cells import CellStore
from forgetbench.evaluation.evaluate import Evaluator, PlannedCell, ScoredCell, plan
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.evaluation.sets import load_sets
from forgetbench.models.checkpoint import BASE, Checkpoint
from forgetbench.models.held import HeldModel
from forgetbench.models.load import LoadedModel, load_model
from forgetbench.runs.run import Run
from forgetbench.serving.engines import identify
from forgetbench.serving.session import ScoringJob, server_session
from tests.support.server_app import StandIn

TINY = ModelConfig(path="embedded:tiny")
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 40), "blue": (30, 30, 230), "dark green": (10, 80, 20)}
_MANIFEST = """
source: {kind: jsonl, images: pictures}
splits: {train: {files: [NAME.jsonl]}, test: {files: [NAME.jsonl]}}
image_domains: [DOMAIN]
text_tasks: [colour]
prompt: "{question}\\n{options}"
answer: ANSWER
"""
SETS = {"letters": "letter", "words": "option", "open": "text", "pairs": "letter", "texts": "letter"}
"""One picture or two or none, answered by a letter, by one of the colours' names, or openly."""
EVERY = tuple(SETS)
CHOICE, GREEDY = (Decoding.choice,), (Decoding.greedy,)
Answer = tuple[tuple[float, ...] | None, str | None, bool | None]
Answers = dict[tuple[str, str, str, str], Answer]
"""By checkpoint, dataset, decoding and item: log-probabilities, text, whether it was cut off."""


def write_sets(folder: Path, n: int = 4) -> Path:
    """Manifests of `n` items each; returns their folder."""
    (folder / "pictures").mkdir(parents=True)
    names = list(COLOURS)
    for i in range(n):
        colour = tuple(one + 3 * i for one in COLOURS[names[i % 4]])
        Image.new("RGB", (16 + i, 16), colour).save(folder / f"pictures/{i}.png")
    for name, kind in SETS.items():
        rows: list[dict[str, Any]] = []
        for i in range(n):
            row: dict[str, Any] = {"id": f"{name}{i}", "question": f"Which colour, number {i}?", "answer": names[i % 4]}
            if kind != "text":
                row["options"] = names
            if name != "texts":
                row["image"] = [f"{i}.png", f"{(i + 1) % n}.png"] if name == "pairs" else f"{i}.png"
            rows.append(row)
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        manifest = (
            _MANIFEST.replace("NAME", name)
            .replace("ANSWER", kind)
            .replace("DOMAIN", "text" if name == "texts" else "toy")
        )
        (folder / f"{name}.yaml").write_text(manifest if kind == "letter" else manifest.replace("\\n{options}", ""))
    return folder


@dataclass
class Scorer:
    """Scores sets with one model; each engine into an outputs folder that the test names."""

    manifests: Path
    loaded: LoadedModel
    outputs: Path
    run: Run | None = None
    checkpoints: Sequence[Checkpoint] = (BASE,)
    loads: int = 0
    """How often a command loaded the model."""
    cells: list[ScoredCell] = field(default_factory=list)
    """Of the last call."""

    def plan(self, label: str | None, matrix: MatrixConfig) -> list[PlannedCell]:
        sets = load_sets(matrix, Catalogue([self.manifests]))
        return plan(self.loaded.digest, self.checkpoints, sets, matrix, label)

    def score(self, engine: EngineConfig, sets: Sequence[str] = EVERY, **more: Any) -> Answers:
        """The cells of some sets; those that are there are read."""
        without = RepresentationConfig(enabled=False)
        settings: dict[str, Any] = {"batch_size": 2, "max_new_tokens": 3, "representation": without}
        matrix = MatrixConfig(datasets=list(sets), **settings | more)
        identity = identify(engine)
        planned = self.plan(identity.label if identity else None, matrix)
        store = CellStore(self.outputs)
        model = self.run.model if self.run else TINY
        held, folder = HeldModel(self._load), self.outputs / "tables"
        with ExitStack() as open_:
            if identity is None:
                ask: Any = partial(self._runner, held, matrix)
            else:
                missing = [work for work in planned if not store.path(work.digest).exists()]
                digest = self.loaded.digest
                work = ScoringJob(
                    engine, identity, matrix, self.run, model, digest, folder, self.outputs, missing, held
                )
                ask = open_.enter_context(server_session(work))
            self.cells = Evaluator(ask, store, ProcessGroup()).score(planned, lambda *_: None)
        return {key: one for cell in self.cells for key, one in _answers(cell)}

    def _load(self) -> tuple[LoadedModel, ModelConfig]:
        self.loads += 1
        return (self.run.load_base(), self.run.model) if self.run else (self.loaded, TINY)

    def _runner(self, held: HeldModel, matrix: MatrixConfig) -> ModelRunner:
        loaded, _ = held.get()
        if self.run:
            self.run.attach_method(loaded.model)
        return ModelRunner(loaded, Encoder(loaded.processor), matrix, self.outputs / ".cache")

    def into(self, outputs: Path) -> Scorer:
        """The same, into another folder."""
        return replace(self, outputs=outputs, loads=0, cells=[])


def attached(server: StandIn, **more: Any) -> EngineConfig:
    """The engine that is a stand-in server."""
    return EngineConfig(name=Engine.server, url=server.url, **more)


def of(answers: Answers, sets: Collection[str], decoding: str = "") -> Answers:
    """Those of some sets, and of one decoding."""
    return {key: one for key, one in answers.items() if key[1] in sets and decoding in ("", key[2])}


def load_tiny() -> LoadedModel:
    return load_model(TINY)


def assert_equal(found: Answers, wanted: Answers, within: float = 1e-4) -> None:
    """The same items, texts and log-probabilities."""
    assert found.keys() == wanted.keys()
    for key, (logprobs, text, cut_off) in wanted.items():
        assert found[key][1:] == (text, cut_off), key
        differences = [abs(a - b) for a, b in zip(found[key][0] or (), logprobs or (), strict=True)]
        assert max(differences, default=0.0) < within, key


def _answers(scored: ScoredCell) -> list[tuple[tuple[str, str, str, str], Answer]]:
    work, found = scored.work, list[tuple[tuple[str, str, str, str], Answer]]()
    for row in scored.cell.frame.to_dict("records"):
        logprobs, text, cut_off = (row[name] for name in ("option_logprobs", "text", "text_cut_off"))
        key = (work.checkpoint.name, work.dataset.manifest.name, str(work.settings.decoding), str(row["sample_id"]))
        given = None if logprobs is None else tuple(map(float, logprobs))
        found.append((key, (given, text if isinstance(text, str) else None, _flag(cut_off))))
    return found


def _flag(value: Any) -> bool | None:
    return bool(value) if value in (True, False) else None
