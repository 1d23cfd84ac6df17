"""Public sets: every manifest is complete, and reads a few rows laid out as its publisher does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from forgetbench.commands.data_list import data_list
from forgetbench.compose import compose
from forgetbench.config import FinetuneConfig
from forgetbench.core.errors import UserError
from forgetbench.core.paths import shipped
from forgetbench.core.records import AnswerKind, ImageRef
from forgetbench.data.adapters import ADAPTERS
from forgetbench.data.manifest import DOWNLOADS, Manifest
from forgetbench.data.manifest_file import load_manifest
from forgetbench.data.pictures import decode_image
from forgetbench.data.quadrant import place
from forgetbench.data.sources import load_samples
from forgetbench.scoring.vqa import vqa_accuracy
from tests.data.public_rows import COLORS, FILES, HUB, Case, encoded

CASES = HUB | FILES
BUILT = ("imagenet_vqa", "imagenetv2_vqa", "flowers102_vqa", "caltech101_vqa", "stanford_cars_vqa")
"""Sets that `forgetbench data build` makes."""
SEQUENCES = ("coin_", "mllm_cl_", "ucit_")
"""Sets whose files test_sequences.py reads."""
MANIFESTS = {path.stem: load_manifest(path) for path in sorted(shipped("data_manifests").glob("*.yaml"))}
PUBLIC = [name for name, manifest in MANIFESTS.items() if manifest.is_public]


def table(case: Case, rows: Any) -> pa.Table:
    """Rows as the Hub's Parquet: pictures are declared as such, numbers have the card's width."""
    import datasets

    made = pa.Table.from_pylist(list(rows))
    for column, kind in case.types.items():
        if column in made.column_names:
            place = made.column_names.index(column)
            made = made.set_column(place, column, made[column].cast(pa.type_for_alias(kind)))
    described = datasets.Features.from_arrow_schema(made.schema)
    for column in made.column_names:
        value = next((row[column] for row in rows if row[column] is not None), None)
        held = value[0] if isinstance(value, list) and value else value
        if (isinstance(held, dict) and "bytes" in held) or re.fullmatch(r"(choice_)?image_\d", column):
            described[column] = datasets.List(datasets.Image()) if isinstance(value, list) else datasets.Image()
    return made.cast(described.arrow_schema)


def write_hub(folder: Path, case: Case) -> list[str]:
    """A local folder laid out as a dataset repository; returns its configurations."""
    configs: dict[str, list[dict[str, str]]] = {}
    for name, rows in case.rows.items():
        config, _, split = name.rpartition("/")
        file = f"{config or 'data'}/{split}-00000-of-00001.parquet"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(case, rows), folder / file)
        configs.setdefault(config or "default", []).append({"split": split, "path": file})
    front = yaml.safe_dump({"configs": [{"config_name": key, "data_files": files} for key, files in configs.items()]})
    (folder / "README.md").write_text(f"---\n{front}---\n")
    return list(configs)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Manifest]:
    """A set's manifest with a few published rows where it looks for them; nothing is cached outside tmp_path."""
    monkeypatch.setenv(DOWNLOADS, str(tmp_path / "downloads"))

    def written(name: str) -> Manifest:
        case = CASES[name]
        if name in FILES:
            manifest = MANIFESTS[name]
            for file, rows in case.rows.items():
                path = manifest.root / file
                path.parent.mkdir(parents=True, exist_ok=True)
                lines = path.suffix == ".jsonl"
                path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), "utf-8")
            return manifest
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        datasets.disable_progress_bars()
        source = MANIFESTS[name].source
        assert source
        configs = write_hub(tmp_path / "repository", case)
        if configs == ["default"]:
            assert source.hub_config is None
        else:
            assert set(configs) <= set(source.hub_configs)
            source = replace(source, hub_config="+".join(configs))
        return replace(MANIFESTS[name], source=replace(source, hub_id=str(tmp_path / "repository")))

    return written


Published = Callable[[str], Manifest]


def color(image: ImageRef) -> str:
    shown = decode_image(image).getpixel((0, 0))
    return next(name for name, value in COLORS.items() if value == shown)


@pytest.mark.parametrize("name", CASES)
def test_a_few_rows_in_the_published_layout_become_these_items(name: str, published: Published) -> None:
    case, manifest = CASES[name], published(name)
    samples = {split: load_samples(manifest, split) for split in manifest.splits}
    assert {split: len(items) for split, items in samples.items()} == dict(case.n)
    first = samples[manifest.eval_split or manifest.train_split][0]
    for image in first.images:
        if image.data is None:  # a file of its own, which goes where it is looked for
            path = Path(image.container, image.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded("red"))
    named = {f"image={image.name}": f"image={color(image)}" for image in first.images if image.data is not None}
    clusters = tuple(named.get(label, label) for label in first.clusters)
    assert (first.id, first.prompt, first.options, clusters) == (case.id, case.prompt, case.options, case.clusters)
    accepted = (case.answer,) if isinstance(case.answer, str) else case.answer
    assert (first.kind, first.answer, first.references) == (manifest.answer, accepted[0], accepted)
    assert (tuple(map(color, first.images)), first.class_name) == (case.pictures, case.class_name)


def test_every_public_set_has_rows_to_be_tested_on() -> None:
    assert sorted(CASES) == sorted(name for name in PUBLIC if not name.startswith(SEQUENCES))
    assert len(PUBLIC) >= 35


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_set_says_where_it_is_from_and_what_is_not_known(name: str) -> None:
    manifest = MANIFESTS[name]
    keys = re.findall(r"^(\w+):", Path(manifest.path).read_text("utf-8"), re.MULTILINE)
    assert len(keys) == len(set(keys))
    assert not manifest.verified
    assert not manifest.is_here
    assert all((manifest.title, manifest.licence, manifest.citation, manifest.notes))
    assert manifest.homepage.startswith("https://")
    named = {split for split in (manifest.train_split, manifest.eval_split) if split}
    assert named
    assert named <= manifest.splits.keys()
    assert manifest.source
    if manifest.is_on_hub:
        pinned = re.fullmatch("[0-9a-f]{40}", manifest.source.revision or "")
        assert pinned or "resolve and pin" in " ".join(manifest.notes.split())


def test_a_set_of_the_hub_is_here_only_as_a_local_folder(published: Published) -> None:
    assert MANIFESTS["pope"].is_on_hub
    copy = published("pope")
    assert (copy.is_on_hub, copy.is_public, copy.is_here) == (False, False, True)


def test_the_list_of_datasets_shows_those_on_this_machine_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("forgetbench.data.catalogue.load_manifest", lambda path: MANIFESTS[path.stem])
    data_list(compose(FinetuneConfig, ["data=imagenet_vqa"]), [], show_all=False, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    here = [row["downloaded"] for row in rows]
    assert here == sorted(here, reverse=True)
    assert [row["name"] for row in rows if not row["downloaded"]] == PUBLIC


@pytest.mark.parametrize("name", [name for name in CASES if name not in BUILT])
def test_the_table_of_public_benchmarks_agrees_with_the_manifests(name: str) -> None:
    manifest = MANIFESTS[name]
    assert manifest.source
    origin = manifest.source.hub_id or manifest.source.root
    scored = manifest.metric if manifest.answer is AnswerKind.text else manifest.answer
    row = f"| `{name}` | `{origin}` | {', '.join(manifest.splits)} | {scored} |"
    assert row in (Path(__file__).parents[2] / "docs/data.md").read_text("utf-8")


def test_every_adapter_serves_a_manifest_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    used = {manifest.source.adapter for manifest in MANIFESTS.values() if manifest.source}
    assert used - {None} == set(ADAPTERS)
    text = Path(MANIFESTS["imagewikiqa"].path).read_text("utf-8")
    (tmp_path / "mine.yaml").write_text(text.replace("adapter: imagewikiqa", "adapter: imagewikqa"))
    with pytest.raises(UserError, match=r"`source.adapter: imagewikqa` is unknown. Did you mean imagewikiqa\?"):
        load_manifest(tmp_path / "mine.yaml")


# The matrix of arXiv 2603.14493.


def test_the_matrix_of_imagenet_has_the_quadrants_of_its_paper() -> None:
    given = yaml.safe_load((shipped("conf") / "matrix/imagenet.yaml").read_text("utf-8"))
    target = MANIFESTS["imagenet_vqa"]
    placed = {name: place(target, MANIFESTS[name]).quadrant for name in given["datasets"]}
    assert placed == {
        "imagenet_vqa": "id_text-id_image",
        "imagenetv2_vqa": "id_text-id_image",
        "flowers102_vqa": "id_text-ood_image",
        "caltech101_vqa": "id_text-ood_image",
        "stanford_cars_vqa": "id_text-ood_image",
        "imagewikiqa": "ood_text-id_image",
        "mmmu_val": "ood_text-ood_image",
        "vmcbench_dev": "ood_text-ood_image",
    }
    assert [name for name in given["datasets"] if MANIFESTS[name].shift] == ["imagenetv2_vqa"]
    assert given["class_probe"] == ["imagewikiqa"]


@pytest.mark.parametrize("name", ["imagenet", "imagenetv2", "flowers102", "caltech101", "stanford_cars", "imagewikiqa"])
def test_a_ready_made_set_stands_where_the_one_built_here_does(name: str) -> None:
    ready, built = MANIFESTS[f"vlmf_{name}"], MANIFESTS["imagewikiqa" if name == "imagewikiqa" else f"{name}_vqa"]
    assert (ready.image_domains, ready.text_tasks, ready.shift) == (built.image_domains, built.text_tasks, built.shift)


@pytest.mark.parametrize("auxiliary", ["ocrvqa", "llava_665k"])
def test_vmcbench_is_seen_in_the_usual_mix_unless_those_sources_are_left_out(auxiliary: str) -> None:
    target, mixed = MANIFESTS["imagenet_vqa"], [MANIFESTS[auxiliary]]
    assert place(target, MANIFESTS["vmcbench_dev"], mixed).seen_in_mix
    assert not place(target, MANIFESTS["vmcbench_dev_unmixed"], mixed).seen_in_mix


def test_imagewikiqa_becomes_a_class_label_probe(published: Published) -> None:
    (sample,) = load_samples(published("imagewikiqa"), "test", distract=True)
    assert sample.options[sample.class_option or 0] == "tench"
    assert sample.options[0] == "Cyprinidae"
    assert sample.answer == "A"


# Odd rows.


def test_a_picture_of_mmmu_stands_wherever_it_is_named(published: Published) -> None:
    second = load_samples(published("mmmu_val"), "validation")[1]
    assert [color(image) for image in second.images] == ["red", "red", "blue"]
    assert second.prompt.splitlines()[:4] == ["Question: Who painted <image>?", "Options:", "A. <image>", "B. <image>"]
    assert second.options == ("<image 1>", "<image 2>")


def test_a_picture_of_mmmu_that_only_the_explanation_names_is_left_out() -> None:
    row = {"question_type": "multiple-choice", "answer": "A", "image_1": "x", "image_2": "y", "image_3": "z"}
    row |= {"question": "Is <image 3> like <image 1>?", "options": "['<image 3>', 'no']"}
    (item,) = ADAPTERS["mmmu_choice"](iter([row]))
    assert (item["image"], item["question"]) == (["x", "z"], "Is <image 2> like <image 1>?")
    assert item["options"] == ["<image 2>", "no"]
    (item,) = ADAPTERS["mmmu_choice"](iter([row | {"question": "Is it?", "options": "['yes', 'no']"}]))
    assert item["image"] == ["x", "y", "z"]
    with pytest.raises(ValueError, match=r"name the pictures \[1, 4\], and not all are there"):
        next(ADAPTERS["mmmu_choice"](iter([row | {"question": "Is <image 4> <image 1>?", "options": "['a', 'b']"}])))


def test_an_option_offered_twice_is_offered_once(published: Published) -> None:
    second = load_samples(published("vlmf_imagenet"), "test")[1]
    assert (second.options, second.answer, second.class_name) == (("crane", "tench", "cock"), "A", "crane")


def test_an_item_of_iconqa_whose_choices_are_cut_inside_is_left_out(published: Published) -> None:
    shown = [sample.options for sample in load_samples(published("iconqa"), "test")]
    assert shown == [("2", "3", "5"), ("yes", "no")]


def test_an_open_answer_of_mmmu_that_only_begins_like_a_list_is_a_text() -> None:
    row = {"question_type": "open", "question": "?", "options": "[]"}
    rows = [row | {"answer": answer} for answer in ("[0, 1)", "['8/3', '2.667']", "7")]
    assert [row["answer"] for row in ADAPTERS["mmmu_open"](iter(rows))] == ["[0, 1)", ["8/3", "2.667"], "7"]


def test_an_annotator_who_answered_nothing_counts_in_vqa_accuracy(published: Published) -> None:
    (sample,) = load_samples(published("vizwiz_vqa"), "validation")
    assert sample.references == ("unanswerable", "unanswerable", "yes", "")
    # Leaving out each in turn, the others agree 1, 1, 2 and 2 times.
    assert vqa_accuracy("Unanswerable", sample.references) == pytest.approx((1 + 1 + 2 + 2) / 3 / 4)


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("ai2d", "answer", "4", r"answer '4' is outside the options"),
        ("vmcbench_dev", "answer", "none", "answer 'none' is none of the options' letters A, B, C, D"),
        ("mmbench_dev_en", "answer", "C", "answer 'C' is none of the options' letters A, B"),
        ("mmmu_val", "options", "['a', 'b'", "holds no list"),
        ("gqa", "imageId", "n3", "is on picture n3, which no row before it holds"),
        ("ocrvqa", "answers", ["one"], "shorter than argument 1"),
        ("bsccm", "image", "cell.jpg", "the picture's name 'cell.jpg' has no"),
        ("imagewikiqa", "text", "Which?\nA. red\nC. blue\nB. grey", "options are not lettered line by line"),
        ("imagewikiqa", "text", "Which?\nA. red\nB. blue\nC.\nD. grey", "options are not lettered line by line"),
        ("imagewikiqa", "text", "Which?", r"no lines 'A. ..', 'B. ..' in the question 'Which\?'"),
    ],
)
def test_a_row_that_is_laid_out_otherwise_is_refused_by_name(
    name: str, field: str, value: object, message: str, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    odd = {place: [rows[0] | {field: value}] if field in rows[0] else rows for place, rows in case.rows.items()}
    monkeypatch.setitem(CASES, name, replace(case, rows=odd))
    manifest = published(name)
    with pytest.raises(
        UserError, match=rf"(?s)row \d+ of split .* as the adapter '.*' expects: .*{message}.*copy the manifest"
    ):
        load_samples(manifest, manifest.eval_split)


def test_a_missing_field_of_a_row_is_named(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "pope", replace(CASES["pope"], rows={"test": [{"question": "Is it?"}]}))
    with pytest.raises(UserError, match=r"row 0 of split 'test' .* expects: field 'answer' is missing"):
        load_samples(published("pope"), "test")


def test_a_json_file_that_is_no_list_of_objects_is_refused(published: Published) -> None:
    manifest = published("vlmf_ocrvqa")
    for text, message in {"{}": "a list of records is expected", "[1]": "each record must be an object"}.items():
        (manifest.root / "OCR-VQA/test.json").write_text(text)
        with pytest.raises(UserError, match=rf"test.json: not readable as jsonl: {message}"):
            load_samples(manifest, "test")
