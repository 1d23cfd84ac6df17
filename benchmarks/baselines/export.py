"""Write the embedded model and its items the way other programs read them: a checkpoint folder, Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value, disable_progress_bars

from forgetbench.core.records import Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.pictures import read_image
from forgetbench.data.sources import load_samples
from forgetbench.models.load import LoadedModel

FEATURES = Features(
    {
        "id": Value("string"),
        "image": Image(),
        "prompt": Value("string"),
        "answer": Value("string"),
        "options": List(Value("string")),
    }
)


def export_checkpoint(loaded: LoadedModel, folder: Path) -> None:
    """Save the model, in fp32, and its processor as one folder."""
    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)


def eval_samples(name: str, n_items: int | None = None) -> list[Sample]:
    """The evaluation items of one dataset."""
    manifest = Catalogue().load(name)
    return load_samples(manifest, manifest.eval_split, n_items)


def train_samples(name: str, n_items: int | None = None) -> list[Sample]:
    """The training items of one dataset."""
    manifest = Catalogue().load(name)
    return load_samples(manifest, manifest.train_split, n_items)


def export_items(samples: Sequence[Sample], path: Path) -> None:
    """Write items of one picture each to a Parquet file, the pictures inside it as they are stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    disable_progress_bars()
    Dataset.from_list([_row(sample) for sample in samples], features=FEATURES).to_parquet(path)


def _row(sample: Sample) -> dict[str, Any]:
    (image,) = sample.images
    return {
        "id": sample.id,
        "image": {"bytes": read_image(image), "path": None},
        "prompt": sample.prompt,
        "answer": sample.answer,
        "options": list(sample.options),
    }
