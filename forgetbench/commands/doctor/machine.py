"""Versions, devices, attention kernels, disk, the Hub and the terminal's encoding: each check gives its findings."""

from __future__ import annotations

import importlib.metadata
import locale
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from forgetbench import __version__
from forgetbench.commands.doctor.finding import Finding, State
from forgetbench.core.network import hub_unreachable_reason

_GIB = 1 << 30
LITTLE_DISK, NO_DISK = 10 * _GIB, 1 * _GIB
"""Bytes: below the first, large runs may not fit; below the second, none do."""
LITTLE_MEMORY = 4 * _GIB
HUB_TIMEOUT_S = 3.0
_SHOWN = ("torch", "transformers", "accelerate", "peft", "datasets", "huggingface-hub", "hydra-core")


def versions(
    metadata: Callable[[str], Any] = importlib.metadata.metadata,
    version: Callable[[str], str] = importlib.metadata.version,
) -> Iterator[Finding]:
    """Python and the libraries beside the ranges that the package declares.

    Args:
        metadata: of an installed distribution.
        version: of an installed distribution.
    """
    try:
        declared = metadata("forgetbench")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("versions", State.warning, "forgetbench is not installed, so its ranges are not known.", "make")
        return
    python = platform.python_version()
    needed = SpecifierSet(declared["Requires-Python"] or "")
    state, fix = (State.ok, "") if python in needed else (State.fails, f"use Python {needed}")
    yield Finding("python", state, f"{python} (forgetbench {__version__} takes {needed})", fix)
    required = [Requirement(line) for line in declared.get_all("Requires-Dist") or ()]
    always = [
        requirement
        for requirement in required
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    wrong = [finding for requirement in always for finding in _library(requirement, version)]
    shown_versions = ", ".join(f"{name} {version(name)}" for name in _SHOWN if _installed(name, version))
    if not wrong:
        yield Finding("libraries", State.ok, f"all {len(always)} in their ranges: {shown_versions}")
    yield from wrong


def _installed(name: str, version: Callable[[str], str]) -> str | None:
    try:
        return version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _library(required: Requirement, version: Callable[[str], str]) -> Iterator[Finding]:
    installed, fix = _installed(required.name, version), f"pip install '{required.name}{required.specifier}'"
    if installed is None:
        yield Finding(required.name, State.fails, "not installed", fix)
    elif not required.specifier.contains(installed, prereleases=True):
        yield Finding(required.name, State.warning, f"{installed} is not in {required.specifier}", fix)


EXTRAS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "points of a sweep in several processes"),
    "slurm": ("hydra_plugins.hydra_submitit_launcher", "points of a sweep on Slurm"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "points of a sweep on Ray"),
    "bitsandbytes": ("bitsandbytes", "4-bit weights, 8-bit moments"),
    "torchvision": ("torchvision", "LFM2-VL"),
    "tensorboard": ("tensorboard", "tracker=tensorboard"),
    "trackio": ("trackio", "tracker=trackio"),
    "wandb": ("wandb", "tracker=wandb"),
    "mlflow": ("mlflow", "tracker=mlflow"),
}
"""Extra -> the module that it brings, and what it is for."""


def extras(find: Callable[[str], object] = find_spec) -> Iterator[Finding]:
    """Which optional parts are installed; none is needed."""
    available = {name: _is_importable(module, find) for name, (module, _) in EXTRAS.items()}
    installed = ", ".join(name for name, is_available in available.items() if is_available) or "none"
    missing = ", ".join(f"{name} ({EXTRAS[name][1]})" for name, is_available in available.items() if not is_available)
    yield Finding("extras", State.ok, f"installed: {installed}" + (f"; not: {missing}" if missing else ""))


def _is_importable(module: str, find: Callable[[str], object]) -> bool:
    try:
        return find(module) is not None
    except ModuleNotFoundError:  # its package is not there
        return False


def devices(torch: Any = None) -> Iterator[Finding]:
    """Cores, memory and GPUs, each with its memory and whether it computes in bf16."""
    torch = torch or _torch()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cpu", State.ok, f"{cores} cores for this process; torch threads: {torch.get_num_threads()}")
    if memory := _memory():
        small = memory < LITTLE_MEMORY
        message = f"{memory / _GIB:.0f} GiB" if memory >= _GIB else f"{memory / _GIB:.1f} GiB"
        fix = "the embedded model fits; see `forgetbench models plan` for others" if small else ""
        yield Finding("memory", State.warning if small else State.ok, message, fix)
    if not torch.cuda.is_available():
        name = "Apple's (mps), which is not used" if torch.backends.mps.is_available() else "none"
        yield Finding("gpu", State.ok, f"{name}: the embedded model takes minutes; models of billions need a GPU")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        has_bf16 = torch.cuda.is_bf16_supported()
        message = f"{properties.name}, {properties.total_memory / _GIB:.0f} GiB, bf16: {'yes' if has_bf16 else 'no'}"
        fix = "" if has_bf16 else "set recipe.precision=fp32 and matrix.precision=fp32"
        yield Finding(f"gpu {index}", State.ok if has_bf16 else State.warning, message, fix)


def _torch() -> Any:
    import torch

    return torch


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def attention(flash: Callable[[], bool] | None = None) -> Iterator[Finding]:
    """The kernels that `model.attention` may name here."""
    from forgetbench.models.precision import flash_runs

    has_flash = (flash or flash_runs)()
    kernels = ["eager", "sdpa", *(["flash_attention_2"] if has_flash else [])]
    missing_note = "" if has_flash else "; flash_attention_2 needs a CUDA GPU and flash-attn (auto takes sdpa)"
    yield Finding("attention", State.ok, ", ".join(kernels) + missing_note)


def disk(places: Mapping[str, Path]) -> Iterator[Finding]:
    """Whether each folder, or the nearest that there is above it, can be written and has room."""
    for name, place in places.items():
        existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                free = shutil.disk_usage(existing).free
        except OSError as error:
            needed = name == "outputs"
            fix = "choose another outputs=..." if needed else "set HF_HOME (or FORGETBENCH_DOWNLOADS) to another folder"
            state = State.fails if needed else State.warning
            yield Finding(name, state, f"{place} cannot be written ({error.strerror})", fix)
            continue
        state = State.ok if free >= LITTLE_DISK else State.warning if free >= NO_DISK else State.fails
        fix = "" if state is State.ok else "make room: docs/scaling.md counts what runs take"
        yield Finding(name, state, f"{place} can be written, {free / _GIB:.1f} GiB free", fix)


def hub(unreachable: Callable[[float], str | None] = hub_unreachable_reason) -> Iterator[Finding]:
    """Whether the Hub can be asked, and whether there is a token; never which."""
    from huggingface_hub import constants, get_token, is_offline_mode

    token = "a token is set" if get_token() else "no token (gated models and sets need one: `hf auth login`)"
    host = urlsplit(constants.ENDPOINT).hostname
    if is_offline_mode():
        message = f"HF_HUB_OFFLINE is set: only what is downloaded already; {token}"
        yield Finding("hub", State.warning, message, "unset HF_HUB_OFFLINE to download models and sets")
    elif unreachable(HUB_TIMEOUT_S):
        message = f"{host} cannot be reached: only what is downloaded already; {token}"
        yield Finding("hub", State.warning, message, "check network and proxy; the embedded world needs neither")
    else:
        yield Finding("hub", State.ok, f"{host} answers; {token}")


def encoding(names: Iterable[str] | None = None) -> Iterator[Finding]:
    """Whether file names and the terminal take every letter."""
    encodings = (
        list(names)
        if names is not None
        else [
            getattr(sys.stdout, "encoding", None) or "utf-8",
            sys.getfilesystemencoding(),
            locale.getpreferredencoding(False),
        ]
    )
    not_unicode = [name for name in encodings if not name.lower().replace("-", "").startswith("utf8")]
    if not_unicode:
        message = (
            f"{', '.join(dict.fromkeys(not_unicode))}: letters outside it are escaped, and some file names refused"
        )
        yield Finding("encoding", State.warning, message, "set PYTHONUTF8=1 or a UTF-8 locale, such as LC_ALL=C.UTF-8")
    else:
        yield Finding("encoding", State.ok, "UTF-8")
