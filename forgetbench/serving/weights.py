"""Export checkpoints in a form that a server loads, into a temporary folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from forgetbench.config import ModelConfig, Weights
from forgetbench.core.errors import UserError
from forgetbench.exchange.adapter import save_adapter
from forgetbench.exchange.whole_model import save_base, save_model
from forgetbench.models.checkpoint import Checkpoint
from forgetbench.models.held import HeldModel
from forgetbench.models.pretrained import resolve_path
from forgetbench.runs.run import Run
from forgetbench.serving.servers import Adapter

_BASE, _ADAPTERS, _WHOLE = "base", "adapters", "whole"


class Exports:
    """Exports of a run or a base for a server."""

    def __init__(self, folder: Path, run: Run | None, model: ModelConfig, held: HeldModel) -> None:
        """Write into an empty folder.

        Args:
            folder: on a disk that the server can read.
            run: the run to serve; None if only the base is served.
            model: configuration of the base.
            held: the base.
        """
        self._folder, self._run, self._model, self._held = folder, run, model, held
        self._base = ""

    def base(self) -> str:
        """Path of the base's weights: the published files, or files that are written here from the loaded model."""
        if not self._base and self._model.weights is Weights.pretrained:
            self._base = resolve_path(self._model.path)
        if not self._base:
            to = self._folder / _BASE
            to.mkdir()
            save_base(self._held.get()[0], self._model, to)
            self._base = str(to.absolute())
        return self._base

    def chat_template(self) -> str | None:
        """A file with the chat template that replaces that of the checkpoint; None if none is configured."""
        if self._model.chat_template is None:
            return None
        to = self._folder / "chat_template.jinja"
        to.write_text(str(self._held.get()[0].processor.chat_template), "utf-8")
        return str(to.absolute())

    def adapter(self, checkpoint: Checkpoint) -> Adapter | None:
        """A checkpoint as an adapter of the base; None if it is no adapter, or a server would apply only a part of it.

        vLLM silently ignores the modules of an adapter in vision tower and projector.
        """
        if self._run is None or not checkpoint.path:
            return None
        to = self._folder / _ADAPTERS / checkpoint.name
        if not to.exists():
            to.mkdir(parents=True)
            try:
                is_whole = not save_adapter(self._run, checkpoint, to)
            except UserError:
                is_whole = False
            if not is_whole:
                shutil.rmtree(to)
                return None
        settings = json.loads((to / "adapter_config.json").read_text("utf-8"))
        return Adapter(to.absolute(), max([int(settings["r"]), *map(int, settings.get("rank_pattern", {}).values())]))

    def whole(self, checkpoint: Checkpoint) -> str:
        """A checkpoint as full weights; those of other checkpoints are deleted, as each is as large as the model."""
        if not checkpoint.path:
            return self.base()
        assert self._run is not None
        to = self._folder / _WHOLE / checkpoint.name
        for other in to.parent.glob("*"):
            if other != to:
                shutil.rmtree(other)
        if not to.exists():
            to.mkdir(parents=True)
            save_model(self._run, checkpoint, to)
        return str(to.absolute())
