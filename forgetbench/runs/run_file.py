"""run.json: what a run is. Two different runs never share a folder; scoring reads from here what it scores."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from forgetbench import __version__
from forgetbench.config import FinetuneConfig, ModelConfig
from forgetbench.core.errors import UserError
from forgetbench.core.files import read_json, write_json
from forgetbench.core.paths import PACKAGE
from forgetbench.methods.base import Method
from forgetbench.methods.registry import SCHEMAS

if TYPE_CHECKING:
    from forgetbench.models.load import LoadedModel
    from forgetbench.models.parts import TrainableAudit
    from forgetbench.training.plan import Stage

_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "pillow", "numpy")
IMPORTED = "imported from"
"""In a run's `environment`: the folder of another trainer's checkpoints that it was made of."""
_NOT_RESULT = {
    "name",
    "outputs",
    "manifests",
    "threads",
    "sharding",
    "tracker",
    "recipe.reuse_features",
    "recipe.gradient_checkpointing",
}
"""Settings that do not decide what a run is."""


@dataclass(frozen=True)
class RunFile:
    """The content of run.json."""

    config: Mapping[str, Any]
    """The whole configuration, method included."""
    method_class: str
    data_digests: Sequence[str]
    """One per stage."""
    labels: Sequence[Sequence[str]]
    """The labels that each stage trains; none where its answers are open-ended."""
    model_digest: str
    audit: Mapping[str, Any]
    """Parameters per part, how many train, and their names."""
    environment: Mapping[str, Any]

    def meta(self) -> dict[str, Any]:
        """What every checkpoint's meta.json repeats, so that it can stand alone."""
        return {**asdict(self), "method": self.config["method"]}

    @property
    def parts(self) -> str:
        """Parts that really trained, such as `projector+language`."""
        return str(self.audit["label"])


def describe(config: FinetuneConfig, stages: Sequence[Stage]) -> dict[str, Any]:
    """What decides a run's result, before any model is loaded."""
    container = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(container, dict)
    container.pop("matrix", None)
    return {"config": container, "data_digests": [stage.data_digest for stage in stages]}


def start_run(
    folder: Path,
    described: Mapping[str, Any],
    stages: Sequence[Stage],
    loaded: LoadedModel,
    audit: TrainableAudit,
    method: Method,
) -> RunFile:
    """Claim a folder for a run, or recognise the run that is already in it.

    Raises:
        UserError: another run is in the folder.
    """
    run = RunFile(
        config=described["config"],
        method_class=type(method).__name__,
        data_digests=described["data_digests"],
        labels=[stage.labels for stage in stages],
        model_digest=loaded.digest,
        audit={
            "label": audit.label,
            "trainable": audit.trainable,
            "total": audit.total,
            "parts": {count.part: {"total": count.total, "trainable": count.trainable} for count in audit.parts},
            "names": list(audit.names),
        },
        environment=environment(),
    )
    check_same(folder, described, loaded.digest)
    if not (folder / "run.json").is_file():
        write_json(folder / "run.json", asdict(run))
    return run


def check_same(folder: Path, described: Mapping[str, Any], model_digest: str | None = None) -> None:
    """Refuse a folder that holds another run.

    Raises:
        UserError: names what differs.
    """
    if not (folder / "run.json").is_file():
        return
    old = read_run(folder)
    differing = sorted(_differences(old.config, described["config"]) - _NOT_RESULT)
    if list(old.data_digests) != list(described["data_digests"]):
        differing.append("the training data")
    if model_digest not in (None, old.model_digest):
        differing.append("the model's weights")
    if differing:
        raise UserError(
            f"{folder} holds another run; it differs in: {', '.join(differing)}.\n"
            "Give this one a name of its own (name=...), or delete the folder."
        )


def release(folder: Path) -> None:
    """Free the folder of a run that was refused before its first step, so that the corrected one may have its name."""
    log = folder / "train.csv"
    if log.is_file() and len(log.read_text("utf-8").splitlines()) <= 1 and not (folder / "checkpoints").exists():
        log.unlink(missing_ok=True)
        (folder / "run.json").unlink(missing_ok=True)


def read_run(folder: Path) -> RunFile:
    """Read run.json.

    Raises:
        UserError: the folder holds no run.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no run (no run.json); train one with `forgetbench finetune name=...`.")
    content = read_json(path)
    try:
        run = RunFile(**content)
        lacking = {"label", "trainable", "total", "parts"} - set(run.audit)
        if lacking or not isinstance(run.environment, dict) or not isinstance(run.data_digests, list):
            raise ValueError(f"audit lacks {', '.join(sorted(lacking))}" if lacking else "environment or data_digests")
        complete: Any = OmegaConf.to_container(OmegaConf.structured(run_config(run)), enum_to_str=True)
    except (TypeError, ValueError, KeyError, AttributeError, StopIteration, OmegaConfBaseException) as error:
        lacking = {field.name for field in fields(RunFile)} - set(content if isinstance(content, dict) else ())
        cause = f"it lacks {', '.join(sorted(lacking))}" if lacking else str(error).strip().split("\n")[0]
        raise UserError(
            f"{path} is not a run of this version of forgetbench ({cause}). Move {folder} away, or train it again "
            "under another name."
        ) from error
    return replace(run, config=complete)


def model_config(run: RunFile) -> ModelConfig:
    """The model's configuration, typed."""
    merged = OmegaConf.merge(OmegaConf.structured(ModelConfig), run.config["model"])
    model = OmegaConf.to_object(merged)
    assert isinstance(model, ModelConfig)
    return model


def method_config(run: RunFile) -> Method:
    """The method, as the class it was."""
    cls = next(schema for schema in SCHEMAS.values() if schema.__name__ == run.method_class)
    method = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), run.config["method"]))
    assert isinstance(method, Method)
    return method


def run_config(run: RunFile) -> FinetuneConfig:
    """The whole configuration, typed."""
    schema = OmegaConf.structured(FinetuneConfig)
    schema.method = OmegaConf.structured(type(method_config(run)))
    config = OmegaConf.to_object(OmegaConf.merge(schema, run.config))
    assert isinstance(config, FinetuneConfig)
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


def _differences(old: Any, new: Any, key: str = "") -> set[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = old.keys() | new.keys()
        return {found for one in keys for found in _differences(old.get(one), new.get(one), f"{key}.{one}".strip("."))}
    return set() if old == new else {key}
