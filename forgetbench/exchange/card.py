"""Gather what an exported checkpoint's model card says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import metadata_load

from forgetbench import __version__
from forgetbench.config import ModelConfig, Weights
from forgetbench.exchange.base_files import base_file
from forgetbench.exchange.model_card import CardFacts, model_card
from forgetbench.runs.address import NOT_KNOWN, Address
from forgetbench.runs.run_file import model_config, run_config
from forgetbench.runs.stored import StoredRun


def write_card(address: Address, to: Path, title: str, adapter: bool) -> None:
    """Write README.md.

    Args:
        address: what was exported.
        to: the folder that holds it.
        title: the card's, the name that the folder will have.
        adapter: whether the folder holds an adapter and not a whole model.
    """
    run, checkpoint = address.run, address.checkpoint
    config, model = run_config(run), model_config(run)
    unknown = str(run.environment.get(NOT_KNOWN) or "").split(", ")
    recipe: Any = {
        "data": ", ".join(config.data.targets),
        "method": run.config["method"],
        "seed": config.seed,
        **{key: value for key, value in run.config["recipe"].items() if f"recipe.{key}" not in unknown},
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
        run=address.folder.resolve().name,
        checkpoint=checkpoint.name,
        step=checkpoint.step,
        method=config.method.name,
        parts=run.parts,
        recipe=recipe,
        digests=digests,
        versions={**run.environment, "exported by forgetbench": __version__},
        max_pixels=model.max_pixels,
    )
    (to / "README.md").write_text(model_card(facts, _rows(address)), "utf-8")


def _rows(address: Address) -> pd.DataFrame:
    """The checkpoint's rows of matrix.csv; empty where it has not been scored."""
    matrix = StoredRun(address.folder).matrix
    if matrix.empty:
        return matrix
    name = "step_000000" if address.checkpoint.path is None else address.checkpoint.path.name
    found: pd.DataFrame = matrix[matrix["checkpoint"] == name]
    return found


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
