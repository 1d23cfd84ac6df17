"""`forgetbench models plan`: what training a model takes of a GPU's memory, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from rich.table import Table

from forgetbench.config import Dtype, FinetuneConfig, Optimiser, Quantisation, Sharding
from forgetbench.core.records import PARTS
from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.models.memory import (
    ANSWER_TOKENS,
    GIB,
    PROMPT_TOKENS,
    RESERVE,
    RESERVE_SHARE,
    estimate,
    setting_of,
    trained_parameters,
)
from forgetbench.models.sizes import Sizes
from forgetbench.terminal.console import print_rows

CARDS = (24, 80)
"""GiB of memory."""
DEVICES = (1, 8)
"""One alone; several that shard the model (`sharding=fsdp2`) where it can be sharded."""
_MEMORY_COLUMNS = ("weights", "gradients", "moments", "copies", "activations", "logits")


@dataclass(frozen=True)
class Case:
    """One way of training, as the table calls it."""

    name: str
    config: FinetuneConfig


def models_plan(configs: Sequence[FinetuneConfig], as_json: bool) -> None:
    """Memory on each GPU by what takes it: the recipe as given, changes that would help, and the usual recipes."""
    from forgetbench.training.footprint import read_sizes

    rows: list[dict[str, object]] = []
    for config in configs:
        sizes = read_sizes(config.model)
        table = _table(config, sizes)
        cases = [Case("as given", config), *memory_savings(config), *usual_recipes(config)]
        for case in cases:
            case_rows = [plan_row(case, sizes, devices) for devices in DEVICES]
            rows += case_rows
            _add_row(
                table, case_rows[0], case_rows[-1], end=case in (cases[0], cases[-len(list(usual_recipes(config))) - 1])
            )
        if not as_json:
            print_rows(table, [], as_json=False)
    if as_json:
        print_rows(Table(), rows, as_json=True)


def plan_row(case: Case, sizes: Sizes, devices: int) -> dict[str, object]:
    """One case on some devices, in GiB on each."""
    config, model = case.config, case.config.model
    is_unshardable = model.quantisation is Quantisation.nf4 or config.recipe.optimiser is Optimiser.adamw_8bit
    config = replace(config, sharding=Sharding.none if devices == 1 or is_unshardable else Sharding.fsdp2)
    setting = setting_of(config, devices)
    memory = estimate(sizes, setting)
    return {
        "model": model.path,
        "recipe": case.name,
        "devices": devices,
        "sharding": str(config.sharding),
        **{name: round(value / GIB, 3) for name, value in asdict(memory).items()},
        "total": round(memory.total / GIB, 3),
        **{f"fits_{card}": memory.fits(card) for card in CARDS},
        "sizes": "nominal" if sizes.nominal else "read",
        "trained": trained_parameters(sizes, setting),
    }


def memory_savings(config: FinetuneConfig) -> Iterator[Case]:
    """Changes that save memory: each by itself, then those of the recipe together."""
    recipe, model = config.recipe, config.model
    accumulation = {"gradient_accumulation": recipe.batch_size}
    steps: Mapping[str, Mapping[str, object]] = {
        f"gradient_accumulation={recipe.batch_size}": accumulation,
        "gradient_checkpointing=true": {"gradient_checkpointing": True},
        "optimiser=adamw_8bit": {"optimiser": Optimiser.adamw_8bit},
        "these three": {**accumulation, "gradient_checkpointing": True, "optimiser": Optimiser.adamw_8bit},
    }
    for name, changed in steps.items():
        changed_recipe = replace(recipe, **changed)  # type: ignore[arg-type]
        if changed_recipe != recipe:
            yield Case(name, replace(config, recipe=changed_recipe))
    if model.dtype is Dtype.fp32:
        yield Case("model.dtype=bf16", replace(config, model=replace(model, dtype=Dtype.bf16)))


def usual_recipes(config: FinetuneConfig) -> Iterator[Case]:
    """The usual recipes, on the same model and with the rest of the recipe as given."""
    lora = config.method if isinstance(config.method, LoRA) else LoRA()
    kinds: Mapping[str, tuple[Sequence[str], Method, Mapping[str, object]]] = {
        "full": (PARTS, Method(), {}),
        "language": (["language"], Method(), {}),
        "projector": (["projector"], Method(), {}),
        "lora": (["language"], replace(lora, parts=["language"], targets=None), {}),
        "qlora": (
            ["language"],
            replace(lora, parts=["language"], targets=None),
            {"dtype": Dtype.bf16, "quantisation": Quantisation.nf4},
        ),
    }
    for name, (parts, method, model_changes) in kinds.items():
        recipe = replace(config.recipe, parts=list(parts), language_last_layers=None)
        model = replace(config.model, quantisation=Quantisation.none)
        yield Case(name, replace(config, recipe=recipe, method=method, model=replace(model, **model_changes)))  # type: ignore[arg-type]


def _table(config: FinetuneConfig, sizes: Sizes) -> Table:
    model, micro_batch = config.model, config.recipe.batch_size // config.recipe.gradient_accumulation
    trained = trained_parameters(sizes, setting_of(config))
    counts = ", ".join(f"{count / 1e6:,.1f} million of {word}" for word, count in trained.items())
    source = "nominal sizes, as its configuration is not here" if sizes.nominal else "its configuration"
    caption = (
        f"GiB on one GPU, from {source}: {micro_batch} items in a pass, each {PROMPT_TOKENS + ANSWER_TOKENS} tokens "
        f"and a picture of {sizes.tokens}. Fits: cards of {CARDS[0]} or {CARDS[1]} GB, {RESERVE_SHARE:.0%} and "
        f"{RESERVE:g} GiB left free. 8 GPUs: each of them, under sharding=fsdp2; under DDP where weights or moments "
        "are packed."
    )
    if counts:
        caption += f" As given, about {counts} train with their own weights."
    if sizes.recurrent:
        caption += " Its linear attention keeps more than is counted here: measure a step."
    table = Table(title=f"{model.path}, held in {model.dtype}", title_justify="left", caption=caption)
    for column in ("recipe", *_MEMORY_COLUMNS, "total", "fits", "8 GPUs"):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    return table


def _add_row(table: Table, recipe_alone: Mapping[str, object], shared: Mapping[str, object], end: bool) -> None:
    cells = [f"{recipe_alone[name]:.1f}" for name in (*_MEMORY_COLUMNS, "total")]
    fits = " ".join(str(card) for card in CARDS if recipe_alone[f"fits_{card}"])
    table.add_row(str(recipe_alone["recipe"]), *cells, fits or "-", f"{shared['total']:.1f}", end_section=end)
