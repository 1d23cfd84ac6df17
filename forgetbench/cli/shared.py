"""What all commands share: how errors end, how help looks, arguments."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from forgetbench.api.process import command_line_call
from forgetbench.cli.completion import override_completions, word_completions
from forgetbench.cli.help import epilog
from forgetbench.core.errors import error_report

_DEBUG = "forgetbench.debug"
"""Whether tracebacks are wanted, in the context that all commands share."""

FIRST_STEPS = """
First steps:
  forgetbench doctor                       what works on this machine
  forgetbench sweep                        the demo: four recipes, in minutes
  forgetbench report outputs/demo --open   the demo's page

Every command has --help (-h): examples, keys, config groups.
"""


class Commands(TyperGroup):
    """Commands whose errors end in one plain message and an exit code; `--debug` shows the traceback before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--debug` wherever it stands: before the command's name, or among its words."""
        ctx.meta[_DEBUG] = "--debug" in args
        return super().parse_args(ctx, [word for word in args if word != "--debug"])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the first three commands below the list, as they are."""
        formatter.write(FIRST_STEPS)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with command_line_call():
                return super().invoke(ctx)
        except BaseException as error:
            if _ends_by_itself(error):
                raise
            if ctx.meta[_DEBUG]:
                traceback.print_exception(error)
            end = error_report(error)
            sys.stderr.write(f"{end.message}\n")
            raise typer.Exit(end.exit_code) from None


def _ends_by_itself(error: BaseException) -> bool:
    """Whether the error is no failure of a command, or Typer words it: wrong options, a pipe that nobody reads."""
    is_of_typer = type(error).__module__.partition(".")[0] in ("typer", "click")
    return is_of_typer or isinstance(error, SystemExit | GeneratorExit | BrokenPipeError)


class Command(TyperCommand):
    """A command whose help ends in its examples, keys and config groups."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the epilog as it is; Click would fill its lines into paragraphs."""
        formatter.write("\n" + epilog(ctx.command_path.partition(" ")[2]))


Overrides = Annotated[
    list[str],
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Hydra overrides.",
        default_factory=list,
        show_default=False,
        autocompletion=override_completions,
    ),
]
Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME|KEY=VALUE]...",
        help="Names, Hydra overrides.",
        default_factory=list,
        show_default=False,
        autocompletion=word_completions,
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a run or a sweep.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
Cfg = Annotated[bool, typer.Option("--cfg", help="Print the composed config and exit.")]


def print_if(cfg: bool, kind: type[Any], overrides: Sequence[str]) -> None:
    """Print the composed config and exit, if `--cfg` was given."""
    if cfg:
        from forgetbench import compose

        typer.echo(compose.composed_yaml(kind, overrides), nl=False)
        raise typer.Exit


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Bare names, and overrides."""
    return [word for word in words if "=" not in word], [word for word in words if "=" in word]
