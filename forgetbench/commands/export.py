"""Write a checkpoint as a folder that transformers or peft loads, with a model card that holds its matrix."""

from __future__ import annotations

from pathlib import Path

from forgetbench.core.errors import UserError
from forgetbench.core.files import replacing
from forgetbench.core.locks import only_command
from forgetbench.core.processes import require_single_process
from forgetbench.exchange.adapter import save_adapter
from forgetbench.exchange.model_card import write_card
from forgetbench.exchange.whole_model import save_model
from forgetbench.runs.address import resolve
from forgetbench.terminal.console import say


def export(path: Path, to: Path, adapter: bool, base: str = "") -> None:
    """Write one checkpoint; the folder is there whole or not at all.

    Args:
        path: a run's folder (its last checkpoint), or a checkpoint in it.
        to: the new folder.
        adapter: write what was added to the base, instead of the whole model.
        base: where the run's base is now, if it has moved.

    Raises:
        UserError: `to` exists, the checkpoint does not, or the method's result cannot be exported this way.
    """
    require_single_process("export")
    with only_command(to):
        if to.exists() or to.is_symlink():
            raise UserError(f"{to} exists already; name a new folder, or delete that one.")
        _export(path, to, adapter, base)


def _export(path: Path, to: Path, adapter: bool, base: str) -> None:
    address = resolve(path)
    run, checkpoint = address.run(), address.saved()
    run_with_base = run.with_base_at(base)
    beyond_language: list[str] = []
    with replacing(to) as temporary:
        temporary.mkdir()
        if adapter:
            beyond_language = save_adapter(run_with_base, checkpoint, temporary)
        else:
            save_model(run_with_base, checkpoint, temporary)
        write_card(run, checkpoint, temporary, to.resolve().name, adapter)
    kind = "PEFT adapter" if adapter else "model"
    say(f"{to}: {kind} of {run.name}, {checkpoint.name}; README.md says how to load it.")
    if beyond_language:
        parts = " and ".join(beyond_language)
        say(
            f"It also changes {parts}. vLLM applies what adapters add to the language part, passes over the rest "
            "without a word unless it is started with --enable-tower-connector-lora, and refuses modules that trained "
            "in full: docs/interoperability.md."
        )
