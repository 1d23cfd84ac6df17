"""The model card of an exported checkpoint: Markdown with the Hub's YAML head, and the 2x2 matrix.

`write_card` gathers what it says from the run; `model_card` words it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import ModelCardData, metadata_load

from forgetbench import __version__
from forgetbench.config import ModelConfig, Weights
from forgetbench.core.confidence import CONFIDENCE_TEXT
from forgetbench.core.streams import visible
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.pretrained import base_file
from forgetbench.runs.run import NOT_KNOWN, Run
from forgetbench.runs.stored import StoredRun
from forgetbench.terminal.wording import QUADRANT_NAMES, is_fraction, number

DASH = "-"
_LOAD_MODEL = """\
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained({title})
processor = AutoProcessor.from_pretrained({title})
"""
_LOAD_ADAPTER = """\
{imports}from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

base = AutoModelForImageTextToText.from_pretrained({base}{revision})
model = PeftModel.from_pretrained(base, {title})
processor = AutoProcessor.from_pretrained({base}{revision})
"""


@dataclass(frozen=True)
class CardFacts:
    """What a card says besides scores."""

    title: str
    base: str
    """`model.path` of the run."""
    base_on_hub: bool
    revision: str | None
    licence: str | None
    """The base's, as its own card declares it."""
    adapter: bool
    run: str
    checkpoint: str
    step: int
    method: str
    parts: str
    recipe: Mapping[str, Any]
    digests: Mapping[str, str]
    versions: Mapping[str, Any]
    max_pixels: int | None
    system_prompt: str | None


def write_card(run: Run, checkpoint: Checkpoint, to: Path, title: str, adapter: bool) -> None:
    """Write README.md.

    Args:
        run: the run.
        checkpoint: what was exported of it.
        to: the folder that holds it.
        title: the card's, the name that the folder will have.
        adapter: whether the folder holds an adapter and not a whole model.
    """
    config, model = run.config, run.model
    unknown = str(run.environment.get(NOT_KNOWN) or "").split(", ")
    recipe: Any = {
        "data": ", ".join(config.data.targets),
        "method": run.settings["method"],
        "seed": config.seed,
        **{key: value for key, value in run.settings["recipe"].items() if f"recipe.{key}" not in unknown},
    }
    if any(stage.recipe for stage in config.data.stages):
        recipe["stages"] = [{"set": stage.set, **stage.recipe} for stage in config.data.stages]
    digests = {
        "base": run.model_digest,
        "checkpoint": checkpoint.digest,
        **{f"training data, stage {number}": digest for number, digest in enumerate(run.data_digests, start=1)},
    }
    on_hub = model.weights is Weights.pretrained and "/" in model.path and not Path(model.path).exists()
    facts = CardFacts(
        title=title,
        base=model.path,
        base_on_hub=on_hub,
        revision=model.revision,
        licence=_licence(model),
        adapter=adapter,
        run=run.name,
        checkpoint=checkpoint.name,
        step=checkpoint.step,
        method=config.method.name,
        parts=run.parts,
        recipe=recipe,
        digests=digests,
        versions={**run.environment, "exported by forgetbench": __version__},
        max_pixels=model.max_pixels,
        system_prompt=model.system_prompt,
    )
    (to / "README.md").write_text(model_card(facts, _rows(run, checkpoint)), "utf-8")


def model_card(facts: CardFacts, matrix: pd.DataFrame) -> str:
    """README.md.

    Args:
        facts: of the checkpoint.
        matrix: its rows of matrix.csv; empty where it has not been scored.
    """
    sections = [
        f"---\n{_head(facts).to_yaml()}\n---\n\n# {_plain(facts.title)}",
        _what(facts),
        "## Load it\n\n" + _fenced("python", _loading(facts)) + _inputs(facts),
        "## What it learnt and forgot\n\n" + "\n\n".join(_tables(matrix)),
        "## How it was trained\n\n" + _fenced("yaml", yaml.safe_dump(dict(facts.recipe), sort_keys=False)),
        "## Digests and versions\n\n" + _pairs(facts.digests) + "\n\n" + _pairs(facts.versions),
    ]
    return "\n\n".join(sections) + "\n"


def _head(facts: CardFacts) -> ModelCardData:
    """What the Hub reads; a key that is not known is left out."""
    return ModelCardData(
        base_model=facts.base if facts.base_on_hub else None,
        base_model_relation=("adapter" if facts.adapter else "finetune") if facts.base_on_hub else None,
        library_name="peft" if facts.adapter else "transformers",
        pipeline_tag="image-text-to-text",
        license=facts.licence,
        tags=["forgetbench", "catastrophic-forgetting", facts.method],
    )


def _what(facts: CardFacts) -> str:
    trained = f"trained parts: {_plain(facts.parts)}; " if facts.parts else ""
    return (
        f"{'A PEFT adapter' if facts.adapter else 'A model'} from {_code(facts.base)}, step {facts.step} "
        f"({_code(facts.checkpoint)}) of the forgetbench run {_code(facts.run)}; {trained}method: "
        f"{_plain(facts.method)}. Licence: {_plain(facts.licence or 'that of the base')}."
    )


def _plain(text: str) -> str:
    """A text of any origin within a line of Markdown: no markup of HTML, no second line."""
    return html.escape(visible(" ".join(text.split())), quote=False)


def _code(text: object) -> str:
    """The same as it is, between backticks."""
    return f"`{visible(' '.join(str(text).split())).replace('`', chr(39))}`"


def _fenced(language: str, text: str) -> str:
    """A block of code, whose fence is longer than any in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}{fence}"


def _loading(facts: CardFacts) -> str:
    revision = f", revision={json.dumps(facts.revision)}" if facts.revision else ""
    ships = facts.base.startswith("embedded:")
    return (_LOAD_ADAPTER if facts.adapter else _LOAD_MODEL).format(
        title=json.dumps(facts.title),
        base=f"resolve_path({json.dumps(facts.base)})" if ships else json.dumps(facts.base),
        revision=revision,
        imports="from forgetbench.models.pretrained import resolve_path\n" if ships else "",
    )


def _inputs(facts: CardFacts) -> str:
    """What training and scoring did to inputs that no file here does."""
    said = ""
    if facts.max_pixels is not None:
        said += f"\n\nIn training and scoring, pictures with more than {facts.max_pixels} pixels were shrunk first."
    if facts.system_prompt is not None:
        said += "\n\nConversations without a system turn were given this one, which a caller must give, too:\n\n"
        said += "\n".join(f"> {_plain(line)}" for line in facts.system_prompt.splitlines())
    return said


def _tables(matrix: pd.DataFrame) -> Iterator[str]:
    """A 2x2 for every decoding and scale."""
    if matrix.empty:
        yield "This checkpoint was not scored: nothing is known of what it forgot."
        return
    yield (
        f"Each cell: score [{CONFIDENCE_TEXT} interval], then its change from the base, item by item. Whether text and "
        "images are in or out of distribution is relative to what the checkpoint was trained on."
    )
    for (decoding, metric), rows in matrix.groupby(["decoding", "metric"], sort=True):
        scale = 100 if is_fraction(str(metric)) else 1
        cells = {name: _cell(rows[rows["quadrant"] == name], scale) for name in QUADRANT_NAMES}
        yield (
            f"**{metric}{', %' if scale == 100 else ''}** ({decoding})\n\n"
            "| | ID image | OOD image |\n|---|---|---|\n"
            f"| **ID text** | {cells['id_text-id_image']} | {cells['id_text-ood_image']} |\n"
            f"| **OOD text** | {cells['ood_text-id_image']} | {cells['ood_text-ood_image']} |"
        )


def _cell(rows: pd.DataFrame, scale: int) -> str:
    """One quadrant; sets whose task was seen in the training mix stand apart."""
    lines = []
    for row in rows.sort_values("seen_in_mix").to_dict("records"):
        value = _with_interval(row, ("value", "ci_low", "ci_high"), scale, sign="")
        change = _with_interval(row, ("delta", "delta_ci_low", "delta_ci_high"), scale, sign="+")
        seen = " (seen in mix)" if row["seen_in_mix"] else ""
        lines.append(f"{value}<br>{change}{seen}")
    return "<br>".join(lines) or DASH


def _with_interval(row: Mapping[Any, Any], names: tuple[str, str, str], scale: int, sign: str) -> str:
    value, low, high = (number(row[name]) for name in names)
    if value is None:
        return DASH
    shown = f"{scale * value:{sign}.1f}"
    return shown if low is None or high is None else f"{shown} [{scale * low:.1f}, {scale * high:.1f}]"


def _pairs(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {key}: {DASH if value in (None, '') else _code(value)}" for key, value in values.items())


def _rows(run: Run, checkpoint: Checkpoint) -> pd.DataFrame:
    """The checkpoint's rows of matrix.csv; empty where it has not been scored."""
    matrix = StoredRun(run.folder).matrix
    if matrix.empty:
        return matrix
    rows: pd.DataFrame = matrix[matrix["checkpoint"] == checkpoint.name]
    return rows


def _licence(model: ModelConfig) -> str | None:
    """What the base's own card declares, if it is at hand."""
    card = base_file(model, "README.md")
    if card is None:
        return None
    try:
        licence = (metadata_load(card) or {}).get("license")
    except (ValueError, yaml.YAMLError):  # no text, no YAML, or another kind of it
        return None
    return licence if isinstance(licence, str) else None
