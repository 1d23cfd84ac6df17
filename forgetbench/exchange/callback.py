"""A callback for transformers' Trainer and what is built on it: scores the model that trains, and may stop it.

    trainer = Trainer(model, args, ..., callbacks=[ForgettingCallback(target="my_set", matrix=["digits_naming"])])

The model is scored before the first step, at every save or every n steps, and at the end, on a fixed draw of items.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from forgetbench.core.errors import UserError
from forgetbench.core.records import Precision
from forgetbench.exchange.live_config import NAME, Wish
from forgetbench.exchange.live_run import LiveRun
from forgetbench.runs.guard import ending_of
from forgetbench.terminal.console import note, say
from forgetbench.terminal.guard import ending_line

_AFTERWARDS = "Train without the callback, and score the checkpoints afterwards (`forgetbench import`)."


class ForgettingCallback(TrainerCallback):
    """Scores the live model of a Trainer over a matrix, and stops it if a budget of forgetting is broken."""

    def __init__(
        self,
        target: str,
        matrix: Sequence[str],
        items: int = 200,
        budget: float | None = None,
        *,
        every: int | None = None,
        name: str | None = None,
        outputs: str | os.PathLike[str] = "outputs",
        manifests: Sequence[str | os.PathLike[str]] = ("data_manifests",),
        model: str | Mapping[str, Any] | None = None,
        precision: str | None = None,
        batch_size: int = 64,
    ) -> None:
        """Check what can be checked without a model.

        Args:
            target: the dataset that is trained on, as a manifest describes it; quadrants are relative to it.
            matrix: the datasets that are scored.
            items: asked at a look, split evenly over the datasets.
            budget: points of accuracy that each quadrant but the target's may lose; None: nothing is stopped.
            every: steps between looks; None: a look at every save.
            name: the run's folder; None: named like the trainer's output_dir.
            outputs: the folder that it is in.
            manifests: folders of your own manifests.
            model: folder or Hub id of the untouched base, or keys of `model.`; None: where the model was loaded from.
            precision: fp32 or bf16; None: as the weights are held.
            batch_size: items in a forward pass.

        Raises:
            UserError: a dataset or a number does not fit.
        """
        if precision not in (None, *(choice.value for choice in Precision)):
            raise UserError(f"{NAME}(precision={precision!r}): give 'fp32' or 'bf16', or leave it out.")
        self._wish = Wish(
            target=target,
            matrix=matrix if isinstance(matrix, str) else tuple(matrix),
            items=items,
            budget=budget,
            every=every,
            name=name,
            outputs=os.fspath(outputs),
            manifests=[os.fspath(folder) for folder in manifests],
            model=model,
            precision=Precision(precision) if precision else None,
            batch_size=batch_size,
        )
        self._wish.check()
        self._run: LiveRun | None = None
        self._last = -1

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Refuse a trainer that cannot be looked at, before it prepares anything."""
        _check_trainer(args)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Score the base, or take up the run that the trainer resumes."""
        _check_trainer(args)
        self._run = LiveRun(self._wish, args, state, kwargs["model"])
        self._last = state.global_step
        if state.global_step:
            control.should_training_stop |= self._run.was_stopped
            return control
        return self._look(args, state, control, kwargs["model"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Score every n steps, and at the last one."""
        every = self._wish.every
        is_due = every is not None and state.global_step % every == 0
        if is_due or state.global_step >= state.max_steps:
            return self._look(args, state, control, kwargs["model"])
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Score what was saved."""
        return control if self._wish.every else self._look(args, state, control, kwargs["model"])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Score the last step of a training that something else ends early."""
        return self._look(args, state, control, kwargs["model"]) if control.should_training_stop else control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say where the run is, what looking took, and how a budget ended it."""
        if self._run is None or not state.is_world_process_zero:
            return
        folder = self._run.folder
        if ended := ending_of(folder):
            say(ending_line(str(folder), ended))
        say(f"{folder}: scoring took {self._run.seconds:.1f} s; `forgetbench report {folder}` makes the page.")

    def _look(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any
    ) -> TrainerControl:
        """Score once a step, and log what was found."""
        if self._run is None or (state.global_step == self._last and state.global_step):
            return control
        is_last = state.global_step >= state.max_steps or control.should_training_stop
        if not self._run.has_room(is_last):
            return control
        self._last = state.global_step
        seen = self._run.look(model, state.global_step, state.log_history, shows=is_last)
        _log(args, state, control, seen.numbers)
        if seen.is_broken:
            control.should_training_stop = True
        return control


def _check_trainer(args: TrainingArguments) -> None:
    """Refuse ways of sharing a model that nobody has looked at.

    Raises:
        UserError: names it.
    """
    plugin = getattr(args, "deepspeed_plugin", None)
    if args.deepspeed or plugin or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise UserError(f"{NAME} was never run with DeepSpeed, so it is refused. Use FSDP2 or DDP. {_AFTERWARDS}")
    if _fsdp_settings(args).get("xla"):
        raise UserError(f"{NAME} was never run with FSDP on XLA devices, so it is refused. {_AFTERWARDS}")
    if _fsdp_version(args) == 1:
        raise UserError(
            f"{NAME} does not look at a model that FSDP1 has cut up, where the tensors of a layer become one. Use "
            "FSDP2 (fsdp_version: 2, in the Trainer's fsdp_config or accelerate's configuration), or DDP. "
            + _AFTERWARDS
        )


def _fsdp_settings(args: TrainingArguments) -> dict[str, Any]:
    """The trainer's own, read already if a file was named."""
    return args.fsdp_config if args.fsdp and isinstance(args.fsdp_config, dict) else {}


def _fsdp_version(args: TrainingArguments) -> int | None:
    """Which FSDP the trainer or accelerate is set to; None without."""
    if args.fsdp:
        return int(_fsdp_settings(args).get("version", 2))
    is_on = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return int(os.environ.get("FSDP_VERSION", "1")) if is_on else None


def _log(args: TrainingArguments, state: TrainerState, control: TrainerControl, numbers: Mapping[str, float]) -> None:
    """Log as `Trainer.log` does, so that everything that the trainer reports to gets the numbers."""
    row = {**numbers, **({} if state.epoch is None else {"epoch": state.epoch})}
    state.log_history.append({**row, "step": state.global_step})
    handler = _handler()
    if handler is None:
        note(f"{NAME}: no trainer's callbacks were found around it, so the scores are in the run folder alone.")
        return
    should_log = control.should_log
    handler.on_log(args, state, control, row)
    control.should_log = should_log  # the trainer's own numbers are still to come


def _handler() -> CallbackHandler | None:
    """What calls this callback. A trainer gives its callbacks no way to log but to look at who called."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        caller = frame.f_locals.get("self")
        if isinstance(caller, CallbackHandler):
            return caller
    return None
