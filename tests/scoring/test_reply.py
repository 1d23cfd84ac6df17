"""What of a reply is its answer, and when there is none."""

import pytest

from forgetbench.core.records import AnswerKind, Metric, Prediction, Sample
from forgetbench.scoring.answers import score_answers
from forgetbench.scoring.reply import answer_part

HTML = Sample.question("h", "Which?", "A", AnswerKind.letter, references=("A",), options=("<s>", "<b>"))
SKY = Sample.question("s", "Colour?", "blue", AnswerKind.text, references=("blue",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>Not blue.</think>\n\nred", "red"),
        ("<think>a</think>b<think>c</think> d", "d"),
        ("The template began it.</think>red", "red"),
        ("[THINK]hm[/THINK]red", "red"),
        ("◁think▷hm◁/think▷red", "red"),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>red<|return|>", "red"),
        ("<think></think>", ""),
        ("red<|im_end|>", "red"),
        ("red</s></s>\n", "red"),
        ("red<｜end▁of▁sentence｜>", "red"),
        ("<s> red [EOS]", "red"),
        ("<|im_start|>assistant\nred<|im_end|>\n<|endoftext|>", "red"),
        ("<start_of_turn>model\nred<end_of_turn>", "red"),
        ("<|begin_of_box|>8<|end_of_box|>", "8"),
        ("a <b> c", "a <b> c"),
        ("", ""),
    ],
)
def test_thoughts_and_special_tokens_are_no_part_of_it(text: str, expected: str) -> None:
    assert answer_part(text) == expected


@pytest.mark.parametrize("text", ["<think>It is", "x</think>B<think>or A", "<thinking>", "[THINK]B"])
def test_a_thought_without_an_end_is_no_answer(text: str) -> None:
    assert answer_part(text) is None


def test_other_marks_can_be_given() -> None:
    marks = [["{{", "}}"]]
    assert answer_part("{{A or B}}C", marks) == "C"
    assert answer_part("{{A or B", marks) is None
    assert answer_part("<think>A</think>C", marks) == "<think>A</think>C"


def test_a_special_tokens_name_may_be_the_answer() -> None:
    assert [answer.parsed for answer in score_answers([HTML], [Prediction(text="<s>")], Metric.accuracy)] == ["A"]
    assert answer_part("<s>") == ""


def test_what_is_cut_off_is_said_of_written_answers_alone() -> None:
    given = [Prediction(text="<think>It"), Prediction(text="<think>It is.</think>blue"), Prediction(text="")]
    answers = score_answers([SKY] * 3, given, Metric.accuracy)
    assert [(answer.parsed, answer.correct, answer.cut_off) for answer in answers] == [
        (None, False, True), ("blue", True, False), (None, False, False),
    ]  # fmt: skip
    (chosen,) = score_answers([HTML], [Prediction(option_logprobs=(-1.0, -2.0))], Metric.accuracy)
    assert chosen.cut_off is None


def test_a_reply_that_ended_at_its_cap_is_cut_off_and_scored_all_the_same() -> None:
    given = [Prediction(text="blue", cut_off=cut) for cut in (True, False, None)]
    answers = score_answers([SKY] * 3, given, Metric.accuracy)
    assert [(answer.correct, answer.cut_off) for answer in answers] == [(True, True), (True, False), (True, False)]
    thought = Prediction(text="<think>It", cut_off=False)
    assert [answer.cut_off for answer in score_answers([SKY], [thought], Metric.accuracy)] == [True]
