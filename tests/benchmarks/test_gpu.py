"""The check of a GPU: every part on tiny shapes here, and what holds it together."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from importlib.metadata import distribution, requires
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import __main__ as check
from benchmarks.gpu import shapes
from benchmarks.gpu.findings import Finding, Scope, at_most, ratio, scratch_scope
from benchmarks.gpu.flops import peak, training_step
from benchmarks.gpu.kernels import union
from benchmarks.gpu.machine import EXPECTED, PINS, WHEELS, pinned, version_beside_pin
from benchmarks.gpu.parts import BY_NAME, PARTS, Planned
from benchmarks.gpu.report import Outcome, last_line, page, problems, succeeded
from benchmarks.gpu.right import Answers, beside_cpu
from benchmarks.gpu.short_run import ROOT
from forgetbench.core.records import Prediction
from forgetbench.data.batching import batch_examples
from forgetbench.data.collate import Encoder
from forgetbench.models.parts import audit, choose_trainable
from forgetbench.models.sizes import NOMINAL

MIB = 2**20


@pytest.fixture(scope="module")
def scope() -> Iterator[Scope]:
    with scratch_scope(tiny=True, families=["llava"], methods=["l2sp"]) as made:
        yield made


QUICK = [
    pytest.param(part, id=part.name, marks=pytest.mark.slow)
    if part.name.endswith("_3b")
    else pytest.param(part, id=part.name)
    for part in PARTS
]
"""All of them; those at the smaller of the two sizes do as those at the larger, and are slow."""


@pytest.mark.parametrize("part", QUICK)
def test_every_part_runs_on_tiny_shapes_and_finds_nothing_wrong(scope: Scope, part: Planned) -> None:
    findings = list(part.function()(scope, **part.given))
    assert findings
    assert [result.name for result in findings if result.holds is False] == []


@pytest.mark.slow
def test_the_whole_check_runs_from_start_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--minutes", "30", "--write", str(tmp_path / "gpu.md")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("ratios: llava_1_5_7b training loop/bare")
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert [(part_result["part"], part_result["state"]) for part_result in content["parts"]] == [
        (part.name, "done") for part in PARTS
    ]
    assert "speeds mean nothing" in (tmp_path / "gpu.md").read_text()


def test_a_part_that_fails_is_named_with_its_error() -> None:
    outcome = check.run(BY_NAME["families"], ["--tiny", "--family", "nonsense"], 300)
    assert outcome.state == "failed"
    assert "nonsense" in outcome.error


def test_a_process_beyond_its_time_is_left_with_what_it_found() -> None:
    process = subprocess.Popen(
        ["sh", "-c", "echo found; exec sleep 600"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    select.select([process.stdout], [], [])
    lines = check.lines_until(process, time.monotonic() + 0.5)
    assert next(lines) == "found\n"
    with pytest.raises(TimeoutError):
        next(lines)
    check.end(process)
    assert process.returncode


def test_a_part_without_time_is_not_started() -> None:
    assert check.run(PARTS[0], [], 0).state == "not started"


def finding(name: str, holds: bool | None, value: float | None = None) -> Mapping[str, Any]:
    return asdict(Finding(name, "1", holds, "", value))


def test_what_follows_a_failed_part_runs_and_the_exit_code_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ran(part: Planned, options: object, limit_s: float) -> Outcome:
        assert limit_s <= 60
        failed = part.name == "families"
        findings = [] if failed else [finding("loop/bare", True, 0.5)]
        return Outcome(part.name, part.group, "failed" if failed else "done", 1.0, "out of memory" * failed, findings)

    monkeypatch.setattr(check, "run", ran)
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--minutes", "1", "--write", str(tmp_path / "new" / "gpu.md")])
    assert check.main() == 1
    assert len(json.loads((tmp_path / "new" / "gpu.json").read_text())["parts"]) == len(PARTS)
    assert "- families failed: out of memory" in (tmp_path / "new" / "gpu.md").read_text()
    assert capsys.readouterr().out.splitlines()[-1].count("loop/bare 0.50") == len(PARTS) - 1


def test_without_a_gpu_the_check_says_how_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu"])
    monkeypatch.setattr(check, "has_gpu", lambda: False)
    assert check.main() == 2
    assert "--tiny" in capsys.readouterr().err


def test_the_page_names_what_does_not_hold_first() -> None:
    outcomes = [Outcome("steps", "right", "done", 2.0, "", [finding("a|b", False), finding("c", True, 0.97)])]
    assert problems(outcomes) == ["steps: does not hold: a|b"]
    assert not succeeded(outcomes)
    assert "| a\\|b | 1 |  | **no** |" in page(outcomes, "command", tiny=False)
    assert last_line(outcomes) == "ratios: c 0.97"


def test_bounds_hold_or_do_not() -> None:
    assert [at_most("a", value, 1e-4).holds for value in (1e-5, 1e-3, float("nan"))] == [True, False, False]
    assert [ratio("a", value, 0.9).holds for value in (0.8, 0.9)] == [False, True]


def test_answers_that_differ_from_the_cpus_are_seen() -> None:
    chosen = [Prediction(option_logprobs=logprobs) for logprobs in ((-1.0, -2.0), (-2.0, -1.0))]
    cpu = Answers(torch.tensor([[4.0, 1.0]]), chosen, [Prediction(text="red"), Prediction(text="blue")])
    device = Answers(cpu.logits + 0.1, chosen[:1] * 2, [Prediction(text="red"), Prediction(text="dark")])
    assert [result.holds for result in beside_cpu("llava", cpu, cpu)] == [True, True, True]
    assert [result.holds for result in beside_cpu("llava", cpu, device)] == [False, False, False]


def test_time_of_kernels_that_overlap_counts_once() -> None:
    assert union([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == 4.0
    assert union([]) == 0.0


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_peaks_are_found_by_the_names_that_torch_gives(name: str, tera: float) -> None:
    assert peak(name) == pytest.approx(tera * 1e12)


def test_an_unknown_gpu_has_no_peak() -> None:
    assert peak("Tesla T4") is None


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_operations_are_those_that_torch_counts(scope: Scope, name: str) -> None:
    """But for the convolution that cuts patches, which stands in none of the layers."""
    loaded = shapes.make(scope, name, "cpu")
    loaded.model.set_attn_implementation("eager")  # the counter knows matrix products, not the CPU's fused attention
    samples = shapes.items(shapes.SHAPES[name].tiny_side, 2)
    counted, encoder = shapes.measure(loaded, samples[0]), Encoder(loaded.processor)
    choose_trainable(loaded.model, ["language"])
    batch = batch_examples([encoder.example(sample) for sample in samples], encoder.pad_id)
    labels = batch.pop("labels")
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        loaded.model(**batch, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits.sum().backward()
    ours = training_step(counted.sizes, counted.text_tokens, counted.answer_tokens, len(samples))
    theirs = sum(n for kind, n in counter.get_flop_counts()["Global"].items() if "convolution" not in str(kind))
    assert ours == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_real_sizes_have_the_published_parameters(scope: Scope, name: str) -> None:
    loaded = shapes.make(replace(scope, tiny=False), name, "meta")
    assert tuple(count.total for count in audit(loaded.model).parts) == NOMINAL[shapes.SHAPES[name].path].parts


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_items_are_as_long_as_a_plan_assumes(scope: Scope, name: str) -> None:
    loaded = shapes.make(scope, name, "meta")
    counted = shapes.measure(loaded, shapes.items(shapes.SHAPES[name].tiny_side, 1)[0])
    assert counted.text_tokens == pytest.approx(shapes.TEXT_TOKENS, abs=16)


def torchs() -> Iterator[str]:
    """What torch asks for, and those in turn."""
    seen, queue = set(), ["torch"]
    while queue:
        for line in requires(queue.pop()) or ():
            requirement = Requirement(line)
            if (
                requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            ) and requirement.name not in seen:
                seen.add(requirement.name)
                queue.append(requirement.name)
    yield from seen


def test_the_listed_wheels_are_all_that_the_check_imports(tmp_path: Path) -> None:
    """Python sees a folder with links to these distributions alone."""
    for name in {*pinned(WHEELS), *EXPECTED, *torchs()}:
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}:
            link = tmp_path / top
            if not link.exists():
                link.symlink_to(installed.locate_file(top))
    modules = sorted({part.run.rpartition(".")[0] for part in PARTS})
    code = f"import sys; sys.path[:0] = {[str(ROOT), str(tmp_path)]!r}; from benchmarks.gpu import {', '.join(modules)}"
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_listed_wheels_are_those_that_the_tests_pass_with() -> None:
    wheels, pins = pinned(WHEELS), pinned(PINS)
    assert wheels
    assert {name: pins.get(name) for name in wheels} == wheels


def test_a_version_is_told_beside_another_pin() -> None:
    assert version_beside_pin("2.11.0+cu129", "2.11.0") == "2.11.0+cu129"
    assert version_beside_pin("2.11.0+cu129", "2.13.0") == "2.11.0+cu129 (tests pass with 2.13.0)"
    assert version_beside_pin(None, "2.13.0") == "not installed"
