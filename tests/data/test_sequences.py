"""The public continual-learning sequences: their order, and their files in the public layouts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from forgetbench.core.errors import UserError
from forgetbench.core.paths import shipped
from forgetbench.core.records import AnswerKind, Metric, Prediction, Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import DOWNLOADS, Manifest
from forgetbench.data.pictures import decode_image
from forgetbench.data.sources import load_samples
from forgetbench.scoring.answers import score_answers

Row = dict[str, Any]
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "mllm_cl_domain": {"mllm_cl_rs": 1, "mllm_cl_med": 3, "mllm_cl_ad": 1, "mllm_cl_sci": 2, "mllm_cl_fin": 1},
    "ucit": dict.fromkeys(
        ("ucit_imagenet_r", "ucit_arxivqa", "ucit_vizwiz", "ucit_iconqa", "ucit_clevr_math", "ucit_flickr30k"), 1
    ),
    "coin": dict.fromkeys(
        ("coin_scienceqa", "coin_textvqa", "coin_imagenet", "coin_gqa", "coin_vizwiz", "coin_grounding", "coin_vqav2",
         "coin_ocrvqa"), 1
    ),
}  # fmt: skip
"""Sequence -> its tasks in order, with the epochs of each."""
MATRIX = {"mllm_cl_domain": "mllm_cl"}
SETS = [name for tasks in PUBLISHED.values() for name in tasks]
CAPTIONS = ["A dog runs.", "The dog is running."]
BOX = "[0.10, 0.20, 0.30, 0.40]"


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Manifest]:
    """Two training and two test items of a set, where its manifest looks for them, in the public layout."""
    monkeypatch.setenv(DOWNLOADS, str(tmp_path))

    def written(name: str) -> Manifest:
        manifest = Catalogue().load(name)
        assert manifest.source
        for picture in ("images/a.png", "images/b.png"):
            path = manifest.root / manifest.source.images / picture
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 2), "red").save(path)
        rows = {"train": [talk(place) for place in "ab"], "test": [asked(manifest, place) for place in "ab"]}
        for split, items in rows.items():
            (file,) = manifest.split(split).files
            (manifest.root / file).parent.mkdir(parents=True, exist_ok=True)
            (manifest.root / file).write_text(json.dumps(items))
        if manifest.split("test").references:
            (manifest.root / str(manifest.split("test").references)).write_text(json.dumps(references(manifest)))
        return manifest

    return written


Downloaded = Callable[[str], Manifest]


def talk(place: str) -> Row:
    """A training record: LLaVA's conversations."""
    turns = [("human", f"<image>\nWhat is {place}?"), ("gpt", "B")]
    spoken = [{"from": who, "value": text} for who, text in turns]
    return {"id": "same", "image": f"images/{place}.png", "conversations": spoken}


def asked(manifest: Manifest, place: str) -> Row:
    """A test record: LLaVA's question files."""
    right = {"answer_bbox": BOX, "size": [4, 2]} if manifest.metric is Metric.box_match else {"answer": "B"}
    return {"question_id": f"q-{place}", "image": f"images/{place}.png", "text": f"What is {place}?"} | right


def references(manifest: Manifest) -> Row:
    """What is accepted, in a file of its own: COCO's captions, or TextVQA's answers."""
    if manifest.metric is not Metric.cider_d:
        # Of ten annotators, one wrote nothing.
        return {"data": [{"question_id": f"q-{place}", "answers": [*["B"] * 9, ""]} for place in "ab"]}
    images = [{"id": number, "file_name": f"{place}.png"} for number, place in enumerate("ab", start=1)]
    captions = [{"image_id": image["id"], "caption": caption} for image in images for caption in CAPTIONS]
    return {"images": images, "annotations": captions}


def accepted(manifest: Manifest) -> tuple[str, ...]:
    special = {Metric.cider_d: tuple(CAPTIONS), Metric.vqa_accuracy: (*("B",) * 9, ""), Metric.box_match: (BOX,)}
    return special.get(manifest.metric, ("B",))


@pytest.mark.parametrize("name", SETS)
def test_training_and_test_files_are_read_as_their_publishers_lay_them_out(name: str, downloaded: Downloaded) -> None:
    manifest = downloaded(name)
    assert manifest.is_here
    train, test = load_samples(manifest, "train"), load_samples(manifest, "test")
    assert [(sample.prompt, sample.answer) for sample in train] == [("\nWhat is a?", "B"), ("\nWhat is b?", "B")]
    assert all(sample.is_question for sample in train)
    assert [sample.prompt for sample in test] == ["What is a?", "What is b?"]
    assert {sample.references for sample in test} == {accepted(manifest)}
    assert [sample.clusters for sample in test] == [("image=images/a.png",), ("image=images/b.png",)]
    assert decode_image(test[0].images[0]).size == (4, 2)
    ids = ["0", "1"] if name == "coin_imagenet" else ["q-a", "q-b"]  # CoIN scores its ImageNet by place
    assert [sample.id for sample in test] == ids


@pytest.mark.parametrize("name", [name for name in SETS if Catalogue().load(name).metric is not Metric.cider_d])
def test_the_right_answer_scores_1_and_another_0(name: str, downloaded: Downloaded) -> None:
    manifest = downloaded(name)
    samples = load_samples(manifest, "test")
    predictions = [Prediction(text=samples[0].references[0]), Prediction(text="[0.7, 0.7, 0.9, 0.9]")]
    assert [answer.score for answer in score_answers(samples, predictions, manifest.metric)] == [1, 0]


@pytest.mark.parametrize("sequence", PUBLISHED)
def test_a_sequence_has_the_published_order_and_epochs(sequence: str) -> None:
    given = yaml.safe_load((shipped("conf") / f"data/{sequence}.yaml").read_text("utf-8"))["stages"]
    assert [(stage["set"], stage["epochs"]) for stage in given] == list(PUBLISHED[sequence].items())
    matrix = shipped("conf") / f"matrix/{MATRIX.get(sequence, sequence)}.yaml"
    assert yaml.safe_load(matrix.read_text("utf-8"))["datasets"] == list(PUBLISHED[sequence])


@pytest.mark.parametrize("name", SETS)
def test_a_set_that_is_not_downloaded_says_so_and_where_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DOWNLOADS, raising=False)
    monkeypatch.chdir(tmp_path)
    manifest = Catalogue().load(name)
    assert not manifest.is_here
    assert manifest.root.is_relative_to(tmp_path / "downloads")
    assert manifest.homepage.startswith("https://huggingface.co/datasets/")
    assert "not checked against the hub" in " ".join(manifest.notes.split())
    with pytest.raises(UserError, match=rf"(?s)does not exist.*{manifest.homepage}; docs/data.md.*{DOWNLOADS}"):
        load_samples(manifest, "train")


@pytest.mark.parametrize("name", ["ucit_vizwiz", "coin_textvqa"])
def test_an_item_without_references_and_a_file_of_none_are_refused(name: str, downloaded: Downloaded) -> None:
    manifest = downloaded(name)
    path = manifest.root / str(manifest.split("test").references)
    held = json.loads(path.read_text())
    path.write_text(json.dumps({key: rows[:1] for key, rows in held.items()}))
    with pytest.raises(UserError, match=r"nothing on '(b.png|q-b)'"):
        load_samples(manifest, "test")
    path.write_text("[]")
    with pytest.raises(UserError, match="neither COCO's captions nor TextVQA's answers"):
        load_samples(manifest, "test")
    path.unlink()
    assert not manifest.is_here
    with pytest.raises(UserError, match="does not exist"):
        load_samples(manifest, "test")


def test_a_column_of_one_split_is_not_asked_of_another(downloaded: Downloaded) -> None:
    manifest = downloaded("coin_grounding")
    manifest.splits["train"] = replace(manifest.split("train"), columns={"answer": "answer_bbox"})
    with pytest.raises(UserError, match="no item of split 'train' has the column answer_bbox"):
        load_samples(manifest, "train")


@pytest.mark.parametrize("metric", Metric)
def test_every_metric_is_registered_and_a_wrong_answer_scores_0_in_it(metric: Metric) -> None:
    sample = Sample.question(id="0", prompt="Which?", answer="B", kind=AnswerKind.text, references=("B",))
    (answer,) = score_answers([sample], [Prediction(text="?")], metric)
    graded = {Metric.vqa_accuracy, Metric.anls, Metric.science_match, Metric.cider_d}
    assert (answer.score, answer.correct) == (0, None if metric in graded else False)
