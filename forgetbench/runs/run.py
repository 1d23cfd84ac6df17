"""A run: its folder and the typed content of its run.json. Different runs never share a folder."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from forgetbench import __version__
from forgetbench.config import FinetuneConfig, ModelConfig, RecipeConfig, stage_recipes
from forgetbench.config.result import deciding
from forgetbench.core.errors import UserError
from forgetbench.core.files import read_json, write_json
from forgetbench.core.nested import differing_keys
from forgetbench.core.paths import PACKAGE
from forgetbench.core.references import literal
from forgetbench.methods.base import Method
from forgetbench.methods.registry import SCHEMAS
from forgetbench.models.checkpoint import Checkpoint, chosen_steps, list_checkpoints
from forgetbench.training.data_digest import DIGEST_VERSION

if TYPE_CHECKING:
    from forgetbench.models.load import LoadedModel
    from forgetbench.models.parts import PartCount, TrainableAudit
    from forgetbench.training.plan import Stage

FILE = "run.json"
TRUST = "FORGETBENCH_TRUST_REMOTE_CODE"
"""Environment variable: run the code of a model whose run.json asks for it."""
IMPORTED = "imported from"
"""Key in `environment` of an imported run: the folder of the other trainer's checkpoints."""
NOT_KNOWN = "not known"
"""Key in `environment` of an imported run: settings that the other trainer does not record."""
TRAINED_BY = "trained by"
"""Key in `environment` of a run that another trainer trained with our callback: the callback's arguments."""
DEFINITION_CHANGED = (
    "this run is of an earlier version of forgetbench, whose digest of the training data was over the names of "
    "pictures instead of their bytes. The definition has changed, not necessarily the data: the run can be scored and "
    "reported on as before, but to train on these data again, or go on, give a name of its own (name=...)."
)
_MOVED = "If the base is elsewhere now, say where, every time: model.path=<folder> beside run=, or export --model-path."
_BY_CONFIG = {"config", "method_class"}
"""Keys of run.json from which the typed configuration is built."""
_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "pillow", "numpy")


@dataclass(frozen=True)
class Run:
    """A training run, from which commands, tables and the report derive everything else."""

    folder: Path
    config: FinetuneConfig
    """The whole configuration, with the method; for a point of a sweep, without the settings of scoring."""
    data_digests: Sequence[str]
    """Digest of the training data of each stage."""
    labels: Sequence[Sequence[str]]
    """The labels that each stage trains; empty if its answers are open-ended."""
    model_digest: str
    """Digest of the base model."""
    audit: Mapping[str, Any]
    """Number of parameters per part, number of trained parameters, and their names."""
    environment: Mapping[str, Any]
    """Versions of libraries, the code's revision, the device."""
    data_digest_version: int = 1
    """Version of the definition of `data_digests` (`training.data_digest`); 1 in runs without this key."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def outputs(self) -> Path:
        """The folder of outputs that contains the run; for a point of a sweep, two folders up."""
        folder = self.folder.resolve()
        is_point = folder.name != self.config.name and folder.parent.name == self.config.name
        return folder.parents[1] if is_point else folder.parent

    @property
    def model(self) -> ModelConfig:
        """The configuration of the base model."""
        return self.config.model

    @property
    def parts(self) -> str:
        """The trained parts, such as `projector+language`."""
        return str(self.audit["label"])

    @cached_property
    def recipes(self) -> list[RecipeConfig]:
        """The recipe of every trained stage; jointly trained tasks are a single stage."""
        return stage_recipes(self.config.recipe, self.config.data)

    @property
    def strategy(self) -> str:
        """The name of the continual-learning strategy."""
        return self.config.strategy or self.config.method.name

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration as nested settings, as in run.json."""
        return settings_of(self.config)

    @property
    def content(self) -> dict[str, Any]:
        """The content of run.json."""
        return {
            "config": self.settings,
            "method_class": type(self.config.method).__name__,
            "data_digests": list(self.data_digests),
            "data_digest_version": self.data_digest_version,
            "labels": self.labels,
            "model_digest": self.model_digest,
            "audit": self.audit,
            "environment": self.environment,
        }

    @property
    def meta(self) -> dict[str, Any]:
        """The content of run.json that each checkpoint's meta.json repeats."""
        return {**self.content, "method": self.settings["method"]}

    def checkpoints(self, steps: Collection[int] = ()) -> list[Checkpoint]:
        """The base and the checkpoints at the given steps, with variants; all checkpoints if no steps are given.

        Raises:
            UserError: a step has no checkpoint.
        """
        checkpoints = list_checkpoints(self.folder)
        return chosen_steps(checkpoints, {0, *steps}, "matrix.steps", self.folder) if steps else checkpoints

    def write(self) -> None:
        """Write run.json."""
        write_json(self.folder / FILE, self.content)

    def with_base_at(self, path: str) -> Run:
        """The same run with another path of its base model; an empty path changes nothing."""
        return replace(self, config=replace(self.config, model=replace(self.model, path=path))) if path else self

    def load_base(self, trusted: bool = False) -> LoadedModel:
        """Load the base model.

        Args:
            trusted: whether the user allowed this command to run the model's code; run.json may be untrusted.

        Raises:
            UserError: the model cannot be loaded, its weights are not those that the run was trained from, or it
                requires running code.
        """
        from forgetbench.models.load import load_model

        if self.model.trust_remote_code and not (trusted or os.environ.get(TRUST)):
            raise UserError(
                f"{self.folder / FILE} asks to run Python code that comes with model.path={self.model.path} "
                f"(trust_remote_code). If you trust both, set {TRUST}=1 for this command."
            )
        try:
            loaded = load_model(self.model, self.config.seed)
        except UserError as error:
            raise UserError(f"{error}\nThe base of {self.folder} is looked for there. {_MOVED}") from error
        if loaded.digest != self.model_digest:
            raise UserError(
                f"{self.folder}: model.path={self.model.path} does not hold the weights and settings that it was "
                f"trained from. {_MOVED}"
            )
        return loaded

    def check_data(self, data_digests: Sequence[str]) -> None:
        """Refuse training data that differ from those of this run, or that cannot be compared.

        Args:
            data_digests: digest of the current data of each stage.

        Raises:
            UserError: the data differ, or the run has digests of another version.
        """
        if self.data_digest_version != DIGEST_VERSION:
            raise UserError(f"{self.folder}: {DEFINITION_CHANGED}")
        if list(self.data_digests) != list(data_digests):
            raise UserError(f"{self.folder}: its training data are no longer those it was trained on.")

    def attach_method(self, model: Any) -> None:
        """Attach the run's method to a model with the base weights, initialised as for training."""
        import torch

        torch.manual_seed(self.config.seed)
        self.config.method.attach(model, len(self.config.data.targets))


def settings_of(config: FinetuneConfig) -> dict[str, Any]:
    """The configuration of training as nested settings; for a sweep's point, without the settings of scoring.

    Without a guard the key `guard` is left out, so that runs compare equal to runs of versions without guards.
    """
    trains = {field.name for field in fields(FinetuneConfig)} - (set() if config.guard.is_on else {"guard"})
    container = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items() if key in trains}


def start_run(
    folder: Path, config: FinetuneConfig, stages: Sequence[Stage], loaded: LoadedModel, audit: TrainableAudit
) -> Run:
    """Claim a folder for a run, or continue with the same run if it is already in the folder.

    Raises:
        UserError: another run is in the folder.
    """
    run = Run(
        folder=folder,
        config=config,
        data_digests=[stage.data_digest for stage in stages],
        labels=[stage.labels for stage in stages],
        model_digest=loaded.digest,
        audit={
            "label": audit.label,
            "trainable": audit.trainable,
            "total": audit.total,
            "parts": _counts(audit.parts),
            **({"words": _counts(audit.words)} if audit.words else {}),
            "names": list(audit.names),
        },
        environment=environment(),
        data_digest_version=DIGEST_VERSION,
    )
    check_same(folder, config, run.data_digests, loaded.digest)
    if not (folder / FILE).is_file():
        run.write()
    return run


def _counts(counted: Sequence[PartCount]) -> dict[str, dict[str, int]]:
    return {count.part: {"total": count.total, "trainable": count.trainable} for count in counted}


def check_same(
    folder: Path, config: FinetuneConfig, data_digests: Sequence[str], model_digest: str | None = None
) -> None:
    """Refuse a folder that holds another run.

    Args:
        folder: a folder that may hold a run.
        config: the new run's configuration.
        data_digests: digest of the training data of each stage.
        model_digest: None if the model is not loaded yet.

    Raises:
        UserError: names the differences.
    """
    if not (folder / FILE).is_file():
        return
    old = read_run(folder)
    old_settings, new_settings = (
        deciding(FinetuneConfig, settings) for settings in (old.settings, settings_of(config))
    )
    differences = sorted(differing_keys(old_settings, new_settings))
    is_comparable = old.data_digest_version == DIGEST_VERSION
    if is_comparable and list(old.data_digests) != list(data_digests):
        differences.append("the training data")
    if model_digest not in (None, old.model_digest):
        differences.append("the model's weights")
    if differences:
        raise UserError(
            f"{folder} holds another run; it differs in: {', '.join(differences)}.\n"
            "Give this one a name of its own (name=...), or delete the folder."
        )
    if not is_comparable:
        raise UserError(f"{folder}: {DEFINITION_CHANGED}")


def release(folder: Path) -> None:
    """Free the folder of a run that failed before its first step, so that the corrected run can use its name."""
    log = folder / "train.csv"
    is_begun = log.is_file() and len(log.read_text("utf-8").splitlines()) > 1
    if not is_begun and not (folder / "checkpoints").exists():
        log.unlink(missing_ok=True)
        (folder / FILE).unlink(missing_ok=True)


def read_run(folder: Path) -> Run:
    """Read run.json.

    Raises:
        UserError: the folder holds no run.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no run (no run.json); train one with `forgetbench finetune name=...`.")
    content = read_json(path)
    try:
        return _read(folder, content)
    except (TypeError, ValueError, KeyError, AttributeError, StopIteration, OmegaConfBaseException) as error:
        needed = {field.name for field in fields(Run)} - {"folder", "data_digest_version"} | _BY_CONFIG
        missing_keys = needed - set(content if isinstance(content, dict) else ())
        cause = f"it lacks {', '.join(sorted(missing_keys))}" if missing_keys else str(error).strip().split("\n")[0]
        raise UserError(
            f"{path} is not a run of this version of forgetbench ({cause}). Move {folder} away, or train it again "
            "under another name."
        ) from error


def _read(folder: Path, content: dict[str, Any]) -> Run:
    """Build a run from the content of run.json, and check the types of its values."""
    if unknown := set(content) - {field.name for field in fields(Run)} - _BY_CONFIG or {"folder"} & set(content):
        raise ValueError(f"unknown key {', '.join(sorted(unknown))}")
    config = _typed_config(content["config"], content["method_class"])
    run = Run(folder, config, **{key: value for key, value in content.items() if key not in _BY_CONFIG})
    if missing_keys := {"label", "trainable", "total", "parts"} - set(run.audit):
        raise ValueError(f"audit lacks {', '.join(sorted(missing_keys))}")
    checks = {
        "config.data.stages": len(run.recipes) > 0,  # also checks that each stage's recipe composes
        "config.recipe.mix": all(recipe.mix.weights is not None for recipe in run.recipes),  # names with weights
        "audit": isinstance(run.audit["label"], str) and isinstance(run.audit["parts"], dict),
        "environment": isinstance(run.environment, dict),
        "data_digests": isinstance(run.data_digests, list),
        "labels": isinstance(run.labels, list)
        and all(isinstance(stage_labels, list) for stage_labels in run.labels)
        and run.labels,
        "model_digest": isinstance(run.model_digest, str),
        "data_digest_version": type(run.data_digest_version) is int,
    }
    if invalid := [key for key, is_sound in checks.items() if not is_sound]:
        raise ValueError(f"{', '.join(invalid)} of another kind")
    return run


def _typed_config(settings: Any, method_class: str) -> FinetuneConfig:
    """The typed configuration, with the method's class; keys of newer versions get their defaults."""
    if not isinstance(settings, dict) or not isinstance(settings.get("method", {}), dict):
        raise ValueError("config or config.method of another kind")
    if missing := [name for name in ("name", "model", "data", "recipe", "method") if name not in settings]:
        raise ValueError(f"config lacks {', '.join(missing)}")
    schema = OmegaConf.structured(FinetuneConfig)
    schema.method = OmegaConf.structured(
        next(schema_class for schema_class in SCHEMAS.values() if schema_class.__name__ == method_class)
    )
    config = OmegaConf.to_object(OmegaConf.merge(schema, literal(settings)))
    assert isinstance(config, FinetuneConfig)
    assert isinstance(config.method, Method)
    return config


def environment() -> dict[str, Any]:
    """Versions of libraries, the code's revision, the device."""
    import torch

    versions = {name: version(name) for name in _LIBRARIES}
    return {
        **versions,
        "forgetbench": __version__,
        "python": platform.python_version(),
        "git_revision": _git_revision(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
    }


def _git_revision() -> str | None:
    """Revision of the checkout that this package runs from, with `+` if it has changes; None outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=PACKAGE, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != PACKAGE.parent:
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
