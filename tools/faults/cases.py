"""The commands that are interrupted, and what must be there before each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STEPS = ("recipe.steps=2", "recipe.batch_size=2", "recipe.checkpoints.log_spaced=null", "recipe.checkpoints.every=1")
_MATRIX = ("matrix.limit=4", "matrix.batch_size=2", "matrix.decodings=[choice]", "matrix.datasets=[fashion_naming]")

WARM_UP = (
    ("finetune", "name=run", "recipe=lora", "data.training=none"),
    ("eval-matrix", "run=outputs/run", *_MATRIX),
    ("score", "run=outputs/run", *_MATRIX),
)
"""Commands that read what those below read."""


def _nothing(_folder: Path) -> None:
    pass


@dataclass(frozen=True)
class Case:
    """One command."""

    command: Sequence[str]
    after: str | None = None
    """The command whose folder it starts in; None for a new folder."""
    make: Callable[[Path], object] = _nothing
    """Fills the new folder."""
    is_done: str = ""
    """Message, with exit code 2, if an earlier run finished all but its clean-up; empty if it then ends well."""
    is_listed: bool = True
    """False if it is there for others to start from."""


def _predictions(folder: Path) -> None:
    """Predictions that another program made."""
    from forgetbench.data.catalogue import Catalogue
    from forgetbench.data.sources import load_samples

    manifest = Catalogue([]).load("fashion_naming")
    samples = load_samples(manifest, manifest.eval_split)
    rows = [json.dumps({"id": sample.id, "text": sample.options[0]}) + "\n" for sample in samples]
    (folder / "made/step_000002").mkdir(parents=True)
    (folder / "made/step_000002/fashion_naming.jsonl").write_text("".join(rows))


def _pictures(folder: Path) -> None:
    """A published set, and a small CLIP."""
    from tests.support.build_sets import flowers, tiny_clip

    os.environ["FORGETBENCH_DOWNLOADS"] = "downloads"
    flowers(folder / "downloads/flowers102")
    tiny_clip(folder / "clip")


CASES: Mapping[str, Case] = {
    "finetune": Case(("finetune", "name=run", "recipe=full_low_lr", *_STEPS)),
    "guard": Case(
        (
            *("finetune", "name=run", "recipe=full_high_lr", "recipe.lr=3e-3", "recipe.warmup=0", *_STEPS),
            *("guard.max_loss=0", "guard.datasets=[digits_naming]", "guard.items=20"),
        )
    ),
    "lora": Case(("finetune", "name=run", "recipe=lora", *_STEPS)),
    "stages": Case(
        (
            "finetune",
            "name=run",
            "method=l2sp",
            "recipe=full_low_lr",
            "data.stages=[{set: fashion_naming, steps: 1}, {set: digits_naming, steps: 1}]",
            *_STEPS[1:],
        )
    ),
    "variants": Case(("finetune", "method=wise_ft", "run=outputs/run"), after="finetune"),
    "trained_variants": Case(("finetune", "name=run", "method=wise_ft", "recipe=full_low_lr", *_STEPS)),
    "eval_matrix": Case(("eval-matrix", "run=outputs/run", "matrix.steps=[2]", *_MATRIX), after="lora"),
    "eval_base": Case(("eval-matrix", "name=base", *_MATRIX)),
    "score": Case(("score", "run=outputs/run", "matrix.steps=[2]", "lm_eval=true", *_MATRIX), after="eval_matrix"),
    "score_predictions": Case(("score", "predictions=made", "name=made_elsewhere", *_MATRIX[3:]), make=_predictions),
    "report": Case(("report", "outputs/run"), after="eval_matrix"),
    "sweep": Case(
        ("sweep", "name=grid", "recipe=lora", "seed=0,1", *_STEPS, *_MATRIX, "matrix.representation.enabled=false")
    ),
    "sweep_report": Case(("report", "outputs/grid"), after="sweep"),
    "export": Case(("export", "outputs/run", "exported"), after="finetune", is_done="exists already"),
    "export_adapter": Case(
        ("export", "outputs/run", "from/checkpoint-2", "--adapter"), after="eval_matrix", is_done="exists already"
    ),
    "import": Case(("import", "from", "name=imported"), after="export_adapter"),
    "audit": Case(("data", "audit", "fashion_naming", "digits_naming")),
    "build": Case(("data", "build", "flowers102_vqa", "--clip", "clip", "--batch-size", "8"), make=_pictures),
}
