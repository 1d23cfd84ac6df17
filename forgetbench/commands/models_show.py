"""`forgetbench models show`: a model's parts and their modules."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from forgetbench.config import FinetuneConfig, ModelConfig
from forgetbench.core.part_words import is_word
from forgetbench.terminal.console import print_rows


def models_show(configs: Sequence[FinetuneConfig], as_json: bool) -> None:
    """Each model's parts, their modules and parameter counts, counted without reading its weights."""
    rows: list[dict[str, object]] = []
    table = Table(title="models", title_justify="left")
    for column in ("model", "part", "parameters", "linear layers"):
        table.add_column(column, justify="left" if column in ("model", "part") else "right")
    for config in configs:
        rows += _model_rows(table, config.model)
    print_rows(table, rows, as_json)


def _model_rows(table: Table, config: ModelConfig) -> list[dict[str, object]]:
    """Add a model's rows to the table, and return them."""
    from forgetbench.models.load import empty_model
    from forgetbench.models.parts import audit, language_layers, linear_layers, module_counts

    model = empty_model(config)
    counted = audit(model)
    layers, rows = language_layers(model), list[dict[str, object]]()
    modules = module_counts(model)
    for count in counted.parts:
        linear = len(linear_layers(model, count.part))
        table.add_row(config.path, count.part, f"{count.total:,}", str(linear))
        within = {module.part: module.total for module in modules if module.part.startswith(f"{count.part}.")}
        for word, total in within.items():
            of_word = str(len(linear_layers(model, word))) if is_word(word) else ""
            table.add_row(config.path, f"  {word}", f"{total:,}", of_word)
        row = {"model": config.path, "part": count.part, "parameters": count.total, "linear_layers": linear}
        rows.append(row | {"modules": within})
    table.add_row(config.path, "all", f"{counted.total:,}", f"{layers} language layers", end_section=True)
    return [*rows, {"model": config.path, "part": "all", "parameters": counted.total, "language_layers": layers}]
