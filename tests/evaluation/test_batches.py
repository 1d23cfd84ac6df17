"""Batches, encoded prompts and picture features: what an item meets never depends on what else is asked."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from forgetbench.config import ModelConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind, ImageRef, Sample
from forgetbench.data.collate import PIXELS, Encoder
from forgetbench.data.encoded import EncodedSet, encode
from forgetbench.evaluation.batches import BatchedSet, batch_dataset
from forgetbench.evaluation.engine import Engine
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.models.features import PictureEncoder
from forgetbench.models.load import LoadedModel, load_model
from tests.support.asking import choice

PICTURES = 5


def picture(index: int) -> ImageRef:
    stream = io.BytesIO()
    Image.frombytes("RGB", (32, 32), random.Random(index).randbytes(32 * 32 * 3)).save(stream, "PNG")
    return ImageRef("memory", f"{index}.png", stream.getvalue())


def items(count: int = 14) -> list[Sample]:
    """Several questions on each of five pictures; some on none; letters, and words of several tokens."""
    batches = []
    for i in range(count):
        images = (picture(i % PICTURES),) if i % 7 else ()
        kind = AnswerKind.option if i % 4 == 3 else AnswerKind.letter
        options = ("a red coat", "a blue bag", "boots") if kind is AnswerKind.option else ("coat", "bag", "boot")
        answer = options[0] if kind is AnswerKind.option else "A"
        batches.append(
            Sample.question(f"i{i}", "what is it? " + "really? " * (i % 3), answer, kind, images, (answer,), options)
        )
    return batches


class Words:
    """A token per word, and 0 for the end of a turn."""

    def __init__(self, has_end: bool = True) -> None:
        self._words, self._end = ["end"], (0,) if has_end else ()

    def candidate_ids(self, sample: Sample, end: bool = False) -> list[tuple[int, ...]]:
        for text in sample.candidates:
            self._words += [word for word in text.split() if word not in self._words]
        ended = self._end if end else ()
        return [(*map(self._words.index, text.split()), *ended) for text in sample.candidates]


def colours(*options: str) -> Sample:
    return Sample.question("flag", "Which?", options[0], AnswerKind.option, references=options[:1], options=options)


def test_only_items_of_which_one_option_begins_another_are_asked_with_the_end_of_the_turn() -> None:
    samples = [
        colours("red", "red and blue"),
        colours("red", "blue"),
        colours("a red", "red"),
        colours("red", "redder"),
    ]
    candidates = batch_dataset(samples, None, Words(), 2).candidates  # type: ignore[arg-type]
    assert [list(map(len, item_candidates)) for item_candidates in candidates] == [[2, 4], [1, 1], [2, 1], [1, 1]]
    assert [ids[-1] == 0 for ids in candidates[0]] == [True, True]


def test_options_that_no_end_tells_apart_are_refused_by_the_item() -> None:
    with pytest.raises(UserError, match=r"Item 'flag': the tokens of one option begin another's, .*decode greedily"):
        batch_dataset([colours("red", "red and blue")], None, Words(has_end=False), 2)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(ModelConfig(path="embedded:tiny", attention="eager"))


def prepared(loaded: LoadedModel, folder: Path, samples: Sequence[Sample], batch_size: int = 3) -> BatchedSet:
    encoder = Encoder(loaded.processor)
    return batch_dataset(samples, encode(samples, encoder, folder / "set", 1 << 30), encoder, batch_size)


def pictures_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("pictures-*"))


def test_encoded_prompts_are_those_of_the_encoder(loaded: LoadedModel, tmp_path: Path) -> None:
    encoder, samples = Encoder(loaded.processor), items()
    prompts = encode(samples, encoder, tmp_path / "set", 1 << 30)
    for index, sample in enumerate(samples):
        fresh, stored = encoder.encode(sample), prompts.prompt(index)
        assert fresh.tokens.keys() == stored.tokens.keys()
        assert fresh.pictures.keys() == stored.pictures.keys()
        for key, value in (fresh.tokens | fresh.pictures).items():
            assert torch.equal(value, (stored.tokens | stored.pictures)[key])
            assert value.dtype == (stored.tokens | stored.pictures)[key].dtype
        assert not prompts.prompt(index, pixels=False).pictures.keys() & set(PIXELS)
    assert prompts.lengths == [encoder.encode(sample).length for sample in samples]


class Counting(Encoder):
    """Counts how often a prompt was processed."""

    count = 0

    def encode(self, sample: Sample):  # type: ignore[no-untyped-def]
        Counting.count += 1
        return super().encode(sample)


def test_prompts_are_processed_once_and_then_mapped(loaded: LoadedModel, tmp_path: Path) -> None:
    samples = items()
    Counting.count = 0
    encode(samples, Counting(loaded.processor), tmp_path / "set", 1 << 30)
    assert Counting.count == len(samples)
    prompts = encode(samples, Counting(loaded.processor), tmp_path / "set", 1 << 30)
    assert prompts.prompt(1).pictures
    assert Counting.count == len(samples)


def test_the_prompts_used_last_are_remembered_up_to_a_limit(loaded: LoadedModel) -> None:
    first, second, third = items(4)[1:]
    size = sum(value.nbytes for value in Encoder(loaded.processor).encode(second).pictures.values())
    Counting.count, encoder = 0, Counting(loaded.processor, cache_bytes=3 * size)
    for sample, processed in ((first, 1), (second, 2), (first, 2), (third, 3), (first, 3), (second, 4), (third, 5)):
        encoder.prompt(sample)
        assert Counting.count == processed


def test_a_prompt_larger_than_the_limit_is_remembered_alone(loaded: LoadedModel) -> None:
    first, second = items(3)[1:]
    Counting.count, encoder = 0, Counting(loaded.processor, cache_bytes=10)
    for sample, processed in ((first, 1), (first, 1), (second, 2), (second, 2), (first, 3)):
        encoder.prompt(sample)
        assert Counting.count == processed


def test_pixels_beyond_the_limit_are_not_kept_but_read_anew(loaded: LoadedModel, tmp_path: Path) -> None:
    encoder, samples = Encoder(loaded.processor), items()
    small = encode(samples, encoder, tmp_path / "small", 2 * 3 * 32 * 32 * 4)
    large = encode(samples, encoder, tmp_path / "large", 1 << 30)
    assert pictures_bytes(tmp_path / "small") < pictures_bytes(tmp_path / "large")
    for index in range(len(samples)):
        pair = [encoded.prompt(index).pictures for encoded in (small, large)]
        assert pair[0].keys() == pair[1].keys()
        assert all(torch.equal(pair[0][key], pair[1][key]) for key in pair[0])


@pytest.mark.parametrize("name", ["prompts-00000.safetensors", "pictures-00000.safetensors", "meta.json"])
def test_damaged_prompts_are_named_and_made_again(
    loaded: LoadedModel, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, samples = Encoder(loaded.processor), items()
    encode(samples, encoder, tmp_path / "set", 1 << 30)
    path = tmp_path / "set" / name
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    encode(samples, encoder, tmp_path / "set", 1 << 30)
    assert path.read_bytes() == content
    assert f"{tmp_path / 'set'} is damaged" in capsys.readouterr().err


def test_an_edited_list_of_pictures_is_named_and_made_again(
    loaded: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, samples = Encoder(loaded.processor), items()
    encode(samples, encoder, tmp_path / "set", 1 << 30)
    meta = tmp_path / "set/meta.json"
    content = json.loads(meta.read_text())
    meta.write_text(json.dumps(content | {"pictures": content["pictures"][::-1]}))
    encode(samples, encoder, tmp_path / "set", 1 << 30)
    assert json.loads(meta.read_text()) == content
    assert "is damaged" in capsys.readouterr().err


def test_prompts_of_an_older_format_are_made_again_without_a_word(
    loaded: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/prompts.arrow").write_bytes(b"rows")
    (tmp_path / "set/meta.json").write_text('{"files": {"prompts.arrow": "0"}, "left_out_at": null}')
    encoder, samples = Encoder(loaded.processor), items()
    assert encode(samples, encoder, tmp_path / "set", 1 << 30).prompt(1).pictures
    assert not list((tmp_path / "set").glob("*.arrow"))
    assert capsys.readouterr().err == ""


def test_a_tensor_that_is_changed_leaves_the_file_as_it_was(loaded: LoadedModel, tmp_path: Path) -> None:
    encoder, samples = Encoder(loaded.processor), items()
    prompts = encode(samples, encoder, tmp_path / "set", 1 << 30)
    prompts.tokens(0)["input_ids"].add_(1)
    again = EncodedSet(samples, encoder, tmp_path / "set")
    assert torch.equal(again.tokens(0)["input_ids"], encoder.encode(samples[0]).tokens["input_ids"])


def test_more_prompts_than_one_file_holds_are_read_in_any_order(loaded: LoadedModel, tmp_path: Path) -> None:
    encoder, samples = Encoder(loaded.processor), items(150)
    prompts = encode(samples, encoder, tmp_path / "set", 1 << 30)
    assert len(list((tmp_path / "set").glob("prompts-*"))) == 3
    for index in (149, 0, 64, 63, 128, 127):
        for key, value in encoder.encode(samples[index]).tokens.items():
            assert torch.equal(prompts.tokens(index)[key], value)


def test_a_batch_holds_one_kind_of_candidates_and_similar_lengths(loaded: LoadedModel, tmp_path: Path) -> None:
    dataset = prepared(loaded, tmp_path, items())
    assert sorted(item for batch in dataset.batches for item in batch) == list(range(14))
    for batch in dataset.batches:
        assert len({dataset.samples[item].kind for item in batch}) == 1
        assert len(batch) <= 3
    letters = [item for batch in dataset.batches for item in batch if dataset.samples[item].kind is AnswerKind.letter]
    lengths = [dataset.prompts.lengths[item] for item in letters]
    assert lengths == sorted(lengths)


def test_every_picture_has_one_first_position(loaded: LoadedModel, tmp_path: Path) -> None:
    dataset = prepared(loaded, tmp_path, items())
    items_with_new_pictures = [
        item for number in range(len(dataset.batches)) for item in dataset.items_with_new_pictures(number)
    ]
    assert len(items_with_new_pictures) == len(dataset.first_positions) == PICTURES


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures were given to the vision tower, call by call."""
    calls: list[int] = []
    encode_pictures = PictureEncoder.encode

    def counting(self: PictureEncoder, pictures: dict[str, Tensor]) -> Tensor:
        calls.append(len(pictures["pixel_values"]))
        return encode_pictures(self, pictures)

    monkeypatch.setattr(PictureEncoder, "encode", counting)
    return calls


def test_a_picture_is_encoded_once_for_all_questions_and_checkpoints_that_leave_the_tower_alone(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, calls = prepared(loaded, tmp_path, items()), counted(monkeypatch)
    engine = Engine(loaded, Encoder(loaded.processor))
    for state in ("", "", "other tower"):
        engine.set_picture_state(state)
        for number in range(len(dataset.batches)):
            engine.answer(dataset, number, choice(3))
        assert sum(calls) == PICTURES * (2 if state else 1)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_answers_do_not_depend_on_which_batches_were_asked_before(
    loaded: LoadedModel, tmp_path: Path, start: int
) -> None:
    dataset = prepared(loaded, tmp_path, items())
    whole = Engine(loaded, Encoder(loaded.processor))
    expected = [whole.answer(dataset, number, choice(3)) for number in range(len(dataset.batches))]
    resumed = Engine(loaded, Encoder(loaded.processor))
    for number in [*range(start, len(dataset.batches)), *reversed(range(start))]:
        assert resumed.answer(dataset, number, choice(3)) == expected[number]


def test_whether_features_are_kept_does_not_depend_on_other_datasets(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (prepared(loaded, tmp_path / name, items()) for name in ("first", "second"))
    calls, one_set = counted(monkeypatch), PICTURES * 16 * 192 * 4
    engine = Engine(loaded, Encoder(loaded.processor), feature_bytes=one_set)
    for dataset, encoded in ((first, 1), (second, 2), (second, 2), (first, 3)):
        for number in range(len(dataset.batches)):
            engine.answer(dataset, number, choice(3))
        assert sum(calls) == encoded * PICTURES


@pytest.mark.parametrize("room", [PICTURES, PICTURES + 1])
def test_a_later_block_changes_no_bit_of_an_earlier_one(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    later = [
        Sample.question(f"later {k}", "which?", "A", AnswerKind.letter, (picture(k % 2 + 4),), ("A",), ("coat", "bag"))
        for k in range(4)
    ]
    single = prepared(loaded, tmp_path / "alone", items())
    both = replace(
        prepared(loaded, tmp_path / "both", [*later[:2], *items(), *later[2:]]), blocks=[range(2, 16), [0, 1, 16, 17]]
    )
    engine, calls = Engine(loaded, Encoder(loaded.processor), feature_bytes=room * 16 * 192 * 4), counted(monkeypatch)
    answers = [engine.answer(both, number, choice(3)) for number in range(len(both.batches))]
    assert sum(calls) == room  # one picture is new in the second block, whose features fit or not
    expected = Engine(loaded, Encoder(loaded.processor))
    assert answers[: both.block_of_batch.index(1)] == [
        expected.answer(single, number, choice(3)) for number in range(len(single.batches))
    ]


def test_log_probabilities_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    broken = load_model(ModelConfig(path="embedded:tiny", attention="eager"))
    dataset = prepared(broken, tmp_path, items())
    with torch.no_grad():
        broken.model.lm_head.weight[5, 3] = float("nan")
    with pytest.raises(UserError, match=r"of item 'i\d+' are not numbers"):
        Engine(broken, Encoder(broken.processor)).answer(dataset, 0, choice(3))


def test_a_checkpoint_that_is_not_finite_is_refused(loaded: LoadedModel) -> None:
    name, weight = next(iter(loaded.model.named_parameters()))
    with pytest.raises(UserError, match="training diverged before it"):
        WeightSwap(loaded.model).to({name: torch.full_like(weight, float("inf"))})


def test_pixels_that_were_left_out_are_kept_once_the_limit_allows(loaded: LoadedModel, tmp_path: Path) -> None:
    encoder, samples = Encoder(loaded.processor), items()
    sizes = []
    for limit in (0, 1 << 30, 0):
        encode(samples, encoder, tmp_path / "set", limit)
        sizes.append(pictures_bytes(tmp_path / "set"))
    assert sizes[0] < sizes[1] == sizes[2]


def test_what_a_kill_left_of_encoding_is_removed(loaded: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / ".set.00000000-1-1234abcd.tmp").mkdir()
    encode(items(), Encoder(loaded.processor), tmp_path / "set", 1 << 30)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_features_beyond_the_limit_are_not_kept(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, calls = prepared(loaded, tmp_path, items()), counted(monkeypatch)
    small = Engine(loaded, Encoder(loaded.processor), feature_bytes=1000)
    large = Engine(loaded, Encoder(loaded.processor))
    numbers = range(len(dataset.batches))
    limited = [prediction for number in numbers for prediction in small.answer(dataset, number, choice(3))]
    assert 0 < sum(calls) < PICTURES  # those of one batch, to see how large features are
    kept = [prediction for number in numbers for prediction in large.answer(dataset, number, choice(3))]
    for expected, prediction in zip(limited, kept, strict=True):
        assert expected.option_logprobs == pytest.approx(prediction.option_logprobs, abs=1e-5)


def test_a_family_without_prefix_reuse_is_given_its_pixels(loaded: LoadedModel, tmp_path: Path) -> None:
    dataset = prepared(loaded, tmp_path, items())
    slow = Engine(replace(loaded, reuses_prefix=False), Encoder(loaded.processor))
    fast = Engine(loaded, Encoder(loaded.processor))
    for number in range(len(dataset.batches)):
        for slow_prediction, fast_prediction in zip(
            *(engine.answer(dataset, number, choice(3)) for engine in (slow, fast)), strict=True
        ):
            assert slow_prediction.option_logprobs == pytest.approx(fast_prediction.option_logprobs, abs=1e-4)


def test_an_encoded_set_is_opened_by_its_folder_alone(loaded: LoadedModel, tmp_path: Path) -> None:
    encoder, samples = Encoder(loaded.processor), items()
    first = encode(samples, encoder, tmp_path / "set", 1 << 30)
    again = EncodedSet(samples, encoder, tmp_path / "set")
    assert again.lengths == first.lengths
