"""`forgetbench data`: list, show and check datasets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from forgetbench.cli.completion import word_completions
from forgetbench.cli.shared import Cfg, Command, Json, Words, print_if, split

_CLIP = "openai/clip-vit-large-patch14"

Search = Annotated[
    list[str],
    typer.Argument(
        metavar="[WORD|KEY=VALUE]...",
        help="mine, embedded, public; a word; a pattern such as 'fashion_*'; Hydra overrides.",
        default_factory=list,
        show_default=False,
        autocompletion=word_completions,
    ),
]

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, show, check, audit and build datasets.")


@data.command("list", cls=Command)
def data_list(
    words: Search,
    show_all: Annotated[bool, typer.Option("--all", help="Curricula, controls and validation sets, too.")] = False,
    cfg: Cfg = False,
    as_json: Json = False,
) -> None:
    """List the datasets that can be named: all, a group (mine, embedded, public), or those that have a word."""
    from forgetbench import compose, config
    from forgetbench.commands import data_list

    sought, overrides = split(words)
    print_if(cfg, config.FinetuneConfig, overrides)
    data_list.data_list(compose.compose(config.FinetuneConfig, overrides), sought, show_all, as_json)


@data.command("show", cls=Command)
def data_show(words: Words, cfg: Cfg = False) -> None:
    """Show datasets: manifest, sizes, a few items; with model=..., as it gets them; with no name, the target."""
    from forgetbench import compose, config
    from forgetbench.commands import data_show

    names, overrides = split(words)
    print_if(cfg, config.FinetuneConfig, overrides)
    composed = compose.compose(config.FinetuneConfig, overrides)
    as_tokens = any(re.match(r"model[=.]", override) for override in overrides)
    data_show.data_show(composed, names or [stage.set for stage in composed.data.stages], as_tokens)


@data.command("check", cls=Command)
def data_check(
    words: Words,
    remote: Annotated[
        bool, typer.Option("--remote", help="Compare with the Hub: ids, revisions, splits, columns, sizes.")
    ] = False,
    cfg: Cfg = False,
    as_json: Json = False,
) -> None:
    """Verify datasets against their manifests: files, digests, sizes, items; with no name, all that are here."""
    from forgetbench import compose, config
    from forgetbench.commands import data_check

    names, overrides = split(words)
    print_if(cfg, config.FinetuneConfig, overrides)
    composed = compose.compose(config.FinetuneConfig, overrides)
    if remote:
        sound = data_check.check_remote(composed, names, as_json)
    else:
        sound = data_check.data_check(composed, names, as_json)
    if not sound:
        raise typer.Exit(1)


@data.command("audit", cls=Command)
def data_audit(words: Words, cfg: Cfg = False, as_json: Json = False) -> None:
    """Look for pictures and texts of evaluation sets in training sets; with no name, in all that are here."""
    from forgetbench import compose, config
    from forgetbench.commands import data_audit

    names, overrides = split(words)
    print_if(cfg, config.FinetuneConfig, overrides)
    if not data_audit.data_audit(compose.compose(config.FinetuneConfig, overrides), names, as_json):
        raise typer.Exit(1)


@data.command("build", cls=Command)
def data_build(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to build, such as imagenet_vqa.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the published pictures; by default below $FORGETBENCH_DOWNLOADS.")
    ] = None,
    clip: Annotated[str, typer.Option(help="CLIP checkpoint that finds hard negatives: Hub id or folder.")] = _CLIP,
    seed: Annotated[int, typer.Option(help="Draws the wrong options and their order.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Pictures in a CLIP pass.", min=1)] = 64,
    limit: Annotated[int | None, typer.Option(help="Only so many pictures of each split.", min=1)] = None,
) -> None:
    """Make multiple-choice questions of a classification set, with wrong options that CLIP takes for right."""
    from forgetbench.commands import data_build
    from forgetbench.data.build import Options

    data_build.data_build(name, Options(images, clip, seed, batch_size, limit))
