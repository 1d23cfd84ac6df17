"""Items of every layout become the same samples; what does not fit is refused by name."""

from __future__ import annotations

import gzip
import io
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef, Sample
from forgetbench.data.manifest import Manifest
from forgetbench.data.manifest_file import load_manifest
from forgetbench.data.pictures import decode_image, read_image
from forgetbench.data.sources import load_samples

Row = dict[str, Any]
LISTS = {"image_domains": ["pictures", "text"], "text_tasks": ["questions"]}
RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(color: tuple[int, int, int] = RED) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (4, 2), color).save(held, "PNG")
    return held.getvalue()


def manifest(folder: Path, **fields: Any) -> Manifest:
    """Write and read a manifest; its one split is `train` unless told otherwise."""
    path = folder / "mine.yaml"
    given = {"source": {}, "splits": {"train": {"files": ["items.jsonl"]}}} | LISTS | fields
    path.write_text(yaml.safe_dump({key: value for key, value in given.items() if value is not None}))
    return load_manifest(path)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., list[Sample]]:
    """Write rows as JSON lines beside red.png and blue.png, and read them through a manifest."""
    (tmp_path / "red.png").write_bytes(picture(RED))
    (tmp_path / "blue.png").write_bytes(picture(BLUE))

    def written(rows: Sequence[Any], **fields: Any) -> list[Sample]:
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        (tmp_path / "items.jsonl").write_text("\n".join(lines), "utf-8")
        return load_samples(manifest(tmp_path, **fields), "train")

    return written


Load = Callable[..., list[Sample]]
ITEM: Row = {"image": "red.png", "question": "What color?", "answer": "red"}
CHOICE: Row = {"question": "Which?", "options": ["cat", "dog", "owl"], "answer": 1}
LETTER = {"answer": "letter", "prompt": "{question}\n{options}"}


def color(image: ImageRef) -> Any:
    return decode_image(image).getpixel((0, 0))


def test_limit_draws_over_a_sorted_file_and_grows(load: Load, tmp_path: Path) -> None:
    rows = [{"image": "red.png", "question": "?", "answer": "cat" if k < 500 else "dog"} for k in range(1000)]
    everything = load(rows)
    held = manifest(tmp_path)
    some, more = load_samples(held, "train", 40), load_samples(held, "train", 80)
    assert (len(some), len(more)) == (40, 80)
    assert 10 <= sum(sample.answer == "cat" for sample in some) <= 30
    assert set(some) < set(more) < set(everything)
    assert [int(sample.id) for sample in some] == sorted(int(sample.id) for sample in some)


# Layouts.


def test_json_lines_with_a_folder_of_pictures(load: Load) -> None:
    (sample,) = load([ITEM])
    assert (sample.id, sample.prompt, sample.answer) == ("0", "What color?", "red")
    assert sample.clusters == ("image=red.png",)
    assert color(sample.images[0]) == RED


def test_gzipped_json_lines_with_a_zip_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "pictures.zip", "w") as archive:
        archive.writestr("in/red.png", picture(RED))
    row = ITEM | {"image": "in/red.png"}
    (tmp_path / "data" / "items.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    source = {"root": "data", "images": "pictures.zip"}
    made = manifest(tmp_path, source=source, splits={"train": {"files": ["items.jsonl.gz"]}})
    assert color(load_samples(made, "train")[0].images[0]) == RED


def parquet(folder: Path, rows: Sequence[Row], **source: Any) -> Manifest:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "items.parquet")
    splits = {"train": {"files": ["items.parquet"]}}
    return manifest(folder, source={"kind": "parquet"} | source, splits=splits)


@pytest.mark.parametrize("held", [{"bytes": picture(), "path": "x.png"}, picture()])
def test_parquet_with_pictures_inside(tmp_path: Path, held: object) -> None:
    (sample,) = load_samples(parquet(tmp_path, [ITEM | {"image": held}]), "train")
    assert color(sample.images[0]) == RED


@pytest.mark.parametrize("held", [{"bytes": None, "path": "blue.png"}, "blue.png"])
def test_parquet_with_paths_of_pictures(tmp_path: Path, held: object) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "blue.png").write_bytes(picture(BLUE))
    made = parquet(tmp_path, [ITEM | {"image": held}], images="pictures")
    assert color(load_samples(made, "train")[0].images[0]) == BLUE


def test_a_table_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([value]) for value in "abc"], ["question", "question", "answer"])
    pq.write_table(table, tmp_path / "items.parquet")
    made = manifest(tmp_path, source={"kind": "parquet"}, splits={"train": {"files": ["items.parquet"]}})
    with pytest.raises(UserError, match=r"items\.parquet: .* two columns 'question'"):
        load_samples(made, "train")


def test_a_date_that_python_cannot_hold_is_refused_by_its_column(tmp_path: Path) -> None:
    table = pa.table({"question": ["a"], "answer": ["b"], "when": pa.array([2**31 - 1], pa.date32())})
    pq.write_table(table, tmp_path / "items.parquet")
    made = manifest(tmp_path, source={"kind": "parquet"}, splits={"train": {"files": ["items.parquet"]}})
    with pytest.raises(UserError, match=r"items\.parquet: .*column 'when' cannot be read"):
        load_samples(made, "train")


@pytest.mark.parametrize("question", [b"\xff", ["a"], {"text": "a"}])
def test_a_question_that_is_no_text_is_refused(tmp_path: Path, question: object) -> None:
    rows = [{"question": question, "answer": "b"}]
    with pytest.raises(UserError, match=r"item 0 .*`question` must be a text"):
        load_samples(parquet(tmp_path, rows), "train")


def test_pictures_inside_a_table_are_named_by_content(tmp_path: Path) -> None:
    rows = [ITEM | {"image": picture(shown)} for shown in (RED, BLUE, RED)]
    first, second, third = load_samples(parquet(tmp_path, rows), "train")
    assert first.clusters == third.clusters != second.clusters
    assert first.images[0].name == third.images[0].name != second.images[0].name


def llava(folder: Path, records: object) -> list[Sample]:
    (folder / "items.json").write_text(json.dumps(records))
    splits = {"train": {"files": ["items.json"]}}
    return load_samples(manifest(folder, source={"kind": "llava"}, splits=splits), "train")


def turns(*values: str, first: str = "human") -> list[Row]:
    others = {"human": "gpt", "gpt": "human"}
    speakers = [first if i % 2 == 0 else others[first] for i in range(len(values))]
    return [{"from": who, "value": text} for who, text in zip(speakers, values, strict=True)]


def test_a_llava_record_is_one_item_that_asks_for_its_last_reply(tmp_path: Path) -> None:
    talk = turns("<image>\nWhat color?", "Red.", "And its shape?", "A box.")
    (sample,) = llava(tmp_path, [{"id": "a", "image": "red.png", "conversations": talk}])
    assert (sample.id, sample.answer, sample.clusters) == ("a", "A box.", ("image=red.png",))
    spoken = [(turn.speaker.value, turn.parts[-1]) for turn in sample.turns]
    assert spoken == [("user", "\nWhat color?"), ("assistant", "Red."), ("user", "And its shape?")]
    assert sample.images == (sample.turns[0].parts[0],)


def test_a_llava_record_without_a_picture_is_text_only(tmp_path: Path) -> None:
    (sample,) = llava(tmp_path, [{"id": "a", "conversations": turns("Hello?", "Hello.")}])
    assert sample.images == ()


def test_llavas_question_files_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "items.json").write_text(
        json.dumps([{"question_id": 7, "image": "red.png", "text": "<image>\nWhat color?", "answer": "red"}])
    )
    source = {"kind": "llava", "columns": {"id": "question_id", "question": "text"}}
    made = manifest(tmp_path, source=source, splits={"train": {"files": ["items.json"]}})
    (sample,) = load_samples(made, "train")
    assert (sample.id, sample.prompt, sample.answer, len(sample.images)) == ("7", "\nWhat color?", "red", 1)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Manifest]:
    """A local copy of a Hub dataset, with a configuration named `en`; nothing is cached outside tmp_path."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def copied(train: Sequence[Row], test: Sequence[Row], **fields: Any) -> Manifest:
        folder = tmp_path / "copy"
        (folder / "data").mkdir(parents=True)
        for split, rows in {"train": train, "test": test}.items():
            table = pa.Table.from_pylist(list(rows))
            pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
        files = [{"split": split, "path": f"data/{split}-*"} for split in ("train", "test")]
        front = yaml.safe_dump({"configs": [{"config_name": "en", "data_files": files}]})
        (folder / "README.md").write_text(f"---\n{front}---\n# A copy\n")
        source = {"kind": "hub", "hub_id": "copy", "hub_config": "en"} | fields.pop("source", {})
        splits = {"train": {}, "heldout": {"hub_split": "test"}}
        return manifest(tmp_path, source=source, splits=splits, **fields)

    return copied


Hub = Callable[..., Manifest]


def test_a_hub_dataset_is_read_from_a_local_copy(hub: Hub) -> None:
    rows = [
        {"image": {"bytes": picture(shown), "path": None}, "query": "?", "label": ["x", "y"]} for shown in (RED, BLUE)
    ]
    made = hub(rows[:1], rows[1:], source={"columns": {"question": "query", "answer": "label"}})
    (seen,), (held_out,) = load_samples(made, "train"), load_samples(made, "heldout")
    assert seen.references == ("x", "y")
    assert (color(seen.images[0]), color(held_out.images[0])) == (RED, BLUE)
    assert seen.images[0].name != held_out.images[0].name


def test_a_hub_dataset_may_hold_several_pictures_an_item(hub: Hub) -> None:
    pictures = [{"bytes": picture(shown), "path": None} for shown in (RED, BLUE)]
    made = hub([ITEM | {"image": pictures}], [ITEM | {"image": pictures}])
    assert [color(image) for image in load_samples(made, "train")[0].images] == [RED, BLUE]


def test_a_hub_dataset_may_hold_conversations(hub: Hub) -> None:
    parts = [{"type": "text", "text": "Which is "}, {"type": "image", "text": None}, {"type": "text", "text": "?"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": [{"type": "text", "text": "Red."}]}]
    row = {"messages": turns, "images": [{"bytes": picture(RED), "path": None}]}
    (sample,) = load_samples(hub([row], [row]), "train")
    before, shown, after = sample.turns[0].parts
    assert (before, color(sample.images[0]), after, sample.answer) == ("Which is ", RED, "?", "Red.")
    assert shown == sample.images[0]


def test_a_hub_dataset_that_cannot_be_loaded_is_named(hub: Hub) -> None:
    made = hub([CHOICE], [CHOICE], source={"hub_config": "fr"})
    with pytest.raises(UserError, match=r"mine.yaml: cannot load '.*copy'"):
        load_samples(made, "train")


# Items.


def test_columns_are_mapped_to_our_names(load: Load) -> None:
    rows = [{"file": "red.png", "query": "What color?", "label": "red"}, {"query": "Hi", "label": "x"}]
    columns = {"image": "file", "question": "query", "answer": "label"}
    first, second = load(rows, source={"columns": columns})
    assert (first.prompt, first.answer, len(first.images), len(second.images)) == ("What color?", "red", 1, 0)


def test_a_mapped_column_that_no_item_has_is_refused(load: Load) -> None:
    with pytest.raises(UserError, match="no item of split 'train' has the column fiel"):
        load([CHOICE], source={"columns": {"image": "fiel"}}, **LETTER)


@pytest.mark.parametrize("answer", [1, "1", "B", "b", "dog"])
def test_a_lettered_answer_may_be_an_index_a_letter_or_the_option(load: Load, answer: object) -> None:
    (sample,) = load([CHOICE | {"answer": answer}], **LETTER)
    assert (sample.answer, sample.references, sample.target) == ("B", ("B",), 1)
    assert sample.prompt == "Which?\nA. cat\nB. dog\nC. owl"


def test_the_text_of_an_option_goes_before_its_reading_as_index_or_letter(load: Load) -> None:
    letters, numbers = (
        CHOICE | {"options": ["C", "B", "A"], "answer": "A"},
        CHOICE | {"options": ["3", "2", "1"], "answer": "1"},
    )
    assert [sample.answer for sample in load([letters, numbers], **LETTER)] == ["C", "C"]


@pytest.mark.parametrize("answer", [3, -1, "D", "bird", "", None, True, 1.5])
def test_an_answer_outside_the_options_is_refused(load: Load, answer: object) -> None:
    with pytest.raises(UserError, match=r"item 0 of split 'train': .*answer"):
        load([CHOICE | {"answer": answer}], **LETTER)


def test_a_number_among_options_that_are_numbers_is_no_index(load: Load) -> None:
    with pytest.raises(UserError, match="no letter, index or text"):
        load([CHOICE | {"options": ["5", "6", "7"], "answer": "1"}], **LETTER)


def test_options_may_be_shared_and_overridden(load: Load) -> None:
    rows = [{"question": "a", "answer": "yes"}, {"question": "b", "answer": "so", "options": ["so", "no"]}]
    first, second = load(rows, answer="option", options=["yes", "no"])
    assert (first.options, first.answer) == (("yes", "no"), "yes")
    assert (second.options, second.answer) == (("so", "no"), "so")
    with pytest.raises(UserError, match="answer 'maybe' is not one of the options"):
        load([{"question": "a", "answer": "maybe"}], answer="option", options=["yes", "no"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["cat", "dog", "cat "], "two options read 'cat'"),
        (["cat", ""], "an option is empty"),
        (["cat", None], "an option is empty"),
        (["cat"], "two or more"),
        ([], "two or more"),
        ("['cat', 'dog']", "must be a list"),
        (list(map(str, range(27))), "only 26 letters"),
    ],
)
def test_options_that_no_answer_can_be_read_from_are_refused(load: Load, options: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load([CHOICE | {"options": options}], **LETTER)


def test_an_open_answer_may_list_everything_accepted(load: Load) -> None:
    first, second = load([ITEM | {"answer": ["red", "crimson"]}, ITEM | {"answer": 7}])
    assert (first.answer, first.references) == ("red", ("red", "crimson"))
    assert (second.answer, second.references) == ("7", ("7",))


@pytest.mark.parametrize("answer", [[], "", ["red", ""], {"answer": "red"}, [{"answer": "red"}], None])
def test_an_open_answer_without_text_is_refused(load: Load, answer: object) -> None:
    with pytest.raises(UserError, match="`answer`"):
        load([ITEM | {"answer": answer}])


def test_an_item_without_a_picture_is_its_own_cluster(load: Load) -> None:
    (sample,) = load([{"id": "t1", "question": "One and one?", "answer": "2", "image": None}])
    assert (sample.images, sample.clusters) == ((), ("image=t1",))


def test_an_item_may_show_several_pictures(load: Load) -> None:
    (sample,) = load([ITEM | {"image": ["red.png", "blue.png"]}])
    assert [color(image) for image in sample.images] == [RED, BLUE]


def test_text_of_any_script_and_separator_arrives_unchanged(load: Load) -> None:
    question = "Wie heißt «das»?\u2028次の行\x85 🦉 \\n"
    (sample,) = load([ITEM | {"question": question, "answer": "梟"}])
    assert (sample.prompt, sample.answer) == (question, "梟")


def test_a_byte_order_mark_is_no_part_of_the_first_item(load: Load) -> None:
    assert load(["\ufeff" + json.dumps(ITEM)])[0].answer == "red"


def test_two_cluster_fields_give_two_labels(load: Load) -> None:
    (sample,) = load([ITEM | {"fact": "shirt/season"}], cluster_by=["image", "fact"])
    assert sample.clusters == ("image=red.png", "fact=shirt/season")


@pytest.mark.parametrize("limit", [None, 1])
def test_a_set_of_pictures_without_any_is_refused(load: Load, tmp_path: Path, limit: int | None) -> None:
    blind = {"image_domains": ["pictures"], "source": {"columns": {"image": "file"}}}
    rows = [{"file": None, "img": "red.png", "question": "?", "answer": "red"}] * 3
    with pytest.raises(UserError, match=r"split 'train': no item has a picture, but `image_domains` are pictures"):
        load(rows, **blind)
    with pytest.raises(UserError, match="no item has a picture"):
        load_samples(manifest(tmp_path, **blind), "train", limit)
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, [*rows, rows[0] | {"file": "red.png"}])))
    assert len(load_samples(manifest(tmp_path, **blind), "train", limit)) == (limit or 4)


# Prompts.


def test_braces_in_a_question_are_kept(load: Load) -> None:
    assert load([ITEM | {"question": "What is {x} or {0} in {}?"}])[0].prompt == "What is {x} or {0} in {}?"


def test_any_field_may_appear_in_the_prompt(load: Load) -> None:
    (sample,) = load([ITEM | {"hint": "look"}], prompt="{{{hint}}} {question}")
    assert sample.prompt == "{look} What color?"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{qestion}", r"asks for \{qestion\}, which the item lacks"),
        ("{question} {hint}", r"asks for \{hint\}, which the item lacks"),
        ("{question", "no template"),
        ("{question}}", "no template"),
        ("{} {question}", "no template"),
        (" ", "the prompt is empty"),
        ("{question.__class__}", r"no template: \{question.__class__\} is no name of a field"),
        ("{id[0]}", r"no template: \{id\[0\]\} is no name"),
        ("{id!r}", r"no template: \{id!r\} is no name"),
        ("{id:>{id}}", r"no template: \{id:>\{id\}\} is no name"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_refused(load: Load, prompt: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load([ITEM | {"hint": None}], prompt=prompt)


# The class-label probe.


def test_the_probe_knows_the_option_that_is_the_class_name(load: Load) -> None:
    assert load([CHOICE | {"class_option": 2}], probe=True, **LETTER)[0].class_option == 2


@pytest.mark.parametrize("given", [None, 3, -1, 1, "owl"])
def test_the_probe_needs_a_wrong_option_that_is_the_class_name(load: Load, given: object) -> None:
    with pytest.raises(UserError, match="class_option"):
        load([CHOICE | {"class_option": given}], probe=True, **LETTER)


# Refusals.


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"items.jsonl of split 'train' does not exist"):
        load_samples(manifest(tmp_path), "train")


@pytest.mark.parametrize("line", ["{broken", "[1, 2]", '"text"'])
def test_a_bad_line_is_named_by_its_number(load: Load, line: str) -> None:
    with pytest.raises(UserError, match=r"items.jsonl:3: not (a )?JSON"):
        load([ITEM, "", line])


@pytest.mark.parametrize(("kind", "name"), [("parquet", "x.parquet"), ("llava", "x.json"), ("jsonl", "x.jsonl.gz")])
def test_a_file_of_another_format_is_named(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1 is not enough")
    made = manifest(tmp_path, source={"kind": kind}, splits={"train": {"files": [name]}})
    with pytest.raises(UserError, match=rf"{name}: not readable"):
        load_samples(made, "train")


def test_a_llava_record_without_conversations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"item 0 of split 'train': field 'answer' is missing \(id 'a'\)"):
        llava(tmp_path, [{"id": "a"}])


@pytest.mark.parametrize("name", ["../red.png", "in/../../red.png", "/etc/passwd"])
def test_a_picture_outside_the_folder_is_refused(load: Load, name: str) -> None:
    with pytest.raises(UserError, match="outside the dataset's folder"):
        load([ITEM | {"image": name}])


@pytest.mark.parametrize("image", ["", 7, {"bytes": None, "path": None}, [None]])
def test_what_is_no_picture_is_refused(load: Load, image: object) -> None:
    with pytest.raises(UserError, match="`image` must be"):
        load([ITEM | {"image": image}])


def test_repeated_ids_are_refused_by_name(load: Load) -> None:
    with pytest.raises(UserError, match="item 1 of split 'train': id 'a' is not unique"):
        load([ITEM | {"id": "a"}, ITEM | {"id": "a"}])


def test_a_missing_field_is_told_with_those_there_are(load: Load) -> None:
    with pytest.raises(UserError, match=r"field 'answer' is missing.\nThe item's fields: image, label"):
        load([{"image": "red.png", "label": "red"}], prompt="What color?")


def test_an_empty_split_is_refused(load: Load) -> None:
    with pytest.raises(UserError, match="split 'train' has no items"):
        load([])


def test_a_split_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'dev' \(it has: train\)"):
        load_samples(manifest(tmp_path), "dev")
    with pytest.raises(UserError, match="split 'train' lists no `files`"):
        load_samples(manifest(tmp_path, splits={"train": {}}), "train")


def test_a_mixture_has_no_items_of_its_own(tmp_path: Path) -> None:
    made = manifest(tmp_path, source=None, splits=None, mixture={"a": 1.0})
    with pytest.raises(UserError, match="a mixture has no items of its own"):
        load_samples(made, "train")


def test_a_missing_picture_is_named(load: Load, tmp_path: Path) -> None:
    (sample,) = load([ITEM | {"image": "green.png"}])
    with pytest.raises(UserError, match=r"Picture 'green.png' cannot be read"):
        read_image(sample.images[0])
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"Picture 'a.png' cannot be read from .*broken.zip"):
        read_image(ImageRef(str(tmp_path / "broken.zip"), "a.png"))


@pytest.mark.parametrize("size", [(10_001, 10_000), (20_000, 10_000)])
def test_an_oversize_picture_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    held = io.BytesIO()
    Image.new("1", size).save(held, "PNG")
    with pytest.raises(UserError, match=r"'big.png' of x has over 100,000,000 pixels"):
        decode_image(ImageRef("x", "big.png", held.getvalue()))


@pytest.mark.parametrize("kept", [0, 30, -30])
def test_a_truncated_picture_is_refused_by_name(kept: int) -> None:
    with pytest.raises(UserError, match=r"Picture 'cut.png' of x is broken"):
        decode_image(ImageRef("x", "cut.png", picture()[:kept]))


def test_a_large_picture_is_shrunk_to_the_pixels_allowed() -> None:
    held = io.BytesIO()
    Image.new("L", (400, 100)).save(held, "PNG")
    shrunk = decode_image(ImageRef("x", "wide.png", held.getvalue()), max_pixels=10_000)
    assert (shrunk.mode, shrunk.size) == ("RGB", (200, 50))


# Manifests.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sorce": {}}, "there is no key 'sorce'. Did you mean source"),
        ({"source": {"image": "x"}}, "there is no key 'source.image'. Did you mean images"),
        ({"source": {"kind": "csv"}}, "source.kind: .*csv"),
        ({"splits": {"train": {"n": "many"}}}, r"splits.train.n: .*many"),
        ({"prompt": ["a"]}, "prompt: "),
        ({"mixture": {"a": 1}}, "either `source` or `mixture`"),
        ({"source": None}, "either `source` or `mixture`"),
        ({"name": "other"}, "`name` is 'other'"),
        ({"splits": {}}, "`splits` is empty"),
        ({"source": None, "mixture": {"a": 1}}, "drop `splits`"),
        ({"source": {"kind": "hub"}}, "`source.hub_id` goes with"),
        ({"source": {"hub_id": "a/b"}}, "`source.hub_id` goes with"),
        ({"image_domains": []}, "list `image_domains`"),
        ({"cluster_by": []}, "`cluster_by` names 0 fields"),
        ({"eval_split": "val"}, r"`eval_split: val` is none of its splits \(train\)"),
        ({"train_split": "trian"}, r"`train_split: trian` is none of its splits .* write train_split: ''"),
        ({"source": None, "splits": None, "mixture": {"a": 1}, "eval_split": "test"}, "drop `eval_split`"),
    ],
)
def test_a_manifest_that_does_not_fit_is_told_where(tmp_path: Path, fields: Row, message: str) -> None:
    with pytest.raises(UserError, match=rf"mine.yaml: .*{message}"):
        manifest(tmp_path, **fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: [", "line 1 is not readable as YAML"),
        ("title: a\n\tb: c", "line 2 is not readable as YAML"),
        ("title: a\nsource:\n  {kind: hub,\n   kind: jsonl}", "line 4 .*: the key 'kind' is on line 3 already"),
        ("- a\n- b\n", ""),
        ("just text", ""),
        ("", "either `source` or `mixture`"),
    ],
)
def test_a_manifest_that_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"mine.yaml: .*{message}"):
        load_manifest(tmp_path / "mine.yaml")


def test_twenty_thousand_items_load_in_a_second_or_two(tmp_path: Path) -> None:
    rows = [json.dumps(CHOICE | {"id": i, "image": f"{i}.png"}) for i in range(20_000)]
    (tmp_path / "items.jsonl").write_text("\n".join(rows))
    made = manifest(tmp_path, **LETTER)
    started_s = time.process_time()
    assert len(load_samples(made, "train")) == 20_000
    assert time.process_time() - started_s < 6  # about 0.6 s on an idle core
