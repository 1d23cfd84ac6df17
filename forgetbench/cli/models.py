"""`forgetbench models`: a model's parts, and what training it needs."""

from __future__ import annotations

import typer

from forgetbench.cli.shared import Cfg, Command, Json, Words, print_if, split

models = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Show models, and plan the memory that training them needs."
)


@models.command("show", cls=Command)
def models_show(words: Words, cfg: Cfg = False, as_json: Json = False) -> None:
    """List a model's parts and their parameter counts; with no name, the embedded base."""
    from forgetbench import compose, config
    from forgetbench.commands import models_show

    names, overrides = split(words)
    choices = [[*overrides, f"model={name}"] for name in names] or [overrides]
    print_if(cfg, config.FinetuneConfig, choices[0])
    models_show.models_show([compose.compose(config.FinetuneConfig, choice) for choice in choices], as_json)


@models.command("plan", cls=Command)
def models_plan(words: Words, cfg: Cfg = False, as_json: Json = False) -> None:
    """Estimate the memory that a recipe needs, by what takes it, before any weight is loaded."""
    from forgetbench import compose, config
    from forgetbench.commands import models_plan

    names, overrides = split(words)
    choices = [[*overrides, f"model={name}"] for name in names] or [overrides]
    print_if(cfg, config.FinetuneConfig, choices[0])
    models_plan.models_plan([compose.compose(config.FinetuneConfig, choice) for choice in choices], as_json)
