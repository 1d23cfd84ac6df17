"""Hidden states and weights of checkpoints beside the base's: a tiny model with known disturbances, and the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image
from torch import Tensor

from forgetbench.compose.checks.matrix import matrix_problems
from forgetbench.config import MatrixConfig, ModelConfig, RepresentationConfig
from forgetbench.core.errors import UserError
from forgetbench.core.processes import ProcessGroup
from forgetbench.core.records import AnswerKind, ImageRef, Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import Encoder
from forgetbench.data.manifest import Manifest
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.evaluation.representation import (
    Job,
    LayerMeasure,
    MeasuredRows,
    PartDistance,
    datasets_with_pictures,
    items_with_distinct_pictures,
    measure,
    plan_representation,
)
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.models.checkpoint import BASE, Checkpoint, save_checkpoint
from forgetbench.models.load import load_model
from forgetbench.models.parts import part_of
from forgetbench.tables.representation import (
    REPRESENTATION_COLUMNS,
    joined_representation,
    representation_rows,
)
from forgetbench.tables.scores import RUN_COLUMNS, write_csv
from tests.support.families import FAMILIES

# What PaliGemma's processor does to a torch tensor when it makes labels.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

N_IMAGES = 6
FIRST_LAYER, SECOND_LAYER = (rf"\.(language|text)_model\.layers\.{k}\." for k in (0, 1))


Attach = Callable[[Any], None]


def plain(model: Any) -> None:
    """No adapters."""


def make_set(
    folder: Path, name: str = "toy", domain: str = "toy", pictures: int = N_IMAGES, **more: str
) -> EvaluationSet:
    """Two questions on every picture, then one item without a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, samples = np.random.default_rng(pictures), []
    for i in range(pictures):
        file = folder / f"{name}{i}.png"
        Image.fromarray(rng.integers(0, 255, (18 + 5 * (i % 3), 20, 3), dtype=np.uint8)).save(file)
        for question in ("Is it red? Answer yes or no.", "What?"):
            image = ImageRef(str(folder), file.name)
            samples.append(Sample.question(f"{i}{question}", question, "red", AnswerKind.text, (image,), ("red",)))
    samples.append(Sample.question("words", "What is red?", "red", AnswerKind.text, (), ("red",)))
    return EvaluationSet(
        Manifest(name=name, image_domains=[domain], text_tasks=["colour"], **more), samples, lambda: samples
    )


def config(**settings: Any) -> MatrixConfig:
    return MatrixConfig(datasets=["toy"], batch_size=4, representation=RepresentationConfig(**settings))


def load_asker(path: Path, cache: Path, matrix: MatrixConfig, attach: Attach = plain) -> tuple[Any, ModelRunner]:
    loaded = load_model(ModelConfig(path=str(path)))
    attach(loaded.model)
    return loaded.model, ModelRunner(loaded, Encoder(loaded.processor), matrix, cache)


def checkpoint(folder: Path, delta: dict[str, Tensor]) -> Checkpoint:
    return save_checkpoint(folder, 10, delta, {"method": {}})


@dataclass
class Scene:
    """A loaded model, its dataset and its checkpoints."""

    folder: Path
    model: Any
    runner: ModelRunner
    dataset: EvaluationSet
    config: MatrixConfig

    def disturbed(self, pattern: str) -> Checkpoint:
        """A checkpoint in which the named weights moved."""
        noise = torch.Generator().manual_seed(3)
        delta = {
            name: value.detach() + 0.1 * torch.randn(value.shape, generator=noise)
            for name, value in self.model.named_parameters()
            if re.search(pattern, name)
        }
        assert delta
        return checkpoint(self.folder / f"run{len(list(self.folder.iterdir()))}", delta)

    def measured(self, *checkpoints: Checkpoint) -> list[MeasuredRows]:
        jobs = plan_representation("model", checkpoints, [self.dataset], self.config)
        return measure(jobs, lambda: self.runner, self.folder / ".representation", ProcessGroup(), lambda *_: None)


def scene(family: str, folder: Path, attach: Attach = plain, **settings: Any) -> Scene:
    matrix = config(**settings)
    model, runner = load_asker(FAMILIES[family](folder / family), folder / "cache", matrix, attach)
    dataset = make_set(folder / "pictures")
    if family == "paligemma":  # its processor takes no prompt without a picture
        dataset = replace(dataset, samples=dataset.samples[:-1])
    return Scene(folder, model, runner, dataset, matrix)


@pytest.mark.parametrize("family", ["llava", "idefics3", "qwen2_5_vl"])
def test_the_base_is_itself_and_a_change_shows_from_its_own_layer_on(family: str, tmp_path: Path) -> None:
    subject = scene(family, tmp_path)
    base, _, late, late_weights, early, _ = (
        measured.rows
        for measured in subject.measured(BASE, subject.disturbed(SECOND_LAYER), subject.disturbed("vision_|visual"))
    )
    assert [row.layer for row in base] == [0, 1, 2]
    assert {row.n_images for row in base} == {N_IMAGES}
    assert all((row.visual_drift_l1, row.linear_cka) == (0, 1) for row in base)
    assert all(row.effective_rank > 1 for row in base)
    assert [row.layer for row in late] == [row.layer for row in early] == [0, 1, 2]
    assert late[:2] == base[:2]
    assert late[2].visual_drift_l1 > 0.01
    assert late[2].linear_cka < 1 - 1e-6
    assert all(row.visual_drift_l1 > 0.01 and row.linear_cka < 1 - 1e-6 for row in early)
    assert {row.part: row.changed_share > 0 for row in late_weights} == {
        "vision": False,
        "projector": False,
        "language": True,
    }


def test_figures_are_those_of_one_picture_at_a_time_by_definition(tmp_path: Path) -> None:
    subject = scene("llava", tmp_path, layers=[-1])
    later = subject.disturbed("language_model")
    (row,), _ = (measured.rows for measured in subject.measured(later))
    prompts = subject.runner.batches(subject.dataset).prompts
    states: dict[str, list[Any]] = {"base": [], "tuned": []}
    for name, at in (("base", BASE), ("tuned", later)):
        subject.runner.use_checkpoint(at)
        for item in range(0, 2 * N_IMAGES, 2):
            encoded = prompts.prompt(item)
            inputs = {key: value[None] for key, value in encoded.tokens.items()} | encoded.pictures
            caught: list[Tensor] = []
            last = subject.model.model.language_model.layers[-1]
            handle = last.register_forward_hook(lambda _m, _a, out, kept=caught: kept.append(out))
            with torch.no_grad():
                subject.model(**inputs)
            handle.remove()
            seen = inputs["input_ids"][0] == subject.model.config.image_token_index
            states[name].append(caught[0][0][seen].double().numpy())
    ranks = []
    for z in states["tuned"]:
        shares = np.linalg.svd(z, compute_uv=False) / np.linalg.svd(z, compute_uv=False).sum()
        ranks.append(np.exp(-(shares * np.log(shares)).sum()))
    drift = np.mean([np.abs(z - z0).sum(1).mean() for z, z0 in zip(states["tuned"], states["base"], strict=True)])
    assert row.effective_rank == pytest.approx(np.mean(ranks), rel=1e-5)
    assert row.visual_drift_l1 == pytest.approx(drift, rel=1e-4)


@pytest.mark.parametrize("family", ["llava", "paligemma", "gemma3"])
def test_batches_of_any_size_and_a_second_measurement_give_the_same(family: str, tmp_path: Path) -> None:
    subject = scene(family, tmp_path, layers=[0, -1])
    later = subject.disturbed(FIRST_LAYER)
    first = subject.measured(later)[0].rows
    stored = {path.name: path.read_bytes() for path in (tmp_path / ".representation").iterdir()}
    for path in (tmp_path / ".representation").iterdir():
        path.unlink()
    assert subject.measured(later)[0].rows == first
    assert {path.name: path.read_bytes() for path in (tmp_path / ".representation").iterdir()} == stored
    subject.config.batch_size = 1  # the asker's measurer reads the same object
    for again, row in zip(subject.measured(later)[0].rows, first, strict=True):
        assert again.effective_rank == pytest.approx(row.effective_rank, rel=1e-4)
        assert again.visual_drift_l1 == pytest.approx(row.visual_drift_l1, rel=1e-3, abs=1e-5)
        assert again.linear_cka == pytest.approx(row.linear_cka, abs=1e-4)


def test_weight_distances_by_hand(tmp_path: Path) -> None:
    subject = scene("llava", tmp_path)
    named = dict(subject.model.named_parameters())
    bias = next(
        name for name, value in named.items() if name.startswith("model.multi_modal_projector") and value.ndim < 2
    )
    moved = named[bias].detach().clone()
    moved[0] += 3.0
    moved[1] -= 4.0
    delta = {
        bias: moved,
        "model.language_model.norm.weight": named["model.language_model.norm.weight"].detach().clone(),
    }
    _, tuned = subject.measured(checkpoint(tmp_path, delta))
    parts = {row.part: row for row in tuned.rows}
    fresh = load_model(ModelConfig(path=str(tmp_path / "llava"))).model
    projector = [value.detach().double() for name, value in fresh.named_parameters() if part_of(name) == "projector"]
    size = sum(float(value.square().sum()) for value in projector) ** 0.5
    assert parts["projector"].weight_distance == pytest.approx(5, rel=1e-6)
    assert parts["projector"].relative_distance == pytest.approx(5 / size, rel=1e-6)
    assert parts["projector"].changed_share == 2 / sum(value.numel() for value in projector)
    assert parts["language"] == PartDistance("language", 0.0, 0.0, 0.0)


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_count_as_the_weights_they_amount_to(dora: bool, tmp_path: Path) -> None:
    def attach(model: Any) -> None:
        targets = r".*language_model.*(q_proj|down_proj)"
        inject_adapter_in_model(LoraConfig(r=2, lora_alpha=6, target_modules=targets, use_dora=dora), model)

    subject, noise = scene("llava", tmp_path, attach), torch.Generator().manual_seed(5)
    live = dict(subject.model.named_parameters())
    before = {name: value.detach().clone() for name, value in live.items()}
    delta = {name: torch.randn(value.shape, generator=noise) for name, value in live.items() if "lora_" in name}
    squares, adapted = 0.0, 0
    for layer in {name.partition(".lora_")[0] for name in delta}:
        a, b = (delta[f"{layer}.lora_{side}.default.weight"].double() for side in "AB")
        start = before[f"{layer}.base_layer.weight"].double()
        end = start + 6 / 2 * b @ a
        if dora:  # Liu et al. 2024: rows of learned length
            lengths = delta[f"{layer}.lora_magnitude_vector.default.weight"].double()
            end = lengths[:, None] * end / end.norm(dim=1, keepdim=True)
        squares, adapted = squares + float((end - start).square().sum()), adapted + start.numel()
    (_, base), (_, tuned) = (
        (subject.measured(at)[0].rows, {row.part: row for row in subject.measured(at)[-1].rows})
        for at in (BASE, checkpoint(tmp_path, delta))
    )
    weights = [value.numel() for name, value in before.items() if part_of(name) == "language" and "lora_" not in name]
    assert tuned["language"].weight_distance == pytest.approx(squares**0.5, rel=1e-5)
    assert tuned["language"].changed_share == pytest.approx(adapted / sum(weights), abs=1e-3)
    assert tuned["vision"] == base["vision"] == PartDistance("vision", 0.0, 0.0, 0.0)
    assert base["language"] == PartDistance("language", 0.0, 0.0, 0.0)
    subject.runner.use_checkpoint(BASE)
    assert all(torch.equal(before[name], value) for name, value in live.items())


def test_dropout_of_adapters_plays_no_part(tmp_path: Path) -> None:
    rows = []
    for dropout in (0.0, 0.9):
        config = LoraConfig(r=2, target_modules=".*language_model.*q_proj", lora_dropout=dropout)
        subject = scene("llava", tmp_path / str(dropout), partial(inject_adapter_in_model, config))
        rows.append(subject.measured(subject.disturbed("lora_B"))[0].rows)
    assert rows[0] == rows[1]
    assert rows[0][-1].visual_drift_l1 > 0.01


def test_a_layer_that_is_not_there_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"representation\.layers.*0 to 2"):
        scene("llava", tmp_path, layers=[0, 3])
    scene("llava", tmp_path, layers=[0, 3], enabled=False)


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"images": 0}, "images", "1 or more"),
        ({"layers": []}, "layers", "enabled=false"),
        ({"layers": [1, 1]}, "layers", "2 times"),
        ({"datasets": ["digits_naming"]}, "datasets", "matrix.datasets"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(settings: dict[str, Any], key: str, message: str) -> None:
    matrix = MatrixConfig(datasets=["fashion_naming"], representation=RepresentationConfig(**settings))
    (problem,) = matrix_problems(matrix, Catalogue([]))
    assert problem.key == f"matrix.representation.{key}"
    assert message in problem.message


@dataclass
class StandIn:
    """Measures nothing and writes down what it was asked."""

    asked: list[str] = field(default_factory=list)
    at: str = ""

    def use_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.at = checkpoint.name

    def layers(self, dataset: EvaluationSet, items: Sequence[int]) -> list[LayerMeasure]:
        self.asked.append(f"{self.at} {dataset.manifest.name}")
        return [LayerMeasure(dataset.manifest.name, 0, len(items), 1.5, 0.1 + len(self.asked), None)]

    def distances(self) -> list[PartDistance]:
        self.asked.append(f"{self.at} weights")
        return [PartDistance("language", 0.1, None, 0.25)]


def refuse() -> Any:
    raise AssertionError("the model was loaded")


LATER = Checkpoint(10, Path("step_000010"), {"delta_digest": "d10"})


def stand_in_jobs(folder: Path, **settings: Any) -> list[Job]:
    sets = [make_set(folder / "p", "toy", "toy", 5), make_set(folder / "p", "other", "drawn", 5)]
    return plan_representation("model", [BASE, LATER], sets, config(**settings))


def test_stored_results_are_read_without_a_model_and_a_damaged_one_alone_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, store, first = stand_in_jobs(tmp_path), tmp_path / "store", StandIn()
    made = measure(jobs, lambda: first, store, ProcessGroup(), lambda *_: None)
    assert first.asked == [f"step_0000{k} {what}" for k in ("00", "10") for what in ("toy", "other", "weights")]
    assert measure(jobs, refuse, store, ProcessGroup(), lambda *_: None) == made
    damaged = store / f"{jobs[4].digest}.json"
    damaged.write_text(damaged.read_text().replace("1.5", "2.5"))
    again = StandIn()
    measure(jobs, lambda: again, store, ProcessGroup(), lambda *_: None)
    assert again.asked == ["step_000010 other"]
    assert str(damaged) in capsys.readouterr().err


def test_a_killed_measurement_goes_on_where_it_was(tmp_path: Path) -> None:
    jobs, store = stand_in_jobs(tmp_path), tmp_path / "store"
    turns = iter([StandIn(), StandIn()])
    with pytest.raises(StopIteration):
        measure(jobs, lambda: next(turns), store, ProcessGroup(), lambda *_: None)
    rest = StandIn()
    assert len(measure(jobs, lambda: rest, store, ProcessGroup(), lambda *_: None)) == len(jobs)
    assert rest.asked == ["step_000000 weights", "step_000010 toy", "step_000010 other", "step_000010 weights"]


def test_another_setting_measures_hidden_states_again_but_not_weights(tmp_path: Path) -> None:
    def digests(**settings: Any) -> tuple[set[str], set[str]]:
        jobs = stand_in_jobs(tmp_path, **settings)
        return {job.digest for job in jobs if job.dataset}, {job.digest for job in jobs if not job.dataset}

    shown, weights = digests()
    assert (len(shown), len(weights)) == (4, 2)
    for other in ({"images": 3}, {"layers": [1]}, {"centred": True}):
        changed, same = digests(**other)
        assert changed
        assert changed.isdisjoint(shown)
        assert same == weights


@dataclass(frozen=True)
class PartOfProcessGroup(ProcessGroup):
    """One of several processes, which hears what the main one agreed on and keeps what it made."""

    agreed: tuple[int, ...] = ()

    def broadcast(self, value: Any) -> Any:
        return value if self.is_main else list(self.agreed)

    def gather(self, values: Sequence[Any]) -> list[Any]:
        return list(values)


def test_processes_share_the_work_without_doing_any_twice(tmp_path: Path) -> None:
    jobs = stand_in_jobs(tmp_path)
    asked = []
    for rank in (1, 2):
        helper = StandIn()
        process_group = PartOfProcessGroup(rank, 3, tuple(range(len(jobs))))
        assert measure(jobs, lambda helper=helper: helper, tmp_path / "store", process_group, lambda *_: None) == []
        asked += helper.asked
    main = StandIn()
    measure(jobs, lambda: main, tmp_path / "store", ProcessGroup(), lambda *_: None)
    assert len(asked) == 4
    assert sorted(asked + main.asked) == sorted(f"{job.label}" for job in jobs)


def test_one_dataset_for_each_kind_of_pictures_unless_named(tmp_path: Path) -> None:
    words = make_set(tmp_path, "words", "text", 0)
    toy, same = make_set(tmp_path, "toy", "toy", 2), make_set(tmp_path, "same", "toy", 2)
    near, drawn = make_set(tmp_path, "near", "toy", 2, shift="near"), make_set(tmp_path, "drawn", "drawn", 2)
    sets = [words, toy, same, near, drawn]
    assert datasets_with_pictures(sets, None) == [toy, near, drawn]
    assert datasets_with_pictures(sets, ["drawn", "same", "words"]) == [same, drawn]


def test_different_pictures_are_spread_over_the_items(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, pictures=8)
    assert items_with_distinct_pictures(dataset, 99) == list(range(0, 16, 2))
    assert items_with_distinct_pictures(dataset, 4) == [0, 4, 8, 12]
    assert items_with_distinct_pictures(dataset, 3) == [0, 4, 10]
    copies = replace(dataset, samples=[*dataset.samples, *dataset.samples])
    assert items_with_distinct_pictures(copies, 99) == list(range(0, 16, 2))


def test_the_table_leaves_empty_what_was_not_measured_and_keeps_whole_numbers(tmp_path: Path) -> None:
    run = dict.fromkeys(RUN_COLUMNS, "") | {"mix_ratio": None, "seed": None, "stage": 0, "lr": 1e-5}
    rows = [
        {**run, "run": "b", "step": 10, "part": "language", "weight_distance": 0.5, "changed_share": 1.0},
        {**run, "run": "b", "step": 0, "dataset": "toy", "layer": 4, "n_images": 3, "effective_rank": 2.5},
    ]
    for name, kept in (("one", rows[1:]), ("two", rows)):
        write_csv(representation_rows(kept), tmp_path / name)
    lines = (tmp_path / "two").read_text().splitlines()
    assert lines[0] == ",".join(REPRESENTATION_COLUMNS)
    assert lines[1].endswith(",0,toy,,4,3,2.5,,,,,")
    assert lines[2].endswith(",10,,language,,,,,,0.5,,1.0")
    write_csv(joined_representation([tmp_path / "one", tmp_path / "two"]), tmp_path / "joined")
    assert (tmp_path / "joined").read_text().splitlines() == [lines[0], lines[1], *lines[1:]]
    assert pd.read_csv(tmp_path / "joined")["linear_cka"].isna().all()
