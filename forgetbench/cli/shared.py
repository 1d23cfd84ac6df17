"""What all commands share: how errors end, how help looks, arguments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from forgetbench.cli.completion import override_completions, word_completions
from forgetbench.cli.help import epilog
from forgetbench.core.errors import UserError
from forgetbench.core.files import WRITE_ERRNOS

BAD_INPUT = 2
INTERRUPTED = 130


FIRST_STEPS = """
First steps:
  forgetbench doctor                       what works on this machine
  forgetbench sweep                        the demo: four recipes, in minutes
  forgetbench report outputs/demo --open   the demo's page

Every command has --help (-h): examples, keys, config groups.
"""


class Commands(TyperGroup):
    """Commands whose user errors end in one plain message and exit code 2; bugs keep their traceback."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the first three commands below the list, as they are."""
        formatter.write(FIRST_STEPS)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            sys.stderr.write(f"{error}\n")
            raise typer.Exit(BAD_INPUT) from None
        except OSError as error:
            if error.errno not in WRITE_ERRNOS:
                raise
            sys.stderr.write(
                f"{error}\nNothing finished is lost: make room, or choose another outputs=..., and run again.\n"
            )
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            sys.stderr.write("Interrupted. The same command resumes where it stopped.\n")
            raise typer.Exit(INTERRUPTED) from None


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
    """Print the composed config and end, if that is what was asked for."""
    if cfg:
        from forgetbench import compose

        typer.echo(compose.composed_yaml(kind, overrides), nl=False)
        raise typer.Exit


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Bare names, and overrides."""
    return [word for word in words if "=" not in word], [word for word in words if "=" in word]
