"""Cells through a server equal those of transformers, however it is asked; what it cannot tell is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from forgetbench.config import EngineConfig
from forgetbench.core.errors import UserError
from tests.support.server_app import CHAT, GENERATE, StandIn
from tests.support.server_knobs import Knobs
from tests.support.serving import CHOICE, GREEDY, SETS, Answers, Scorer, assert_equal, attached, of

Standing = Callable[..., StandIn]
LIKELY = ("fashion_naming", "digits_naming")
"""Sets of the embedded world, whose letters the model has learnt."""


def test_by_token_ids_every_cell_is_transformers_own(
    scorer: Scorer, transformers_answers: Answers, standing: Standing
) -> None:
    with standing() as server:
        assert_equal(scorer.score(attached(server)), transformers_answers)
        assert (server.seen[GENERATE] > 0, server.seen[CHAT]) == (True, 0)
    assert {key[1] for key in transformers_answers} == set(SETS)
    assert {len(answer[0]) for answer in transformers_answers.values() if answer[0]} == {4}


def test_by_conversations_every_cell_is_transformers_own(
    scorer: Scorer, transformers_answers: Answers, standing: Standing
) -> None:
    with standing(Knobs(scale_out=False)) as server:
        assert_equal(scorer.score(attached(server)), transformers_answers)
        assert server.seen[CHAT]


@pytest.mark.parametrize("owner", ["sglang", "lmdeploy"])
def test_a_plain_server_answers_by_letters_and_in_text(
    scorer: Scorer, transformers_answers: Answers, standing: Standing, owner: str, tmp_path: Path
) -> None:
    wanted = scorer.into(tmp_path / "own").score(EngineConfig(), LIKELY, limit=3)
    with standing(Knobs(owner=owner)) as server:
        assert_equal(scorer.score(attached(server), LIKELY, limit=3), wanted)
        written = scorer.score(attached(server), ["words", "open", "pairs"], decodings=list(GREEDY))
    assert_equal(written, of(transformers_answers, ["words", "open", "pairs"], "greedy"))
    table = pd.read_csv(scorer.outputs / "tables/engine.csv").set_index("dataset")
    assert set(table["prompts"]) == {"number of tokens"}
    assert table.loc["fashion_naming", "log_probabilities"] == 12  # four letters of each item


def test_a_plain_server_is_refused_options_of_several_tokens_before_anything_is_scored(
    scorer: Scorer, standing: Standing
) -> None:
    with standing(Knobs(owner="sglang")) as server, pytest.raises(UserError, match=r"^words: .*prompt_logprobs"):
        scorer.score(attached(server), ["fashion_naming", "words"], limit=3)
    assert not list(scorer.outputs.glob(".cells/*.parquet"))


def test_letters_beyond_the_likeliest_are_asked_for(
    scorer: Scorer, transformers_answers: Answers, standing: Standing
) -> None:
    with standing(Knobs(scale_out=False, max_logprobs=1)) as server:
        assert_equal(
            scorer.score(attached(server), ["letters"], decodings=list(CHOICE)),
            of(transformers_answers, ["letters"], "choice"),
        )
        assert any("prompt_logprobs" in body for _, body in server.requests)


def test_letters_beyond_the_likeliest_are_refused_by_item_where_they_cannot_be_asked_for(
    scorer: Scorer, standing: Standing
) -> None:
    with (
        standing(Knobs(owner="sglang", max_logprobs=1)) as server,
        pytest.raises(UserError, match=r"letters: Item 'letters\d': .* is not among the 1 likeliest"),
    ):
        scorer.score(attached(server), ["letters"], decodings=list(CHOICE))
    assert not list(scorer.outputs.glob(".cells/*.parquet"))


def test_a_server_without_any_log_probability_is_refused(scorer: Scorer, standing: Standing) -> None:
    with standing(Knobs(owner="sglang", lacks=("logprobs",))) as server:
        with pytest.raises(UserError, match=r"letters: .* does not return log-probabilities"):
            scorer.score(attached(server), ["letters"])
        with pytest.raises(UserError, match="letters, step_000000: sglang tells no log-probability"):
            scorer.score(attached(server), ["letters"], decodings=list(GREEDY))


def test_a_picture_that_a_refused_request_spoilt_is_asked_again(
    scorer: Scorer, transformers_answers: Answers, standing: Standing
) -> None:
    with standing(Knobs(scale_out=False, max_logprobs=5)) as server:
        assert_equal(scorer.score(attached(server), ["letters"]), of(transformers_answers, ["letters"]))
