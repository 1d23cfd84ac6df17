"""Picture features in training: encoded once where nothing that encodes them trains, and not one bit of difference."""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from forgetbench.config import DataConfig, FinetuneConfig, ModelConfig, RecipeConfig, StageConfig
from forgetbench.core.errors import UserError
from forgetbench.core.files import write_json
from forgetbench.core.records import AnswerKind, ImageRef, Precision, Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import Encoder
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.data.sources import load_samples
from forgetbench.methods.base import Batch, Method, TrainingContext
from forgetbench.methods.lora import LoRA
from forgetbench.models.features import PictureEncoder
from forgetbench.models.load import LoadedModel, load_model
from forgetbench.runs.run import Run, check_same
from forgetbench.training.data_digest import DIGEST_VERSION
from forgetbench.training.features import FeatureReuse, is_fixed
from forgetbench.training.loop import Resume, StepReport, Trainer
from forgetbench.training.plan import Stage
from forgetbench.training.prepare import prepare
from tests.support import runs
from tests.support.families import FAMILIES, llava

# transformers' PaliGemma processor hands tensors to numpy the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NEEDS_PICTURES = {"paligemma"}
DISTINCT = ["llava", "idefics3", "qwen3_vl", "paligemma", "minicpmv4_6"]
"""Families whose features differ in kind: of fixed number, of tiles, of several layers, for a prefix model, packed."""
TINY = ModelConfig(path="embedded:tiny", attention="eager")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


def picture(i: int, size: tuple[int, int] = (16, 16)) -> ImageRef:
    image = Image.frombytes("RGB", size, random.Random(i).randbytes(3 * size[0] * size[1]))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return ImageRef("memory", f"{i}.png", stream.getvalue())


def item(i: int, *images: ImageRef) -> Sample:
    return Sample.question(
        str(i), "What is this? " * (1 + i % 2), ("A", "dark red", "blue")[i % 3], AnswerKind.text, images
    )


PICTURES = [picture(i) for i in range(6)]
REPEATED = [item(i, PICTURES[i % 6]) for i in range(18)]
"""Three questions on each of six pictures."""
MIXED = [
    *(item(i, picture(i % 7, ((16, 16), (32, 16), (16, 32))[i % 3])) for i in range(14)),
    *(item(i) for i in range(14, 18)),
    *(item(i, PICTURES[i % 6], PICTURES[0]) for i in range(18, 21)),
]
"""Pictures of several sizes, items of two pictures, items of none."""


def stages(samples: Sequence[Sample], steps: int = 9) -> list[Stage]:
    return [Stage("toy", MixedStream([WeightedSet("toy", samples, 1.0)], [], 0.0, seed=3), steps, "digest")]


def loaded_from(folder: Path) -> LoadedModel:
    return load_model(ModelConfig(path=str(folder)))


def trainer(loaded: LoadedModel, method: Method | None = None, **changes: Any) -> Trainer:
    values = {"lr": 1e-3, "parts": ["language"], "batch_size": 4, "precision": Precision.fp32, **changes}
    recipe, method = RecipeConfig(**values), method or Method()
    prepare(loaded.model, [recipe], method, seed=0)
    return Trainer(loaded, Encoder(loaded.processor), method, recipe, seed=0)


def with_limit(loaded: LoadedModel, subject: Trainer, max_bytes: int) -> FeatureReuse:
    reuse = FeatureReuse(loaded.model, PictureEncoder(loaded.model), Encoder(loaded.processor), max_bytes=max_bytes)
    subject.passes.features = reuse
    return reuse


def measured(reports: Iterable[StepReport]) -> list[tuple[float, float]]:
    return [(report.loss, report.grad_norm) for report in reports]


def outcome(subject: Trainer, plan: Sequence[Stage], resume: Resume | None = None) -> Any:
    """Everything that training decides: losses, weights, optimiser state, what the next random number would be."""
    losses = measured(subject.run(plan, resume))
    state = {name: value.detach().clone() for name, value in subject.trainable.items()}
    return losses, {**state, **subject.resume_point(0).tensors}, torch.rand(1)


def assert_same(first: Any, second: Any) -> None:
    assert first[0] == second[0]
    assert first[1].keys() == second[1].keys()
    assert [name for name in first[1] if not torch.equal(first[1][name], second[1][name])] == []
    assert torch.equal(first[2], second[2])


def counted(loaded: LoadedModel) -> list[int]:
    """How many pictures each call of the vision tower encoded, from now on."""
    calls: list[int] = []
    encode = loaded.model.model.get_image_features

    @functools.wraps(encode)
    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(kwargs["pixel_values"]))
        return encode(*args, **kwargs)

    loaded.model.model.get_image_features = counting
    return calls


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("family", DISTINCT)
def test_reuse_changes_no_bit(tmp_path: Path, family: str, precision: Precision) -> None:
    folder = FAMILIES[family](tmp_path / family)
    reusing = trainer(loaded_from(folder), precision=precision)
    expected = outcome(trainer(loaded_from(folder), precision=precision, reuse_features=False), stages(REPEATED))
    assert_same(outcome(reusing, stages(REPEATED)), expected)
    assert reusing.passes.features.active
    assert reusing.passes.features.n_cached == len(PICTURES)


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("family", DISTINCT)
def test_pictures_of_several_sizes_and_items_without_one_change_no_bit(
    tmp_path: Path, family: str, precision: Precision
) -> None:
    folder = FAMILIES[family](tmp_path / family)
    plan = stages([sample for sample in MIXED if sample.images or family not in NEEDS_PICTURES])
    runs = []
    for reuse in (True, False):
        subject = trainer(
            loaded_from(folder), precision=precision, reuse_features=reuse, batch_size=6, gradient_accumulation=2
        )
        runs.append(outcome(subject, plan))
    assert_same(*runs)


@pytest.mark.parametrize("precision", list(Precision))
def test_the_embedded_model_learns_the_same_bits(precision: Precision) -> None:
    """In bf16 its tower gives other bits to companies of 3 to 7 pictures than to those of 8."""
    manifest = Catalogue().load("digits_naming")
    plan = stages(load_samples(manifest, manifest.train_split, 30), 6)
    subject = trainer(load_model(TINY), batch_size=8, precision=precision)
    expected = trainer(load_model(TINY), batch_size=8, precision=precision, reuse_features=False)
    assert_same(outcome(subject, plan), outcome(expected, plan))
    assert subject.passes.features.active
    assert subject.passes.features.n_cached > 0


def test_dropout_in_the_language_part_draws_the_same(folder: Path) -> None:
    runs = []
    for reuse in (True, False):
        subject = trainer(loaded_from(folder), LoRA(rank=2, dropout=0.3), reuse_features=reuse)
        assert subject.passes.features.active is reuse
        runs.append(outcome(subject, stages(REPEATED)))
    assert_same(*runs)


def test_a_picture_is_encoded_once_however_often_it_comes(folder: Path) -> None:
    loaded = loaded_from(folder)
    calls = counted(loaded)
    list(trainer(loaded).run(stages(REPEATED, 18)))
    # 24 times to see whether places matter; then six pictures in companies of four, the second one filled up.
    assert calls == [4] * 24 + [4, 4]


def test_without_reuse_every_micro_batch_is_encoded(folder: Path) -> None:
    loaded = loaded_from(folder)
    calls = counted(loaded)
    list(trainer(loaded, reuse_features=False).run(stages(REPEATED, 18)))
    assert calls == [4] * 18


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": ["projector", "language"]},
        {"parts": ["vision"]},
        {"method": LoRA(rank=2, parts=["vision"]), "parts": ["vision"]},
        {"method": LoRA(rank=2, parts=["language", "projector"]), "parts": ["language", "projector"]},
    ],
    ids=["projector", "vision", "adapters in vision", "adapters in the projector"],
)
def test_a_recipe_that_trains_what_encodes_pictures_does_not_reuse(folder: Path, changes: dict[str, Any]) -> None:
    subject = trainer(loaded_from(folder), **changes)
    list(subject.run(stages(REPEATED, 2)))
    assert not subject.passes.features.active
    assert subject.passes.features.n_cached == 0


@pytest.mark.parametrize("change", ["attention dropout", "dropout", "batch norm"])
def test_an_encoder_that_draws_or_remembers_is_not_fixed(folder: Path, change: str) -> None:
    model = loaded_from(folder).model.requires_grad_(False)
    assert is_fixed(model)
    if change == "attention dropout":
        model.config.vision_config.attention_dropout = 0.1
    else:
        module = torch.nn.Dropout(0.1) if change == "dropout" else torch.nn.BatchNorm1d(4)
        model.model.vision_tower.add_module("added", module.requires_grad_(False))
    assert not is_fixed(model)


@pytest.mark.parametrize("fault", ["place", "chance"])
def test_an_encoder_that_minds_a_pictures_place_or_draws_unseen_switches_reuse_off(folder: Path, fault: str) -> None:
    def faulty(reuse: bool) -> Trainer:
        loaded = loaded_from(folder)
        encode = loaded.model.model.get_image_features

        @functools.wraps(encode)
        def encoding(*args: Any, **kwargs: Any) -> Any:
            output = encode(*args, **kwargs)
            rows = list(output.pooler_output)
            noise = torch.rand(len(rows)) if fault == "chance" else torch.arange(len(rows))
            output.pooler_output = [row + 1e-4 * float(value) for row, value in zip(rows, noise, strict=True)]
            return output

        loaded.model.model.get_image_features = encoding
        return trainer(loaded, LoRA(rank=2, dropout=0.3), reuse_features=reuse)

    subject = faulty(True)
    assert subject.passes.features.active
    assert_same(outcome(subject, stages(REPEATED)), outcome(faulty(False), stages(REPEATED)))
    assert not subject.passes.features.active
    assert subject.passes.features.n_cached == 0


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_run_taken_up_again_ends_with_the_same_bits(folder: Path, stop: int) -> None:
    plan = stages(REPEATED)
    expected = outcome(trainer(loaded_from(folder)), plan)
    first = trainer(loaded_from(folder))
    before = measured(islice(first.run(plan), stop))
    again = trainer(loaded_from(folder))
    losses, state, chance = outcome(again, plan, Resume(first.resume_point(stop)))
    assert_same((before + losses, state, chance), expected)


@pytest.mark.parametrize("stop", [1, 9])
def test_micro_batches_with_more_and_fewer_pictures_go_on_with_the_same_bits(folder: Path, stop: int) -> None:
    """Three pictures a batch: this machine's kernels mind the place of one, in the last bit of few values."""
    straight = runs.trainer(folder, Method(), parts=["language"])
    losses = [report.loss for report in straight.run(runs.plan(16))]
    first = runs.trainer(folder, Method(), parts=["language"])
    for _ in islice(first.run(runs.plan(16)), stop):
        pass
    second = runs.trainer(folder, Method(), parts=["language"])
    rest = [report.loss for report in second.run(runs.plan(16), Resume(first.resume_point(stop)))]
    assert rest == losses[stop:]


@pytest.mark.parametrize("room", [0, 1, 2.5, 5])
def test_features_never_take_more_memory_than_they_may(folder: Path, room: float) -> None:
    loaded = loaded_from(folder)
    subject = trainer(loaded)
    size = 4 * 32 * 4  # four tokens of 32 numbers in fp32
    reuse = with_limit(loaded, subject, int(room * size))
    result = outcome(subject, stages(REPEATED))
    assert reuse.n_cached == int(room)
    assert reuse.cached_bytes <= room * size
    assert_same(result, outcome(trainer(loaded_from(folder), reuse_features=False), stages(REPEATED)))


@dataclass
class Onlooker(Method):
    """Notes what a hook is given."""

    seen: list[set[str]] = field(default_factory=list)

    def penalty(self, context: TrainingContext, batch: Batch, outputs: Any) -> None:
        self.seen.append(set(batch.inputs))


def test_a_method_is_given_features_where_pixels_are_left_out(folder: Path) -> None:
    method = Onlooker()
    list(trainer(loaded_from(folder), method).run(stages(REPEATED, 2)))
    assert len(method.seen) == 2
    assert all({"input_ids", "attention_mask", "mm_encoder_outputs"} <= keys for keys in method.seen)
    assert all("pixel_values" not in keys for keys in method.seen)


def test_sizes_stay_in_the_batch_that_pixels_leave(tmp_path: Path) -> None:
    method = Onlooker()
    list(trainer(loaded_from(FAMILIES["qwen2_5_vl"](tmp_path / "qwen")), method).run(stages(REPEATED, 2)))
    assert all("image_grid_thw" in keys and "pixel_values" not in keys for keys in method.seen)


def configured(**changes: Any) -> FinetuneConfig:
    recipe = RecipeConfig(**{"lr": 1e-3, "parts": ["language"], **changes})
    data = DataConfig(stages=[StageConfig("fashion_naming")])
    return FinetuneConfig(name="run", model=TINY, data=data, recipe=recipe, method=Method())


def test_a_run_may_be_taken_up_with_reuse_switched_off(tmp_path: Path) -> None:
    audit = {"label": "language", "trainable": 1, "total": 2, "parts": {}}
    run = Run(tmp_path, configured(), [], [[]], "digest", audit, {}, DIGEST_VERSION)
    run.write()
    check_same(tmp_path, configured(reuse_features=False), [])
    with pytest.raises(UserError, match=r"differs in: recipe\.steps\."):
        check_same(tmp_path, configured(steps=7), [])
    # As written before there was the setting.
    content = run.content
    del content["config"]["recipe"]["reuse_features"]
    write_json(tmp_path / "run.json", content)
    check_same(tmp_path, configured(), [])
