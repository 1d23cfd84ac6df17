"""What counts as naming an option, what does not, and which candidate is the likeliest."""

import time

import pytest

from forgetbench.scoring.choice import likeliest, likeliest_per_character, parse_choice, parse_option

CLOTHES = ("shirt", "trousers", "t-shirt", "dress")


@pytest.mark.parametrize(
    "text",
    [
        "B", "b", "B.", "b.", "(B)", "(b)", "B)", "[B]", "**B**", " B \n", "`B`",
        "Answer: B", "answer: b",
        "The answer is B", "The answer is b", "The answer is (B).", "The answer is **B**.",
        "Option B", "option b", "B. trousers", "b. trousers", "B: trousers", "(B) trousers",
        "B.trousers", "B - trousers", "B\ntrousers", "trousers", "Trousers.", "TROUSERS",
        "It is trousers", "A pair of trousers", "I think it is trousers.", "\\boxed{B}",
        "Answer: trousers (B)", "The answer is B because of the legs", "B, definitely B",
    ],
)  # fmt: skip
def test_a_reply_that_names_one_option_is_read(text: str) -> None:
    assert parse_choice(text, CLOTHES) == 1


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "...", "A or B", "A and B", "A, B", "A B", "A/B", "Answer: A or B", "a or b",
        "Answer: b or c", "shirt or trousers", "B. shirt", "The answer is B: dress", "E", "e",
        "(E)",
        "Answer: E", "E. trousers", "A dog runs", "a dog", "A dog", "I do not know",
        "It is not B", "It is not a dress", "skirt", "shirts", "polo-shirt",
    ],
)  # fmt: skip
def test_a_reply_that_names_none_or_several_is_unparsed(text: str) -> None:
    assert parse_choice(text, CLOTHES) is None


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("t-shirt", CLOTHES, 2),
        ("T-shirt", CLOTHES, 2),
        ("a T-shirt.", CLOTHES, 2),
        ("C. t-shirt", CLOTHES, 2),
        ("dress shirt", ("shirt", "dress shirt"), 1),
        ("A", CLOTHES, 0),
        ("A is correct", CLOTHES, 0),
        ("The answer is A.", CLOTHES, 0),
        ("a dress", CLOTHES, 3),
        ("A dress", CLOTHES, 3),
        ("Vitamin C", ("Vitamin C", "Vitamin D", "iron"), 0),
        ("3.5", ("3", "3.5", "5"), 1),
        ("It costs 3.", ("3", "3.5", "5"), 0),
        ("4.5", ("4", "5"), None),
        ("-3", ("3", "5"), None),
        ("$5", ("$3", "$5"), 1),
        ("B", ("B", "A"), 1),
        ("black", ("black", "black", "white"), None),
        ("B. black", ("black", "black", "white"), 1),
        ("ice  cream", ("ice cream", "cream"), 0),
        ("B", (), None),
        ("5 \u03bcm", ("5 \u00b5m", "7 \u00b5m"), 0),  # Greek mu for the micro sign
    ],
)
def test_option_texts_match_whole_words_and_the_longest_wins(
    text: str, options: tuple[str, ...], expected: int | None
) -> None:
    assert parse_choice(text, options) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The last statement decides, whatever else is named.
        ("The correct answer is B. Option A is wrong because it covers the arms.", 1),
        ("I first thought of A, but the answer is C.", 2),
        ("The answer is A. No wait, the answer is C.", 2),
        ("Final answer: (D)\n\nA, B and C cover less of the body.", 3),
        ("Final answer: B. Because A is wrong", 1),
        ("correct option: D, not A", 3),
        ("I'd go with C. A is too thin.", 2),
        ("The option that fits best is (C), unlike A.", 2),
        ("A is thin, which corresponds to option C.", 2),
        ("\\text{Answer: C}, A is short", 2),
        ("A, so answer: \\( \\boxed{\\text{(C)}} \\)", 2),
        ("$\\boxed{C}$ and A", 2),
        ("The correct answer is:\n\n**C**: coat, not A", 2),
        ("### Answer\n\n**C. coat**\n\nA is short.", 2),
        ("<|begin_of_box|>C<|end_of_box|> A", 2),
        ("The answer is (B).\n\nso that x = \\boxed{70}", 1),
        ("The answer is: a dress, no shirt", 3),
        ("ANSWER: B\nA is short", 1),
        ("A. shirt is short\n\nOption B is the correct one.", 1),
        # Statements that are none.
        ("If the answer is A, it covers the arms. So the answer is B.", 1),
        ("Answer: C\nThe answer is not A.", 2),
        ("The answer isn't A.", None),
        ("The answer cannot be B.", None),
        ("The answer could be either A (shirt) or B (trousers).", None),
        ("Answer: AB", None),
        ("Answer: A, C", None),
        ("Answer: A, C <end>", None),
        ("Answer: A, C and D are warm", None),
        ("Answer: C, A is short", 2),
        ("The answer is trousers or shirt.", None),
        ("The answer is 42. It is near B.", None),
        ("\\boxed{42} is near B", None),
        ("The answer is not in the options, though B is near.", None),
        ("Answer: E\nB is wrong", None),
        # Last line, first line, only option.
        ("A and B\n\n(C)", 2),
        ("A and B\n\n选项C。", 2),
        ("A. shirt\nB. trousers", None),
        ("C. coat\n\nExplanation: a shirt is not worn outside.", 2),
        ("A\n\nB is for legs.", 0),
        ("trousers. A shirt covers the arms", 1),
        ("B\nshirt", None),
        ("B, not A", 1),
        ("B because it isn’t A", 1),
        ("A is wrong, so B", 1),
        ("It's not a shirt or a dress but trousers", 1),
        ("C - because A is short and B is too", None),
        ("C - warm", 2),
        ("A: The coat", None),
        ("Option A is wrong.", None),
        ("Not A.", None),
        ("Neither A nor B.", None),
        ("Both A and B", None),
        ("The shirt is wrong", None),
        ("We get A = 3 + C * 2, so it cannot be determined", None),
        ("None of the options A, B, C, D is correct.", None),
        ("I cannot answer this, the trousers are hidden.", None),
        ("At 65°C it melts", None),
        # Letters in other scripts' texts.
        ("选A", 0), ("选项C正确", 2), ("正确答案为D。", 3), ("Ｂ", 1), ("答案：A", 0), ("我选择 C", 2),
        ("不选A，选B", 1), ("答案不是A，而是B", 1), ("选项A错误，选项C正确", 2), ("【答案】C", 2), ("故选：C．", 2),
        ("【答案】A、C", None), ("【答案】AC", None), ("選項：\nA. 短\n因此C正確", 2), ("我選B", 1),
        ("Bが正解です。Aは短い", 1), ("答えはCです", 2), ("정답: C", 2), ("정답은 B입니다", 1),
        ("Antwort: B, nicht A", 1), ("Antwort B ist richtig, A nicht", 1), ("Réponse : C, pas A", 2),
        ("Elijo la B, no la A", 1), ("La opción correcta es D", 3), ("Ответ: B", 1),
    ],
)  # fmt: skip
def test_the_rules_decide_in_their_order(text: str, expected: int | None) -> None:
    assert parse_choice(text, ("shirt", "trousers", "coat", "dress")) == expected


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("option I.", 10, 8),
        ("The correct one is option I.", 10, 8),
        ("I choose (E)", 10, 4),
        ("I think it is F", 10, 5),
        ("The answer is I", 10, 8),
        ("The answer is I think B", 10, 1),
        ("I", 4, None),
        ("The answer is K.", 10, None),
    ],
)
def test_the_letter_i_is_not_the_word(text: str, options: int, expected: int | None) -> None:
    assert parse_choice(text, tuple(f"text {n} of it" for n in range(options))) == expected


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("The answer is B.", ("is", "are", "was", "were"), 1),
        ("The answer is were.", ("is", "are", "was", "were"), 3),
        ("3 + 2 = 5", ("3", "4", "5", "6"), 2),
        ("Neither A nor B", ("A alone", "B alone", "Neither A nor B"), 2),
        ("It cannot be determined.", ("yes", "no", "It cannot be determined"), 2),
        ("O", ("A", "B", "AB", "O"), 3),
        ("The answer is C major.", ("C major", "D minor", "E major"), 0),
        ("The answer is K+ ions.", ("Na+ ions", "K+ ions"), 1),
        ("The answer is an X-ray.", ("X-ray", "scan"), 0),
        ("答案是狗，不是猫", ("猫", "狗", "牛"), 1),
    ],
)
def test_options_may_hold_the_words_of_the_rules(text: str, options: tuple[str, ...], expected: int) -> None:
    assert parse_choice(text, options) == expected


def test_a_long_reply_without_an_end_is_read_in_time() -> None:
    started = time.perf_counter()
    for text in ("the answer " * 3000, "\n" * 20000, "A " * 5000, "answer is " * 3000, "{" * 5000, "\\boxed{" * 2000):
        parse_choice(text, ("shirt", "trousers", "coat", "dress"))
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", 0), ("Yes, it is.", 0), ("**No**", 1), ("The answer is no.", 1),
        ("No, it is not.", 1),
        ("Yes, there is no dog.", 0), ("No, it's not yes", 1),
        ("Yes - there's no cat", 0), ("<answer>Yes</answer> no", 0),
        ("There is no dog. Yes", None),
        ("yes or no", None), ("not yes", None), ("", None), ("nothing", None), ("A", None),
    ],
)  # fmt: skip
def test_an_unlettered_option_is_read_by_its_text_alone(text: str, expected: int | None) -> None:
    assert parse_option(text, ("yes", "no")) == expected


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [([-3.0, -1.0, -2.0], 1), ([-1.0, -1.0], 0), ([float("-inf"), -9.0], 1), ([-4.0], 0)],
)
def test_the_highest_is_chosen_and_the_first_of_equals(logprobs: list[float], expected: int) -> None:
    assert likeliest(logprobs) == expected


@pytest.mark.parametrize(
    ("logprobs", "texts", "expected"),
    [
        ([-2.0, -6.0], ["cat", "a dalmatian"], 1),  # -0.67 and -0.55 a character
        ([-2.0, -8.0], ["cat", "a dalmatian"], 0),  # -0.67 and -0.73
        ([-3.0, -4.9], ["abc", "abcde"], 1),  # -1 and -0.98, but with a leading space -0.75 and -0.82
        ([-3.0, -2.9], ["abc", "éé"], 0),  # -1 and -1.45, but by bytes -1 and -0.73
        ([-4.0, -5.0], ["abcd", "abcde"], 0),
        ([-1.0, -2.0], ["", "ab"], 0),
    ],
)
def test_the_length_is_in_characters_without_a_leading_space(
    logprobs: list[float], texts: list[str], expected: int
) -> None:
    assert likeliest_per_character(logprobs, texts) == expected


def test_each_candidate_needs_its_text() -> None:
    with pytest.raises(ValueError, match="shorter"):
        likeliest_per_character([-1.0, -2.0], ["a"])


def test_empty_lines_between_a_reply_and_its_heading_change_nothing() -> None:
    for between in ("\n", "\n\n", "\n" * 50, "\n\n#\n", " \n\n\n "):
        assert parse_choice(f"cat or dog{between}Final answer\n\nB", ["cat", "dog"]) == 1
        assert parse_choice(f"Answer{between}Final answer\n\nB", ["cat", "dog"]) == 1
