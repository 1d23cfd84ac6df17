"""Checks of datasets: digests, sizes and leaks planted on purpose are found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forgetbench.commands.data_check import data_check
from forgetbench.commands.data_show import data_show
from forgetbench.compose import compose
from forgetbench.config import FinetuneConfig
from forgetbench.data.audit.duplicates import Duplicates, Fingerprints, count_duplicates, nearest_pairs
from forgetbench.data.audit.verify import Verification, verify
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.manifest import DOWNLOADS


def noise(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((4, 4, 1), dtype=np.uint8))


def save(folder: Path, name: str, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(folder / f"{name}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound set: two training pictures, two others for evaluation."""
    for split, seeds in {"train": (1, 2), "test": (3, 4)}.items():
        rows = [{"image": f"{split}{seed}.png", "question": "?", "answer": "x"} for seed in seeds]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for seed in seeds:
            save(tmp_path, f"{split}{seed}", noise(seed))
    digest = hashlib.sha256((tmp_path / "train.jsonl").read_bytes()).hexdigest()
    (tmp_path / "mine.yaml").write_text(
        f"source: {{sha256: {{train.jsonl: {digest}}}}}\n"
        "splits: {train: {files: [train.jsonl], n: 2}, test: {files: [test.jsonl], n: 2}}\n"
        "image_domains: [noise]\ntext_tasks: [x]\n"
    )
    return tmp_path


def verified(folder: Path) -> Verification:
    return verify(Catalogue([folder]).load("mine"), Fingerprints())


def leaks(folder: Path) -> Duplicates:
    result = verified(folder)
    return count_duplicates(nearest_pairs(result.evaluated.values(), result.train.values()).values())


def test_a_sound_set_has_no_problems_and_no_leak(folder: Path) -> None:
    assert verified(folder).problems == ()
    assert verified(folder).sizes == {"train": 2, "test": 2}
    assert leaks(folder) == Duplicates(identical=0, near=0)


def test_a_changed_byte_breaks_the_digest(folder: Path) -> None:
    file = folder / "train.jsonl"
    file.write_text(file.read_text().replace('"x"', '"y"', 1))
    assert "sha256 is" in verified(folder).problems[0]


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "train.jsonl").unlink()
    assert any("train.jsonl is missing" in problem for problem in verified(folder).problems)


def test_a_wrong_size_is_told(folder: Path) -> None:
    file = folder / "test.jsonl"
    file.write_text(file.read_text().splitlines()[0])
    assert verified(folder).problems == ("split 'test' has 1 items, its manifest says 2",)


def test_a_split_in_which_no_item_has_a_picture_is_a_problem_where_pictures_are_declared(folder: Path) -> None:
    file = folder / "test.jsonl"
    file.write_text(file.read_text().replace('"image"', '"picture"'))
    (problem,) = verified(folder).problems
    assert "split 'test': no item has a picture, but `image_domains` are noise; name the column" in problem
    (folder / "mine.yaml").write_text((folder / "mine.yaml").read_text().replace("[noise]", "[text]"))
    assert verified(folder).problems == ()


def talk(*roles: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": role, "content": "x"} for role in roles]} | more


def write_talks(folder: Path, *rows: dict[str, object]) -> None:
    """Conversations as the test split, of which no number is expected."""
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.yaml").write_text((folder / "mine.yaml").read_text().replace("test.jsonl], n: 2", "test.jsonl]"))


def test_conversations_are_counted_with_their_turns_pictures_and_layouts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {"role": "user", "content": [{"type": "image", "image": "test4.png"}, {"type": "text", "text": "?"}]}
    write_talks(
        folder,
        talk("system", "user", "assistant", images=["test3.png"]),
        talk("user", "assistant", "user", "assistant"),
        {"messages": [parts, {"role": "assistant", "content": "x"}]},
    )
    assert check(folder, "mine", as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["items"], row["pictures"]) == ({"train": 2, "test": 3}, 4)
    assert (row["conversations"], row["turns"], row["system_turns"], row["left_out"]) == (3, 9, 1, {})
    assert row["layouts"] == {
        "messages: role/content (OpenAI, TRL, LLaMA-Factory, ms-swift)": 2,
        "messages: parts with text (OpenAI, TRL)": 1,
    }
    assert check(folder, "mine")
    printed = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    (counts,) = [row[3:-1] for row in printed if row[1:2] == ["mine"] and len(row) == 9]
    assert counts == ["3", "9", "4", "1", "0"]


def test_a_record_that_makes_no_item_fails_the_check_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_talks(folder, talk("user", "assistant", images=["test3.png"]), talk("user", id="unanswered"))
    assert not check(folder, "mine", as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["left_out"] == {"test": {"unanswered": "its last turn is the user's, so nothing is answered"}}
    assert row["problems"] == [
        "split 'test': 1 record makes no item and is left out: "
        "'unanswered' (its last turn is the user's, so nothing is answered)"
    ]
    assert row["items"] == {"train": 2, "test": 1}


def test_every_item_that_does_not_fit_is_named_by_the_check(folder: Path) -> None:
    rows = [talk("user", "robot", id=f"talk {number}") for number in range(9)]
    write_talks(folder, talk("user", "assistant"), *rows)
    result = verified(folder)
    (problem,) = result.problems
    assert "9 items of split 'test' do not fit" in problem
    assert all("turn 2 is said by 'robot'; known are" in line for line in problem.splitlines()[1:-1])
    assert [f"(id 'talk {number}')" in problem for number in range(9)] == [True] * 9
    assert result.sizes == {"train": 2}


def test_a_conversation_is_shown_turn_by_turn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoken = [("system", "Be brief."), ("user", "Is <image> [red]?"), ("assistant", "No."), ("user", "Is it\nblue?")]
    turns = [{"role": role, "content": text} for role, text in [*spoken, ("assistant", "Yes.")]]
    turns[2] |= {"loss": False}
    write_talks(folder, {"messages": turns, "images": ["test3.png"]}, talk("user"))
    data_show(compose(FinetuneConfig, [f"manifests=[{folder}]"]), ["mine"])
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    first = printed.index("│ test item │ system: Be brief. │")
    assert printed[first + 1 : first + 6] == [
        "│ │ user: Is [test3.png] [red]? │",
        "│ │ assistant (no loss): No. │",
        "│ │ user: Is it │",
        "│ │ blue? │",
        "│ │ => Yes. │",
    ]


def test_a_broken_picture_is_a_problem(folder: Path) -> None:
    picture = folder / "test3.png"
    picture.write_bytes(picture.read_bytes()[:60])
    assert "'test3.png'" in verified(folder).problems[0]


def test_a_training_picture_under_another_name_and_format_is_found_as_identical(
    folder: Path,
) -> None:
    Image.open(folder / "train1.png").save(folder / "test3.png", format="BMP")
    assert leaks(folder) == Duplicates(identical=1, near=0)


def test_a_slightly_changed_training_picture_is_counted_as_near(folder: Path) -> None:
    save(folder, "test3", np.clip(noise(1).astype(int) + 3, 0, 255).astype(np.uint8))
    assert leaks(folder) == Duplicates(identical=0, near=1)


def check(folder: Path, *names: str, as_json: bool = False) -> bool:
    return data_check(compose(FinetuneConfig, [f"manifests=[{folder}]"]), names, as_json)


def test_a_leak_between_two_datasets_fails_the_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "other").mkdir()
    save(folder / "other", "copy", noise(3))
    (folder / "other.jsonl").write_text('{"image": "copy.png", "question": "?", "answer": "x"}')
    (folder / "other.yaml").write_text(
        "source: {images: other}\nsplits: {train: {files: [other.jsonl]}}\nimage_domains: [noise]\ntext_tasks: [x]\n"
    )
    assert check(folder, "mine")
    assert not check(folder, "mine", "other")
    assert "evaluation pictures are in" in " ".join(capsys.readouterr().out.split())


def test_a_mixture_is_checked_for_its_parts_and_its_lists(folder: Path) -> None:
    mixture = folder / "blend.yaml"
    mixture.write_text("mixture: {mine: 1}\nimage_domains: [noise]\ntext_tasks: [x]\n")
    assert check(folder, "blend")
    mixture.write_text("mixture: {mine: 1}\nimage_domains: [noise]\ntext_tasks: [y]\n")
    assert not check(folder, "blend")
    mixture.write_text("mixture: {mien: 1}\nimage_domains: [noise]\ntext_tasks: [x]\n")
    assert not check(folder, "blend")


def test_a_set_that_is_not_here_has_no_items_and_says_where_they_go_and_how_they_are_had(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DOWNLOADS, "/sets")
    names = ["imagenetv2_vqa", "ucit_vizwiz", "mine", "blend"]
    (folder / "blend.yaml").write_text("mixture: {mine: 1}\nimage_domains: [noise]\ntext_tasks: [x]\n")
    assert not check(folder, *names)
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")] for line in printed.splitlines() if "│" in line]
    assert [row[2] for row in rows if row[1] in names] == ["-", "-", "train 2, test 2", "mixture"]
    problems = " ".join(row[-2] for row in rows)
    assert "Make it with `forgetbench data build imagenetv2_vqa`" in problems
    assert "Download it from https://huggingface.co/datasets/" in problems
    data_show(compose(FinetuneConfig, []), ["imagenetv2_vqa", "okvqa"])
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "│ files in │ /sets/imagenetv2_vqa │" in shown
    assert any(line.startswith("│ hub_id │ lmms-lab-encoder/OK-VQA (revision ") for line in shown)
    assert shown.count("│ verified │ no (`forgetbench data check --remote` checks it) │") == 2
