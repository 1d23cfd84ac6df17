"""Conversations of every layout become the same items; what asks for no reply is left out, the rest is refused."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from forgetbench.core.errors import UserError
from forgetbench.core.records import ImageRef, Sample, Speaker
from forgetbench.data import item_pictures, sources
from forgetbench.data.conversations import read_conversation
from forgetbench.data.manifest import Manifest
from forgetbench.data.manifest_file import load_manifest
from forgetbench.data.pictures import decode_image
from forgetbench.data.sources import load_samples, read_split

Row = dict[str, Any]
RED, BLUE = (255, 0, 0), (0, 0, 255)
NAMES = {RED: "red", BLUE: "blue"}


def picture(color: tuple[int, int, int]) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (4, 2), color).save(held, "PNG")
    return held.getvalue()


def manifest(folder: Path, file: str, **fields: Any) -> Manifest:
    source = {"kind": "parquet" if file.endswith("parquet") else "jsonl", "images": "pictures"}
    given = {"source": source | fields.pop("source", {}), "splits": {"train": {"files": [file]}}}
    given |= {"image_domains": ["squares", "text"], "text_tasks": ["chat"]}
    (folder / "mine.yaml").write_text(yaml.safe_dump(given | fields))
    return load_manifest(folder / "mine.yaml")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Manifest]:
    """A set of rows in JSON lines, or in Parquet where asked, beside red.png and blue.png."""
    monkeypatch.setattr(sources, "_reported", set())
    (tmp_path / "pictures").mkdir()
    for color, name in NAMES.items():
        (tmp_path / "pictures" / f"{name}.png").write_bytes(picture(color))

    def written(*rows: Row, parquet: bool = False, **fields: Any) -> Manifest:
        if parquet:
            pq.write_table(pa.Table.from_pylist(list(rows)), tmp_path / "rows.parquet")
        else:
            (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return manifest(tmp_path, "rows.parquet" if parquet else "rows.jsonl", **fields)

    return written


Made = Callable[..., Manifest]


def color(image: ImageRef) -> str:
    return NAMES[decode_image(image).getpixel((0, 0))]  # type: ignore[index]


def spoken_turns(sample: Sample) -> list[tuple[str, ...]]:
    """Speaker and parts of each turn, pictures by color, and the reply."""
    turns = [
        (turn.speaker.value, *(part if isinstance(part, str) else f"[{color(part)}]" for part in turn.parts))
        for turn in sample.turns
    ]
    return [*turns, ("reply", sample.answer)]


def conversation_row(*turns: tuple[str, Any], keys: tuple[str, str] = ("role", "content"), **more: Any) -> Row:
    """A record of one list of turns."""
    name = "conversations" if keys[0] == "from" else "messages"
    return {name: [dict(zip(keys, turn, strict=True)) for turn in turns]} | more


TALK = (("system", "Be brief."), ("user", "<image>\nWhat color?"), ("assistant", "Red."))
TALK += (("user", "And <image>?"), ("assistant", " Blue."))
EXPECTED = [
    ("system", "Be brief."),
    ("user", "[red]", "\nWhat color?"),
    ("assistant", "Red."),
    ("user", "And ", "[blue]", "?"),
    ("reply", " Blue."),
]
FILES = ["red.png", "blue.png"]
HELD = [{"bytes": picture(rgb), "path": None} for rgb in (RED, BLUE)]


def text(words: str, key: str = "text") -> Row:
    return {"type": "text", key: words}


def parts(mark: Callable[[int], Row], key: str = "text") -> list[Row]:
    """TALK in parts, its pictures as `mark` writes them."""
    return [
        {"role": "system", "content": [text("Be brief.", key)]},
        {"role": "user", "content": [mark(0), text("\nWhat color?", key)]},
        {"role": "assistant", "content": [text("Red.", key)]},
        {"role": "user", "content": [text("And ", key), mark(1), text("?", key)]},
        {"role": "assistant", "content": [text(" Blue.", key)]},
    ]


def data_uri(place: int) -> str:
    return f"data:image/png;base64,{base64.b64encode(HELD[place]['bytes']).decode()}"


LLAVA = [(role.replace("user", "human").replace("assistant", "GPT"), words) for role, words in TALK]
OPENAI = "messages: role/content (OpenAI, TRL, LLaMA-Factory, ms-swift)"
FROM = "conversations: from/value (LLaVA, ShareGPT)"
PARTS = "messages: parts with text (OpenAI, TRL)"
RECORDS: dict[str, tuple[Row, str]] = {
    "llava": (conversation_row(*LLAVA, keys=("from", "value"), image=FILES), FROM),
    "sharegpt": (conversation_row(*LLAVA[1:], keys=("from", "value"), images=FILES, system="Be brief."), FROM),
    "llamafactory": (conversation_row(*TALK, images=FILES), OPENAI),
    "llamafactory v1": (
        {"messages": parts(lambda place: {"type": "image_url", "value": FILES[place]}, "value")},
        "messages: parts with value (LLaMA-Factory v1)",
    ),
    "trl": ({"messages": parts(lambda place: {"type": "image"}), "images": FILES}, PARTS),
    "index": ({"messages": parts(lambda place: {"type": "image", "index": place}), "images": FILES}, PARTS),
    "image": ({"messages": parts(lambda place: {"type": "image", "image": FILES[place]})}, PARTS),
    "image_url": (
        {"messages": parts(lambda place: {"type": "image_url", "image_url": {"url": data_uri(place)}})},
        PARTS,
    ),
    "prompt and completion": (
        {
            "prompt": parts(lambda place: {"type": "image"})[:-1],
            "completion": [{"role": "assistant", "content": " Blue."}],
            "images": FILES,
        },
        "prompt/completion (TRL)",
    ),
    "ms-swift": (conversation_row(*TALK, images=[{"bytes": None, "path": name} for name in FILES]), OPENAI),
    "query and response": (
        {
            "system": "Be brief.",
            "history": [["<image>\nWhat color?", "Red."]],
            "query": "And <image>?",
            "response": " Blue.",
            "images": FILES,
        },
        "query/response (ms-swift)",
    ),
}


@pytest.mark.parametrize("layout", RECORDS)
@pytest.mark.parametrize("parquet", [False, True])
def test_a_conversation_of_any_layout_is_the_same_item(layout: str, parquet: bool, made: Made) -> None:
    row, name = RECORDS[layout]
    read = read_split(made(row, parquet=parquet), "train")
    (sample,) = read.samples
    assert spoken_turns(sample) == EXPECTED
    assert read.layouts == {"0": name}
    assert (sample.id, sample.references) == ("0", (" Blue.",))


def test_pictures_inside_parquet_are_read_from_a_column_and_from_parts(made: Made) -> None:
    rows = [
        {"messages": parts(lambda place: {"type": "image"}), "images": HELD},
        {"messages": parts(lambda place: {"type": "image", "image": HELD[place]}), "images": None},
    ]
    assert [spoken_turns(sample) for sample in load_samples(made(*rows, parquet=True), "train")] == [EXPECTED, EXPECTED]


def test_a_picture_of_a_turn_is_found_again_in_its_table(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_pictures, "IN_MEMORY", 0)
    held = made({"messages": parts(lambda place: {"type": "image", "image": HELD[place]})}, parquet=True)
    (sample,) = load_samples(held, "train")
    assert [image.data for image in sample.images] == [None, None]
    assert spoken_turns(sample) == EXPECTED


def test_a_list_of_turns_may_be_stored_as_columns(made: Made) -> None:
    row = {"messages": {"role": [role for role, _ in TALK], "content": [words for _, words in TALK]}, "images": FILES}
    assert [spoken_turns(sample) for sample in load_samples(made(row, parquet=True), "train")] == [EXPECTED]


def test_a_file_may_hold_records_of_several_layouts_and_items_that_are_none(made: Made) -> None:
    question = {"question": "What color?", "answer": "red", "image": "red.png", "messages": None}
    read = read_split(made(*(row for row, _ in RECORDS.values()), question, parquet=False), "train")
    *talks, asked = read.samples
    assert [spoken_turns(sample) for sample in talks] == [EXPECTED] * len(RECORDS)
    assert spoken_turns(asked) == [("user", "[red]", "What color?"), ("reply", "red")]
    assert asked.id not in read.layouts


def test_a_row_with_a_question_and_an_answer_stays_an_item(made: Made) -> None:
    row = conversation_row(("user", "?"), ("assistant", "x"), question="Which?", answer="this")
    assert spoken_turns(load_samples(made(row), "train")[0]) == [("user", "Which?"), ("reply", "this")]
    row = {"prompt": "Which?", "response": "this", "query": "other", "label": "that"}
    mapped = made(row, source={"columns": {"question": "query", "answer": "label"}})
    assert spoken_turns(load_samples(mapped, "train")[0]) == [("user", "other"), ("reply", "that")]
    row = {"prompt": "Which?", "completion": "this", "label": "that"}
    mapped = made(row, source={"columns": {"answer": "label"}}, prompt="{prompt}")
    assert spoken_turns(load_samples(mapped, "train")[0]) == [("user", "Which?"), ("reply", "that")]


def test_turns_may_be_mapped_like_any_column(made: Made) -> None:
    row = {"dialog": conversation_row(*TALK)["messages"], "pics": FILES}
    mapped = made(row, source={"columns": {"messages": "dialog", "images": "pics"}})
    assert spoken_turns(load_samples(mapped, "train")[0]) == EXPECTED


def test_plain_texts_of_a_prompt_and_its_completion_are_kept(made: Made) -> None:
    (sample,) = load_samples(made({"prompt": " The sky is", "completion": " blue.\n"}), "train")
    assert spoken_turns(sample) == [("user", " The sky is"), ("reply", " blue.\n")]


def test_the_last_question_is_written_by_the_manifests_prompt(made: Made) -> None:
    row = conversation_row(*TALK, images=FILES, options=["Red.", " Blue."], hint="look", id="a")
    asked = made(row, answer="letter", prompt="{hint}: {question}\n{options}\n", cluster_by=["hint", "question"])
    (sample,) = load_samples(asked, "train")
    assert spoken_turns(sample)[-2:] == [("user", "look: And ", "[blue]", "?\nA. Red.\nB.  Blue.\n"), ("reply", "B")]
    assert sample.clusters == ("hint=look", "question=And <image>?")
    row = {"messages": parts(lambda place: {"type": "image", "image": FILES[place]})}
    (sample,) = load_samples(made(row, prompt="({question})"), "train")
    assert spoken_turns(sample)[-2] == ("user", "(And ", "[blue]", "?)")


def test_without_a_mark_pictures_come_first(made: Made) -> None:
    talk = conversation_row(
        ("system", "Be brief."), ("user", "Color?"), ("assistant", "Red."), ("user", "Sure?"), ("gpt", "Yes.")
    )
    (sample,) = load_samples(made(talk | {"images": FILES}), "train")
    assert spoken_turns(sample)[1] == ("user", "[red]", "[blue]", "Color?")
    assert sample.clusters == ("image=red.png",)


def test_a_question_of_a_picture_alone_is_one(made: Made) -> None:
    row = conversation_row(("user", [{"type": "image", "image": "red.png"}]), ("assistant", "Red."))
    assert spoken_turns(load_samples(made(row), "train")[0]) == [("user", "[red]"), ("reply", "Red.")]


def test_in_a_set_of_texts_a_mark_is_a_word(made: Made) -> None:
    rows = [
        conversation_row(("user", "What is <image>?"), ("assistant", "A tag, as <image 1>.")),
        {"question": "Is <image> a tag?", "answer": "<image>"},
    ]
    talk, asked = load_samples(made(*rows, image_domains=["text"]), "train")
    assert spoken_turns(talk) == [("user", "What is <image>?"), ("reply", "A tag, as <image 1>.")]
    assert spoken_turns(asked) == [("user", "Is <image> a tag?"), ("reply", "<image>")]


def test_repeated_and_missing_ids_are_told_apart(made: Made) -> None:
    talk = conversation_row(("user", "?"), ("assistant", "x"))
    rows = [talk | {"id": "a"}, talk | {"id": "a"}, talk, talk | {"question_id": 7, "id": None}, talk | {"id": 2}]
    held = made(*rows)
    assert [sample.id for sample in load_samples(held, "train")] == ["a", "a#2", "2", "7", "2#2"]
    some = load_samples(held, "train", limit=2)
    assert set(some) < set(load_samples(held, "train"))


# Loss flags.


@pytest.mark.parametrize("name", ["loss_weight", "weight", "loss", "loss_scale"])
def test_a_reply_may_be_excepted_from_the_loss(name: str, made: Made) -> None:
    def flagged(*flags: object) -> Row:
        turns = conversation_row(("user", "?"), ("assistant", "x"), ("user", "?"), ("assistant", "y"))["messages"]
        return {"messages": [turn | {name: flag} for turn, flag in zip(turns, flags, strict=True)]}

    rows = [flagged(0, 0, 0, 1), flagged(0.0, False, None, True), flagged(0, 1.0, 0, None), flagged(0, None, 1, 1)]
    losses = [[turn.has_loss for turn in sample.turns] for sample in load_samples(made(*rows), "train")]
    assert losses == [[True, False, True]] * 2 + [[True, True, True]] * 2
    with pytest.raises(UserError, match=f"turn 2 has `{name}: 0.5`; a turn is trained on"):
        load_samples(made(flagged(0, 0.5, 0, 1)), "train")
    with pytest.raises(UserError, match=r"its last reply is not to be trained on, .*; drop that flag"):
        load_samples(made(flagged(0, 1, 0, 0)), "train")


# Records that make no item.

NO_ITEMS = {
    "empty": ([], "it has no turns"),
    "unanswered": (["user"], "its last turn is the user's"),
    "trailing": (["user", "assistant", "user"], "its last turn is the user's"),
    "answer-first": (["assistant", "user", "assistant"], "it begins with the assistant"),
    "system-only": (["system"], "its last turn is the system's"),
    "answers itself": (["system", "assistant"], "it begins with the assistant"),
    "asked-twice": (["user", "user", "assistant"], "turns 1 and 2 are both the user's"),
    "said-twice": (["user", "assistant", "assistant"], "turns 2 and 3 are both the assistant's"),
    "two systems": (["system", "system", "user", "assistant"], "turns 1 and 2 are both the system's"),
}


def test_a_record_that_asks_for_no_reply_is_left_out_and_told_once(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [conversation_row(*((role, "x") for role in roles), id=name) for name, (roles, _) in NO_ITEMS.items()]
    sound = conversation_row(("user", "?"), ("assistant", "x"), id="sound")
    held = made(*rows, sound, {"query": "?", "response": None, "id": "no response"})
    read = read_split(held, "train")
    assert [sample.id for sample in read.samples] == ["sound"]
    assert list(read.left_out) == [*NO_ITEMS, "no response"]
    assert all(reason in read.left_out[name] for name, (_, reason) in NO_ITEMS.items())
    assert [sample.id for sample in load_samples(held, "train")] == ["sound"]
    load_samples(held, "train")
    (line,) = capsys.readouterr().err.splitlines()
    assert "mine: split 'train': 10 records make no item and are left out: 'empty' (it has no turns), " in line
    assert line.endswith(" and 5 more.")


@given(st.lists(st.sampled_from("sua"), max_size=7).map("".join))
def test_only_questions_that_are_each_answered_after_perhaps_a_system_turn_make_an_item(letters: str) -> None:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    row = conversation_row(*((roles[letter], f"{place}") for place, letter in enumerate(letters)))
    if re.fullmatch("s?(ua)+", letters):
        read = read_conversation(row, no_picture, has_marks=True)
        kept = [(turn.speaker, turn.pieces) for turn in read.before]
        assert kept == [(Speaker(roles[letter]), (f"{place}",)) for place, letter in enumerate(letters[:-1])]
        assert read.reply == str(len(letters) - 1)
    else:
        with pytest.raises(ValueError, match=r"turn|the assistant"):
            read_conversation(row, no_picture, has_marks=True)


def no_picture(value: object) -> ImageRef:
    raise AssertionError(value)


def test_an_empty_last_turn_makes_no_item_and_an_empty_earlier_one_is_kept(made: Made) -> None:
    rows = [
        conversation_row(("user", "?"), ("assistant", " ")),
        conversation_row(("user", ""), ("assistant", "x")),
        conversation_row(("user", ""), ("assistant", ""), ("user", "?"), ("assistant", "x")),
    ]
    read = read_split(made(*rows), "train")
    assert read.left_out == {"0": "its last reply is empty", "1": "its last question is empty"}
    assert spoken_turns(read.samples[0]) == [("user", ""), ("assistant", ""), ("user", "?"), ("reply", "x")]


def test_a_split_of_no_items_says_why(made: Made) -> None:
    with pytest.raises(UserError, match="has no items; split 'train': 1 record makes no item and is left out: 'a' "):
        load_samples(made(conversation_row(("user", "?"), id="a")), "train")


# Refusals.

ASKED = (("user", "?"), ("assistant", "x"))
REFUSED: dict[str, tuple[Row, str]] = {
    "role": (
        conversation_row(("user", "?"), ("tool", "x"), ("assistant", "x")),
        "turn 2 is said by 'tool'; known are user",
    ),
    "call": (conversation_row(("user", "?"), ("function_call", "x")), "turn 2 is said by 'function_call'"),
    "no role": ({"messages": [{"content": "?"}]}, "turn 1 is said by None"),
    "no text": ({"messages": [{"role": "user", "content": None}]}, "turn 1 has no text"),
    "tool calls": ({"messages": [{"role": "user", "content": "", "tool_calls": [1]}]}, "turn 1 has `tool_calls`"),
    "system inside": (conversation_row(*ASKED, ("system", "x"), *ASKED), "a system turn inside the conversation"),
    "two systems": (conversation_row(("system", "a"), *ASKED, system="b"), "`system` and its system turn differ"),
    "disliked": ({"prompt": "Hi?", "completion": "No.", "label": False}, "whether people liked its last reply"),
    "disliked turns": (
        {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "No."}], "label": False},
        "whether people liked its last reply",
    ),
    "inline pictures": (
        {"query": "Picture 1: <img>a/b.png</img>\nWhat?", "response": "A hat."},
        r"name pictures as <img>FILE</img>; write <image>",
    ),
    "videos": (conversation_row(*ASKED, videos=["a.mp4"]), "it has `videos`, but only texts and pictures"),
    "audios": (conversation_row(*ASKED, audios=["a.mp3"]), "it has `audios`"),
    "tools": (conversation_row(*ASKED, tools='[{"name": "a"}]'), "it has `tools`"),
    "boxes": (
        conversation_row(("user", "Where is <ref-object>?"), ("assistant", "x"), objects={"ref": ["a"]}),
        "to `objects`",
    ),
    "video part": (
        conversation_row(("user", [{"type": "video", "video": "a.mp4"}]), ASKED[1]),
        "has a part 'video'; parts of",
    ),
    "odd part": (conversation_row(("user", ["?"]), ASKED[1]), r"turn 1 has a part '\?'"),
    "silent part": (conversation_row(("user", [{"type": "text"}]), ASKED[1]), "turn 1 has a part without text"),
    "address": (
        conversation_row(("user", [{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]), ASKED[1]),
        "picture 'https://x.org/a.png' is an address; download it",
    ),
    "lost picture": (conversation_row(("user", "<image>?"), ASKED[1]), "1 mark <image>, but no picture"),
    "shown reply": (
        conversation_row(ASKED[0], ("assistant", "<image>"), images=["red.png"]),
        "its last reply holds a picture",
    ),
    "shown earlier reply": (
        conversation_row(ASKED[0], ("assistant", "<image>"), *ASKED, images=["red.png"]),
        "a turn of the assistant's holds a picture or a mark <image>, and pictures are read in the user's turns only",
    ),
    "shown system turn": (
        conversation_row(("system", [{"type": "image", "image": "red.png"}]), *ASKED),
        "a turn of the system's holds a picture or a mark <image>",
    ),
    "no list": ({"messages": "hello"}, "`messages` must be a list of turns"),
    "history": ({"query": "?", "response": "x", "history": ["a", "b"]}, "`history` must hold pairs"),
    "not base64": (conversation_row(*ASKED, images=["data:image/png;base64,%%%"]), "is no valid base64"),
    "plain uri": (conversation_row(*ASKED, images=["data:image/svg+xml,<svg/>"]), "a data URI that is not in base64"),
    "two fields": (
        conversation_row(*ASKED, image="red.png", images=["blue.png"]),
        "fields `image` and `images` differ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_id_with_the_reason(name: str, made: Made) -> None:
    row, message = REFUSED[name]
    with pytest.raises(UserError, match=rf"item 0 of split 'train': .*{message}.* \(id '{name}'\)"):
        load_samples(made(row | {"id": name}), "train")


def test_all_that_do_not_fit_are_named_at_once(made: Made) -> None:
    held = made(*(row | {"id": name} for name, (row, _) in list(REFUSED.items())[:7]), conversation_row(*ASKED))
    with pytest.raises(UserError, match="7 items of split 'train' do not fit") as refused:
        load_samples(held, "train")
    lines = str(refused.value).splitlines()
    assert [line.strip().partition(":")[0] for line in lines[1:6]] == [f"item {place}" for place in range(5)]
    assert "`forgetbench data check mine` names 7 of them" in lines[6]
    assert lines[7].startswith("The first one's fields: messages, id.")
    assert [item.id for item in read_split(held, "train").refused] == list(REFUSED)[:7]


def test_reading_stops_after_twenty_that_do_not_fit(made: Made) -> None:
    with pytest.raises(UserError, match="20 or more items"):
        load_samples(made(*[conversation_row(("user", "<image>?"), ("assistant", "x"))] * 30), "train")


# Pictures.


def test_a_picture_given_by_its_whole_path_must_lie_in_the_sets_folder(made: Made, tmp_path: Path) -> None:
    inside = str(tmp_path / "pictures" / "red.png")
    rows = [conversation_row(*ASKED, images=[inside]), conversation_row(*ASKED, images=[f"file://{inside}"])]
    first, second = load_samples(made(*rows), "train")
    assert first.images == second.images == (ImageRef(str(tmp_path / "pictures"), "red.png"),)
    for outside in (str(tmp_path / "red.png"), f"{tmp_path}/pictures/../red.png", "file:///etc/passwd"):
        with pytest.raises(UserError, match=r"is outside the dataset's folder .*`source.images`"):
            load_samples(made(conversation_row(*ASKED, images=[outside])), "train")


def test_images_are_read_like_image_in_any_row_and_a_mapped_column_goes_first(made: Made) -> None:
    rows = [
        {"question": "What?", "answer": "x", "images": ["red.png", "blue.png"]},
        {"question": "What?", "answer": "x", "images": ["red.png"], "image": "red.png"},
        {"question": "What?", "answer": "x", "images": [], "image": "blue.png"},
    ]
    shown = [list(map(color, sample.images)) for sample in load_samples(made(*rows), "train")]
    assert shown == [["red", "blue"], ["red"], ["blue"]]
    row = {"question": "What?", "answer": "x", "images": ["red.png"], "thumb": "blue.png"}
    (sample,) = load_samples(made(row, source={"columns": {"image": "thumb"}}), "train")
    assert list(map(color, sample.images)) == ["blue"]


def test_a_reply_is_no_turn_before_itself(made: Made) -> None:
    (sample,) = load_samples(made(RECORDS["llava"][0]), "train")
    assert [turn.speaker for turn in sample.turns] == [Speaker.system, Speaker.user, Speaker.assistant, Speaker.user]


def test_a_json_list_of_kind_llava_may_hold_any_layout(tmp_path: Path, made: Made) -> None:
    made()
    (tmp_path / "rows.json").write_text(json.dumps([row for row, _ in RECORDS.values()]))
    samples: Sequence[Sample] = load_samples(manifest(tmp_path, "rows.json", source={"kind": "llava"}), "train")
    assert [spoken_turns(sample) for sample in samples] == [EXPECTED] * len(RECORDS)
