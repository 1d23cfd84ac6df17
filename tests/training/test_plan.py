"""What a stage trains on: replayed items are as frequent as if they were appended to the target's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from forgetbench.config import (
    DataConfig,
    FinetuneConfig,
    MixConfig,
    ModelConfig,
    RecipeConfig,
    ReplayConfig,
    StageConfig,
    Training,
)
from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind, Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.mix import MixedStream, WeightedSet
from forgetbench.methods.base import Method
from forgetbench.methods.ewc import EWC
from forgetbench.training.plan import Stage, check_pictures, plan_stages, read_sets, replay_sets


def items(name: str, count: int) -> list[Sample]:
    return [Sample.question(f"{name}/{i}", "?", "A", AnswerKind.text) for i in range(count)]


TARGET = [WeightedSet("big", items("big", 80), 3.0), WeightedSet("small", items("small", 20), 1.0)]
EARLIER = [WeightedSet("first", items("first", 50), 7.0), WeightedSet("second", items("second", 2), 7.0)]


def test_each_earlier_task_gives_so_many_items_or_all_it_has() -> None:
    replayed_sets = replay_sets(EARLIER, TARGET, 4, seed=0)
    assert [len(dataset.samples) for dataset in replayed_sets] == [4, 2]
    assert all(len({sample.id for sample in dataset.samples}) == len(dataset.samples) for dataset in replayed_sets)
    assert replayed_sets == replay_sets(EARLIER, TARGET, 4, seed=0)
    assert replayed_sets[0].samples != replay_sets(EARLIER, TARGET, 4, seed=1)[0].samples
    assert replay_sets(EARLIER, TARGET, 0, seed=0) == replay_sets([], TARGET, 4, seed=0) == []


def test_a_replayed_item_is_drawn_as_often_as_one_that_was_appended() -> None:
    stream = MixedStream([*TARGET, *replay_sets(EARLIER, TARGET, 4, seed=0)], [], 0.0, seed=5)
    epochs = 20
    drawn = Counter(stream[i].id.partition("/")[0] for i in range(106 * epochs))
    assert drawn["first"] == pytest.approx(4 * epochs, abs=3)
    assert drawn["second"] == pytest.approx(2 * epochs, abs=3)
    assert drawn["big"] == pytest.approx(3 * drawn["small"], abs=6)  # the target's own weights stay


def config(method: Method | None = None, **replay: object) -> FinetuneConfig:
    return FinetuneConfig(
        name="run",
        model=ModelConfig(path="embedded:tiny"),
        data=DataConfig(stages=[StageConfig("digits_naming"), StageConfig("fashion_naming")]),
        recipe=RecipeConfig(lr=1e-4, parts=["language"], replay=ReplayConfig(**replay)),  # type: ignore[arg-type]
        method=method or Method(),
    )


def domains(stream: MixedStream, count: int) -> Counter[str]:
    return Counter(stream[i].images[0].name.partition("/")[0] for i in range(count))


def test_earlier_stages_and_sets_are_replayed_in_later_stages_only() -> None:
    plain = plan_stages(config(), Catalogue())
    first, second = plan_stages(config(samples=300), Catalogue())
    assert first.data_digest == plain[0].data_digest
    assert set(domains(first.stream, 500)) == {"digits"}
    assert second.data_digest != plain[1].data_digest
    assert domains(second.stream, 3300)["digits"] == pytest.approx(300, abs=3)
    assert second.labels == plain[1].labels
    (named, _) = plan_stages(config(samples=20, earlier=["emoji_use"]), Catalogue())
    assert set(domains(named.stream, 3000)) == {"digits", "emoji"}


def test_what_a_method_reads_is_part_of_the_data() -> None:
    method = EWC(reference=["emoji_use"])
    assert {name: len(samples) for name, samples in read_sets(method, Catalogue()).items()} == {"emoji_use": 3000}
    plain, reading = plan_stages(config(), Catalogue()), plan_stages(config(method), Catalogue())
    assert all(a.data_digest != b.data_digest for a, b in zip(plain, reading, strict=True))


def sequence(training: Training, *stages: StageConfig) -> FinetuneConfig:
    made = config()
    made.data = DataConfig(list(stages), training)
    return made


def test_epochs_are_passes_over_the_target_in_whole_steps_and_recipes_are_per_stage() -> None:
    changes = {"batch_size": 16, "lr": 1e-5, "mix": {"data": ["general"], "ratio": 0.5}}
    first, second, third = plan_stages(
        sequence(
            Training.sequence,
            StageConfig("digits_naming", epochs=0.1),
            StageConfig("fashion_naming", epochs=2, recipe=changes),
            StageConfig("emoji_use"),
        ),
        Catalogue(),
    )
    assert first.steps == 11  # 330 of 3,300 items by 32
    assert second.steps == 375  # 6,000 by 16, half of which are mixed in
    assert third.steps == 240
    assert first.recipe == third.recipe == config().recipe
    assert second.recipe is not None
    assert (second.recipe.lr, second.recipe.batch_size, second.recipe.mix.ratio) == (1e-5, 16, 0.5)
    assert second.recipe.parts == ["language"]
    assert len(second.items) == 3000
    assert domains(second.stream, 1000)["emoji"] == pytest.approx(500, abs=1)
    assert set(domains(third.stream, 1000)) == {"emoji"}


def test_joint_training_shows_each_task_as_often_as_the_sequence_does() -> None:
    stages = StageConfig("digits_naming", steps=10), StageConfig("fashion_naming", steps=30)
    (joint,) = plan_stages(sequence(Training.joint, *stages), Catalogue())
    assert joint.target == "digits_naming+fashion_naming"
    assert joint.steps == 40
    seen = domains(joint.stream, 40 * 32)
    assert seen["digits"] == pytest.approx(10 * 32, abs=2)
    assert seen["fashion"] == pytest.approx(30 * 32, abs=2)
    twice = StageConfig("digits_naming", steps=10), StageConfig("digits_naming", steps=30)
    (once,) = plan_stages(sequence(Training.joint, *twice), Catalogue())
    assert (once.target, once.steps) == ("digits_naming", 40)


def test_nothing_is_trained_zero_shot_but_the_tasks_are_known() -> None:
    stages = StageConfig("digits_naming"), StageConfig("fashion_naming", epochs=3)
    planned = plan_stages(sequence(Training.none, *stages), Catalogue())
    assert [stage.target for stage in planned] == ["digits_naming", "fashion_naming"]
    assert not any(stage.steps for stage in planned)


def test_several_sets_joined_by_a_plus_are_one() -> None:
    union = Catalogue().load("digits_naming+fashion_yesno")
    assert union.image_domains == ["digits", "fashion"]
    assert union.text_tasks == ["garment_yesno", "naming"]
    assert {leaf.manifest.name: leaf.weight for leaf in Catalogue().leaves("digits_naming+fashion_yesno")} == {
        "digits_naming": 0.5,
        "fashion_yesno": 0.5,
    }


@pytest.mark.parametrize(
    ("sets", "parts", "named"),
    [
        (["words_naming"], ["projector"], "projector, but no item of 'words_naming'"),
        (["words_naming"], ["vision", "projector"], "vision and projector, but"),
        (["words_naming"], ["language", "projector"], "projector, but no item of 'words_naming'"),
        (["fashion_naming", "words_naming"], ["projector"], "projector, but no item of 'words_naming'"),
        (["fashion_naming", "words_naming"], ["language", "projector"], None),
        (["fashion_naming"], ["projector"], None),
        (["words_naming"], ["language"], None),
        (["words_naming"], ["vision.attention", "language.mlp"], "vision.attention, but no item of 'words_naming'"),
        (["words_naming"], ["language.attention"], None),
    ],
)
def test_parts_that_no_picture_reaches_are_refused(sets: list[str], parts: list[str], named: str | None) -> None:
    stages = [StageConfig(name, steps=1) for name in sets]
    made = replace(config(), data=DataConfig(stages=stages), recipe=RecipeConfig(lr=1e-4, parts=parts), method=Method())
    planned = plan_stages(made, Catalogue())
    if named is None:
        check_pictures(made, planned)
    else:
        with pytest.raises(UserError, match=f"recipe.parts trains {named}"):
            check_pictures(made, planned)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_pictures_that_are_mixed_in_reach_the_projector(ratio: float) -> None:
    mix = MixConfig(data=["fashion_naming"], ratio=ratio)
    recipe = RecipeConfig(lr=1e-4, parts=["projector"], mix=mix)
    made = replace(config(), data=DataConfig(stages=[StageConfig("words_naming")]), recipe=recipe)
    planned = plan_stages(made, Catalogue())
    if ratio:
        check_pictures(made, planned)
    else:
        with pytest.raises(UserError, match="nor of what is mixed in or replayed"):
            check_pictures(made, planned)


def test_nothing_is_refused_where_nothing_is_trained() -> None:
    data = DataConfig(stages=[StageConfig("words_naming")], training=Training.none)
    made = replace(config(), data=data, recipe=RecipeConfig(lr=1e-4, parts=["projector"]))
    check_pictures(made, plan_stages(made, Catalogue()))


def test_weights_of_a_mix_reach_the_stream_and_equal_ones_change_nothing() -> None:
    def mixed(*sets: object) -> Stage:
        recipe = RecipeConfig(lr=1e-4, parts=["language"], mix=MixConfig(data=list(sets), ratio=0.5))
        made = replace(config(), data=DataConfig(stages=[StageConfig("fashion_naming")]), recipe=recipe)
        return plan_stages(made, Catalogue())[0]

    plain, equal = mixed("emoji_use", "digits_open"), mixed({"set": "emoji_use", "weight": 1}, "digits_open")
    heavy = mixed({"set": "emoji_use", "weight": 3}, "digits_open")
    assert [dataset.weight for dataset in plain.stream.sets] == [1, 1, 1]
    assert [dataset.weight for dataset in heavy.stream.sets] == [1, 3, 1]
    drawn = [heavy.stream[place].id for place in range(400)]
    counts = {name: sum(sample_id.startswith(name) for sample_id in drawn) for name in ("emoji_use", "digits_open")}
    assert abs(counts["emoji_use"] - 3 * counts["digits_open"]) <= 8
    assert plain.data_digest == equal.data_digest != heavy.data_digest
