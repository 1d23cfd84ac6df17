"""What counts as naming an option, what does not, and which candidate is the likeliest."""

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
        ("yes", 0), ("Yes, it is.", 0), ("**No**", 1), ("The answer is no.", 1),
        ("No, it is not.", 1),
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
