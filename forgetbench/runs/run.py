"""A run: its folder and, typed, what its run.json says. Two different runs never share a folder."""

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
"""In a run's `environment`: the folder of another trainer's checkpoints that it was made of."""
NOT_KNOWN = "not known"
"""In the `environment` of an imported run: the settings that the other trainer did not tell."""
TRAINED_BY = "trained by"
"""In the `environment` of a run that another trainer trained, with ours looking on: how it was asked to."""
DEFINITION_CHANGED = (
    "this run is of an earlier version of forgetbench, whose digest of the training data was over the names of "
    "pictures instead of their bytes. The definition has changed, not necessarily the data: the run can be scored and "
    "reported on as before, but to train on these data again, or go on, give a name of its own (name=...)."
)
_MOVED = "If the base is elsewhere now, say where, every time: model.path=<folder> beside run=, or export --model-path."
_BY_CONFIG = {"config", "method_class"}
"""Keys of run.json that the typed configuration is made of."""
_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "pillow", "numpy")


@dataclass(frozen=True)
class Run:
    """One run. Whatever reads a run reads it from here; commands, tables and the report derive the rest."""

    folder: Path
    config: FinetuneConfig
    """The whole configuration, method included; of a point of a sweep, what is scored is left out."""
    data_digests: Sequence[str]
    """One per stage."""
    labels: Sequence[Sequence[str]]
    """The labels that each stage trains; none where its answers are open-ended."""
    model_digest: str
    """Of the model that training started from."""
    audit: Mapping[str, Any]
    """Parameters per part, how many train, and their names."""
    environment: Mapping[str, Any]
    """Versions of libraries, the code's revision, the device."""
    data_digest_version: int = 1
    """What `data_digests` are over (`training.data_digest`); 1 in runs that do not say."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def outputs(self) -> Path:
        """The folder of outputs that it was written to: two folders up for a point of a sweep."""
        folder = self.folder.resolve()
        is_point = folder.name != self.config.name and folder.parent.name == self.config.name
        return folder.parents[1] if is_point else folder.parent

    @property
    def model(self) -> ModelConfig:
        """The model that training started from."""
        return self.config.model

    @property
    def parts(self) -> str:
        """Parts that really trained, such as `projector+language`."""
        return str(self.audit["label"])

    @cached_property
    def recipes(self) -> list[RecipeConfig]:
        """The recipe of every stage that was trained as such; stages that are trained jointly have one."""
        return stage_recipes(self.config.recipe, self.config.data)

    @property
    def strategy(self) -> str:
        """What this way of continual learning is called."""
        return self.config.strategy or self.config.method.name

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration as nested settings, as run.json holds it."""
        return settings_of(self.config)

    @property
    def content(self) -> dict[str, Any]:
        """What run.json holds."""
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
        """What every checkpoint's meta.json repeats, so that it can stand alone."""
        return {**self.content, "method": self.settings["method"]}

    def checkpoints(self, steps: Collection[int] = ()) -> list[Checkpoint]:
        """Its base and the checkpoints at the given steps, variants included; all of them if none is given.

        Raises:
            UserError: there is none at a step.
        """
        every = list_checkpoints(self.folder)
        return chosen_steps(every, {0, *steps}, "matrix.steps", self.folder) if steps else every

    def write(self) -> None:
        """Write run.json."""
        write_json(self.folder / FILE, self.content)

    def with_base_at(self, path: str) -> Run:
        """The same run, its base to be loaded from another place; with an empty path, from where it was."""
        return replace(self, config=replace(self.config, model=replace(self.model, path=path))) if path else self

    def load_base(self, trusted: bool = False) -> LoadedModel:
        """The model that training started from, loaded.

        Args:
            trusted: whether this command was told to run the model's own code; run.json may be somebody else's.

        Raises:
            UserError: it cannot be loaded, its weights are not those that the run was trained from, or it would run
                code.
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
        """Refuse training data that are not, or cannot be told to be, those of this run.

        Args:
            data_digests: of the data as they are, one per stage.

        Raises:
            UserError: says which of the two.
        """
        if self.data_digest_version != DIGEST_VERSION:
            raise UserError(f"{self.folder}: {DEFINITION_CHANGED}")
        if list(self.data_digests) != list(data_digests):
            raise UserError(f"{self.folder}: its training data are no longer those it was trained on.")

    def attach_method(self, model: Any) -> None:
        """Give a model on its base weights what the method adds to it, initialised as it was for training."""
        import torch

        torch.manual_seed(self.config.seed)
        self.config.method.attach(model, len(self.config.data.targets))


def settings_of(config: FinetuneConfig) -> dict[str, Any]:
    """The configuration of a training as nested settings: of a sweep's point, less what is scored and by what.

    Without a budget nothing is said of the guard, so that such runs are what they were before there was one.
    """
    trains = {field.name for field in fields(FinetuneConfig)} - (set() if config.guard.is_on else {"guard"})
    container = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items() if key in trains}


def start_run(
    folder: Path, config: FinetuneConfig, stages: Sequence[Stage], loaded: LoadedModel, audit: TrainableAudit
) -> Run:
    """Claim a folder for a run, or recognise the run that is already in it.

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
        folder: may hold a run or nothing.
        config: of the run that it is to hold.
        data_digests: one per stage.
        model_digest: None as long as the model is not loaded.

    Raises:
        UserError: names what differs.
    """
    if not (folder / FILE).is_file():
        return
    old = read_run(folder)
    ours, theirs = (deciding(FinetuneConfig, one) for one in (old.settings, settings_of(config)))
    found = sorted(differing_keys(ours, theirs))
    is_comparable = old.data_digest_version == DIGEST_VERSION
    if is_comparable and list(old.data_digests) != list(data_digests):
        found.append("the training data")
    if model_digest not in (None, old.model_digest):
        found.append("the model's weights")
    if found:
        raise UserError(
            f"{folder} holds another run; it differs in: {', '.join(found)}.\n"
            "Give this one a name of its own (name=...), or delete the folder."
        )
    if not is_comparable:
        raise UserError(f"{folder}: {DEFINITION_CHANGED}")


def release(folder: Path) -> None:
    """Free the folder of a run that was refused before its first step, so that the corrected one may have its name."""
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
        lacking = needed - set(content if isinstance(content, dict) else ())
        cause = f"it lacks {', '.join(sorted(lacking))}" if lacking else str(error).strip().split("\n")[0]
        raise UserError(
            f"{path} is not a run of this version of forgetbench ({cause}). Move {folder} away, or train it again "
            "under another name."
        ) from error


def _read(folder: Path, content: dict[str, Any]) -> Run:
    """What run.json holds, each part of the kind that its readers count on."""
    if unknown := set(content) - {field.name for field in fields(Run)} - _BY_CONFIG or {"folder"} & set(content):
        raise ValueError(f"unknown key {', '.join(sorted(unknown))}")
    config = _typed(content["config"], content["method_class"])
    run = Run(folder, config, **{key: value for key, value in content.items() if key not in _BY_CONFIG})
    if lacking := {"label", "trainable", "total", "parts"} - set(run.audit):
        raise ValueError(f"audit lacks {', '.join(sorted(lacking))}")
    sound = {
        "config.data.stages": len(run.recipes) > 0,  # each stage's recipe composes, too
        "config.recipe.mix": all(recipe.mix.weights is not None for recipe in run.recipes),  # names with weights
        "audit": isinstance(run.audit["label"], str) and isinstance(run.audit["parts"], dict),
        "environment": isinstance(run.environment, dict),
        "data_digests": isinstance(run.data_digests, list),
        "labels": isinstance(run.labels, list) and all(isinstance(one, list) for one in run.labels) and run.labels,
        "model_digest": isinstance(run.model_digest, str),
        "data_digest_version": type(run.data_digest_version) is int,
    }
    if wrong := [key for key, is_sound in sound.items() if not is_sound]:
        raise ValueError(f"{', '.join(wrong)} of another kind")
    return run


def _typed(settings: Any, method_class: str) -> FinetuneConfig:
    """The configuration with its method as the class it was; keys that are newer have their defaults."""
    if not isinstance(settings, dict) or not isinstance(settings.get("method", {}), dict):
        raise ValueError("config or config.method of another kind")
    if missing := [name for name in ("name", "model", "data", "recipe", "method") if name not in settings]:
        raise ValueError(f"config lacks {', '.join(missing)}")
    schema = OmegaConf.structured(FinetuneConfig)
    schema.method = OmegaConf.structured(next(one for one in SCHEMAS.values() if one.__name__ == method_class))
    config = OmegaConf.to_object(OmegaConf.merge(schema, literal(settings)))
    assert isinstance(config, FinetuneConfig)
    assert isinstance(config.method, Method)
    return config


def environment() -> dict[str, Any]:
    """Versions and the code's revision."""
    import torch

    found = {name: version(name) for name in _LIBRARIES}
    return {
        **found,
        "forgetbench": __version__,
        "python": platform.python_version(),
        "git_revision": _git_revision(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
    }


def _git_revision() -> str | None:
    """Revision of the checkout this package runs from, `+` appended if it has changes; None outside one."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=PACKAGE, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != PACKAGE.parent:
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
