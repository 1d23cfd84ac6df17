"""Pictures stand at their marks, or in front where there is none; what does not go together is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetbench.core.records import ImageRef, Speaker, Turn
from forgetbench.data.marks import Mark, Piece, RawTurn, place, read_marks

A, B, C = (ImageRef("folder", name) for name in "abc")


def user(*pieces: Piece) -> RawTurn:
    return read_marks(RawTurn(Speaker.user, pieces))


def assistant(*pieces: Piece) -> RawTurn:
    return read_marks(RawTurn(Speaker.assistant, pieces))


def parts(turns: tuple[Turn, ...]) -> list[tuple[object, ...]]:
    return [turn.parts for turn in turns]


def test_a_picture_stands_at_its_mark_and_the_text_around_it_is_kept() -> None:
    turns = place([user("Left: <image>\n Right:<image>"), assistant("Yes."), user("And <image>?")], [A, B, C])
    assert parts(turns) == [("Left: ", A, "\n Right:", B), ("Yes.",), ("And ", C, "?")]


def test_a_mark_alone_leaves_no_empty_text_beside_it() -> None:
    assert parts(place([user("<image><image>")], [A, B])) == [(A, B)]


def test_without_a_mark_pictures_come_first_in_the_users_first_turn() -> None:
    system = RawTurn(Speaker.system, ("Be brief.",))
    turns = place([system, user("Which?"), assistant("This."), user("Sure?")], [A, B])
    assert parts(turns) == [("Be brief.",), (A, B, "Which?"), ("This.",), ("Sure?",)]


def test_a_numbered_mark_shows_its_picture_wherever_it_is_named() -> None:
    turns = place([user("Is <image 2> like <image 1>?\nA. <image 1>\nB. <image 2>")], [A, B])
    assert parts(turns) == [("Is ", B, " like ", A, "?\nA. ", A, "\nB. ", B)]


def test_a_picture_may_be_shown_in_a_reply_but_a_numbered_name_there_is_text() -> None:
    turns = place([user("<image> first"), assistant("Here: <image>, unlike <image 1>."), user("Why?")], [A, B])
    assert parts(turns) == [(A, " first"), ("Here: ", B, ", unlike <image 1>."), ("Why?",)]


def test_pictures_that_turns_hold_themselves_stay_where_they_are() -> None:
    assert parts(place([user("Is ", A, " like <image>?")], [B])) == [("Is ", A, " like ", B, "?")]
    assert parts(place([user(A, "Which?")], [])) == [(A, "Which?")]


def test_a_turn_without_words_keeps_an_empty_text() -> None:
    assert parts(place([user("Hello?"), assistant(""), user("?")], [])) == [("Hello?",), ("",), ("?",)]


def test_whether_a_turn_has_a_loss_is_kept() -> None:
    turns = place([user("?"), RawTurn(Speaker.assistant, ("x",), has_loss=False), user("?")], [])
    assert [turn.has_loss for turn in turns] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "pictures", "message"),
    [
        ("<image>?", [], "1 mark <image>, but no picture"),
        ("<image><image>", [A], "2 marks <image>, but 1 picture"),
        ("<image>", [A, B], "1 mark <image>, but 2 pictures"),
        ("<image 1>", [], "names <image 1>, but has no picture"),
        ("<image 1>", [A, B], "names <image 1>, but has 2 pictures"),
        ("<image 1> <image 3>", [A, B], "names <image 1>, <image 3>, but has 2 pictures"),
        ("<image 2>", [A], "names <image 2>, but has 1 picture"),
        ("<image 1> <image>", [A, B], "marks with a number .* and without"),
    ],
)
def test_marks_and_pictures_that_do_not_go_together_are_refused(
    text: str, pictures: list[ImageRef], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        place([user(text)], pictures)


def test_a_picture_beside_turns_with_pictures_of_their_own_needs_a_mark() -> None:
    with pytest.raises(ValueError, match="hold 1 picture and no mark, so the 2 beside them have no place"):
        place([user(A, "Which?")], [B, C])


@pytest.mark.parametrize("text", ["<image", "<Image>", "<image  1>", "<image 0>", "<image a>", "image>", "< image>"])
def test_what_only_resembles_a_mark_is_text(text: str) -> None:
    assert parts(place([user(text)], [])) == [(text,)]


SOME_TURNS = st.lists(
    st.lists(st.sampled_from(["a", " ", "\n", "<image", "<image>", "<imag", Mark()]), max_size=6).map(tuple),
    min_size=1,
    max_size=4,
)


@given(SOME_TURNS)
def test_every_picture_is_placed_once_in_order_and_no_text_is_lost(pieces: list[tuple[Piece, ...]]) -> None:
    raw = [RawTurn(Speaker.user, turn_pieces) for turn_pieces in pieces]
    read = list(map(read_marks, raw))
    pictures = [
        ImageRef("folder", str(number)) for number in range(sum(isinstance(p, Mark) for t in read for p in t.pieces))
    ]
    turns = place(read, pictures)
    assert [part for turn in turns for part in turn.parts if isinstance(part, ImageRef)] == pictures
    assert [turn.text for turn in turns] == [turn.text for turn in raw]
    for turn in turns:
        texts = [isinstance(part, str) for part in turn.parts]
        assert not any(is_text and next_is_text for is_text, next_is_text in pairwise(texts))
