"""The machine as it is found: device, versions, and where they differ from the pins."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.gpu.findings import Finding, Scope, text
from benchmarks.gpu.flops import peak
from benchmarks.gpu.short_run import ROOT

PINS, WHEELS = ROOT / "constraints.txt", Path(__file__).parent.with_name("gpu_wheels.txt")
EXPECTED = ("torch", "numpy", "pillow")
"""Packages that are not among the wheels."""
OPTIONAL = ("bitsandbytes", "flash-attn", "trl", "torchvision", "flash-linear-attention", "causal-conv1d")


def machine(scope: Scope) -> Iterator[Finding]:
    """Device, software versions and settings."""
    if scope.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        yield text(
            "device",
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {torch.cuda.device_count()} in all",
        )
        yield text("CUDA", str(torch.version.cuda))
        highest = peak(properties.name)
        yield text("peak, bf16", f"{highest / 1e12:.0f} TFLOP/s" if highest else "not in the table: no MFU")
    else:
        yield text("device", f"CPU alone, {torch.get_num_threads()} threads: differences from the CPU are its own")
    yield text("Python", platform.python_version())
    pins = pinned(PINS)
    for name in (*EXPECTED, *pinned(WHEELS)):
        yield text(name, version_beside_pin(installed(name), pins.get(name)))
    for name in OPTIONAL:
        yield text(name, installed(name) or "not installed")
    yield text("TF32 in matrix products, in convolutions", f"{allowed(True)}, {allowed(False)}")


def allowed(products: bool) -> str:
    """Whether fp32 may be rounded to TF32, as PyTorch is set when it starts."""
    value = torch.backends.cuda.matmul.allow_tf32 if products else torch.backends.cudnn.allow_tf32
    return "on" if value else "off"


def installed(name: str) -> str | None:
    """The version of a distribution; None if it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def version_beside_pin(installed_version: str | None, pin: str | None) -> str:
    """A version, and the pin where it is another."""
    if installed_version is None:
        return "not installed"
    return (
        installed_version
        if pin in (None, installed_version.partition("+")[0])
        else f"{installed_version} (tests pass with {pin})"
    )


def pinned(path: Path) -> Mapping[str, str]:
    """Versions by distribution, as pip's files have them."""
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {name.lower().replace("_", "-"): release for name, _, release in pairs}
