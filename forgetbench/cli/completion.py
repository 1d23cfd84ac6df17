"""What a shell completes after `forgetbench <command>`: names, keys, and after `=` the options of a config group.

Read from file names and sources, as `--help` is: a shell asks at every Tab.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import typer

from forgetbench.core.options import manifest_names, options


def override_completions(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Overrides of the command that is being typed."""
    return completions(_command(ctx), _previous_words(ctx, args), incomplete)


def word_completions(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Overrides, and the names that the command takes: models or datasets."""
    command = _command(ctx)
    names = options("model") if command.startswith("models") else manifest_names()
    previous = _previous_words(ctx, args)
    matches = [] if "=" in (incomplete, *previous[-1:]) else [name for name in names if name.startswith(incomplete)]
    return [*matches, *completions(command, previous, incomplete)]


def completions(command: str, args: Sequence[str], incomplete: str) -> list[str]:
    """What the last word may become.

    Args:
        command: such as `data show`.
        args: the words before the last one; bash passes `=` as a separate word.
        incomplete: the word as far as it is typed.
    """
    if incomplete == "=" and args:
        return _values(command, args[-1], "")
    if len(args) > 1 and args[-1] == "=":
        return _values(command, args[-2], incomplete)
    key, equals, value = incomplete.partition("=")
    if equals:
        return [f"{key}={option}" for option in _values(command, key, value)]
    return _starting(_keys(command), incomplete)


def _keys(command: str) -> list[str]:
    from forgetbench.cli.help import COMMAND_GROUPS, LISTINGS
    from forgetbench.cli.keys import keys

    groups = COMMAND_GROUPS.get(command, ("data",))
    if command not in LISTINGS:
        return []
    paths = [key.path for key in keys(LISTINGS[command].config) if "[]" not in key.path]
    return [f"{name}=" for name in dict.fromkeys([*groups, *paths])]


def _values(command: str, key: str, typed: str) -> list[str]:
    """Options of a config group, members of an enum, true and false."""
    from forgetbench.cli.help import COMMAND_GROUPS, LISTINGS
    from forgetbench.cli.keys import keys

    if key in COMMAND_GROUPS.get(command, ("data",)):
        return _starting(options(key), typed)
    known = (
        {config_key.path: config_key.members for config_key in keys(LISTINGS[command].config)}
        if command in LISTINGS
        else {}
    )
    return _starting(known.get(key, ()), typed)


def _starting(words: Iterable[str], typed: str) -> list[str]:
    return [word for word in words if word.startswith(typed)]


def _previous_words(ctx: typer.Context, args: list[str]) -> list[str]:
    """The words before the last one; Typer gives them parsed."""
    return args or list(ctx.params.get("overrides") or ctx.params.get("words") or ())


def _command(ctx: typer.Context) -> str:
    return ctx.command_path.partition(" ")[2]
