"""Ask a loaded model a list of items, as evaluation does, without checkpoints and cells."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from forgetbench.core.records import Decoding, Prediction, Sample
from forgetbench.data.collate import Encoder
from forgetbench.data.encoded import encode
from forgetbench.evaluation.batches import batch_dataset
from forgetbench.evaluation.engine import Engine
from forgetbench.evaluation.settings import Settings
from forgetbench.models.load import LoadedModel


def asked(
    loaded: LoadedModel, samples: Sequence[Sample], settings: Settings, engine: Engine | None = None
) -> list[Prediction]:
    """The predictions, in the order of the samples; by an engine of their own unless one is given."""
    encoder = Encoder(loaded.processor)
    engine = engine or Engine(loaded, encoder)
    with tempfile.TemporaryDirectory() as folder:
        prompts = encode(samples, encoder, Path(folder) / "set", max_bytes=1 << 30)
        dataset = batch_dataset(samples, prompts, encoder, settings.batch_size or 1)
        found = {}
        for number, batch in enumerate(dataset.batches):
            found.update(zip(batch, engine.answer(dataset, number, settings), strict=True))
    return [found[item] for item in range(len(samples))]


def choice(batch_size: int) -> Settings:
    """Likelihood of the candidates."""
    return Settings(Decoding.choice, "fp32", batch_size)


def greedy(batch_size: int, max_new_tokens: int = 6, **more: object) -> Settings:
    """Greedy text."""
    return Settings(Decoding.greedy, "fp32", batch_size, max_new_tokens, **more)
