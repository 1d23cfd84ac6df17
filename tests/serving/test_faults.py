"""Servers that fail, hang, lie or die: every cell is right, or there is none and a message says why."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from forgetbench.config import EngineConfig
from forgetbench.core.errors import UserError
from tests.support.server_app import CHAT, GENERATE, StandIn
from tests.support.server_knobs import Knobs
from tests.support.serving import CHOICE, Answers, Scorer, assert_equal, attached, of

Standing = Callable[..., StandIn]


@pytest.fixture
def letters(transformers_answers: Answers) -> Answers:
    return of(transformers_answers, ["letters"])


def none_stored(scorer: Scorer) -> bool:
    return not [*scorer.outputs.glob(".cells/*.parquet"), *scorer.outputs.glob(".cells/*.partial/*")]


@pytest.mark.parametrize("failure", ["500", "drop", "json", "hang"])
def test_a_request_that_fails_is_asked_again(
    scorer: Scorer, letters: Answers, standing: Standing, failure: str
) -> None:
    with standing(Knobs(every=5, failure=failure)) as server:
        assert_equal(scorer.score(attached(server, timeout_s=1.0), ["letters"]), letters)
        assert server.seen["failed"] > 0


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("500", "HTTP 500: Internal server error"),
        ("drop", "Server disconnected"),
        ("json", "its answer is no JSON"),
        ("hang", "timed out"),
    ],
)
def test_a_request_that_always_fails_is_named(scorer: Scorer, standing: Standing, failure: str, message: str) -> None:
    knobs = Knobs(every=1, after=3, failure=failure)  # the first requests ask what it can do
    with (
        standing(knobs) as server,
        pytest.raises(
            UserError, match=rf"letters: {server.url}: item 'letters\d': the request failed 2 times.*{message}"
        ),
    ):
        scorer.score(attached(server, tries=2, timeout_s=0.7), ["letters"])
    assert none_stored(scorer)


def test_a_slow_server_is_filled_across_batches_and_no_further(scorer: Scorer, standing: Standing) -> None:
    with standing(Knobs(delay_s=0.1)) as server:
        scorer.score(attached(server, in_flight=5), ["letters"], batch_size=1)
        assert server.seen["at once"] == 4  # all items; each is a batch
    with standing(Knobs(delay_s=0.05)) as server:
        scorer.into(scorer.outputs / "few").score(attached(server, in_flight=2), ["letters"], batch_size=4)
        assert server.seen["at once"] == 2


@pytest.mark.parametrize("failure", ["nan", "null"])
@pytest.mark.parametrize(("scale_out", "after"), [(True, 5), (False, 12)], ids=["by ids", "by conversations"])
def test_a_log_probability_that_is_no_number_is_refused_by_item(
    scorer: Scorer, standing: Standing, failure: str, scale_out: bool, after: int
) -> None:
    with (
        standing(Knobs(every=1, after=after, failure=failure, scale_out=scale_out)) as server,
        pytest.raises(UserError, match=r"letters: Item 'letters\d': the server gives (nan|None) for a log-probability"),
    ):
        scorer.score(attached(server), ["letters"], decodings=list(CHOICE))
    assert not list(scorer.outputs.glob(".cells/*.parquet"))


@pytest.mark.parametrize(
    ("lie", "scale_out", "message"),
    [
        ("first_token", True, "reads another prompt than is meant, from token 0 on"),
        ("first_token", False, "reads another prompt than is meant, from token 0 on"),
        ("template", False, "reads another prompt than is meant, .*It reads '### user"),
        ("system", False, "reads another prompt than is meant, .*You are a helpf"),
    ],
)
def test_another_prompt_is_refused_with_what_differs(
    scorer: Scorer, standing: Standing, lie: str, scale_out: bool, message: str
) -> None:
    with (
        standing(Knobs(lie=lie, scale_out=scale_out)) as server,
        pytest.raises(UserError, match=rf"letters: Item 'letters\d': the server {message}"),
    ):
        scorer.score(attached(server), ["letters"])
    assert none_stored(scorer)


def test_another_prompt_is_refused_by_its_length_where_no_ids_are_returned(scorer: Scorer, standing: Standing) -> None:
    message = r"fashion_naming: Item '\S+': the server reads \d+ tokens of prompt, and \d+ are meant"
    with standing(Knobs(lie="system", owner="sglang")) as server, pytest.raises(UserError, match=message):
        scorer.score(attached(server), ["fashion_naming"], limit=3)
    assert none_stored(scorer)


def test_a_server_that_reads_ids_in_another_way_is_asked_by_conversations(
    scorer: Scorer, letters: Answers, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing() as server:
        honest = server.model.prompt

        def prompt(ids: list[int], pictures: list[object], lie: str, text: str | None = None) -> object:
            return honest(ids, pictures, "" if text else "first_token", text)

        monkeypatch.setattr(server.model, "prompt", prompt)
        # The very first request, of one token, must come back as it was sent.
        monkeypatch.setattr(
            server.model, "prompt", lambda ids, *more: (honest if len(ids) == 1 else prompt)(ids, *more)
        )
        assert_equal(scorer.score(attached(server), ["letters"]), letters)
        assert min(server.seen[GENERATE], server.seen[CHAT]) > 1
    assert set(pd.read_csv(scorer.outputs / "tables/engine.csv")["asked_by"]) == {"conversations"}


@pytest.mark.parametrize("wrong", [{"offset": -0.1}, {"noise": 0.5, "share": 0.5}], ids=str)
def test_other_log_probabilities_are_refused_and_written_down(
    scorer: Scorer, standing: Standing, wrong: dict[str, float]
) -> None:
    with (
        standing(Knobs(**wrong)) as server,
        pytest.raises(UserError, match=r"letters, step_000000: vllm 0.32.0 gives "),
    ):
        scorer.score(attached(server), ["letters"])
    assert none_stored(scorer)
    (row,) = pd.read_csv(scorer.outputs / "tables/engine.csv").to_dict("records")
    assert (row["dataset"], row["items"], row["log_probabilities"]) == ("letters", 4, 16)
    assert 0.02 < row["largest_difference"] <= 0.5
    assert row["item"].startswith("letters")


def test_a_wider_tolerance_allows_more(scorer: Scorer, letters: Answers, standing: Standing) -> None:
    with standing(Knobs(offset=-0.1)) as server:
        assert_equal(scorer.score(attached(server, tolerance=0.2), ["letters"]), letters, within=0.11)


def test_an_attached_server_that_dies_is_waited_for_and_then_named(scorer: Scorer, standing: Standing) -> None:
    with standing(Knobs(die_after=10)) as server:
        asked = attached(server, start_minutes=0.01, in_flight=1)
        with pytest.raises(UserError, match=f"{server.url} has stopped answering. Start it again"):
            scorer.score(asked, ["letters"], batch_size=1)
    journals = [path.read_bytes() for path in scorer.outputs.glob(".cells/*.partial/*.jsonl")]
    n_kept = sum(journal.count(b"\n") for journal in journals) + 4 * len(list(scorer.outputs.glob(".cells/*.parquet")))
    assert n_kept == 5
    with standing() as server:
        scorer.score(attached(server, in_flight=1), ["letters"], batch_size=1)
        n_checked = 4
        assert server.seen[GENERATE] == 1 + n_checked + 8 - n_kept  # what is finished is not asked twice


def test_no_server_and_a_wrong_key_are_named(scorer: Scorer, standing: Standing) -> None:
    with standing(Knobs(key="right")) as server, pytest.raises(UserError, match="is its key in the variable"):
        scorer.score(attached(server), ["letters"])
    with pytest.raises(UserError, match=f"engine.url={server.url}: no server"):
        scorer.score(attached(server), ["letters"])


def test_a_key_that_the_server_quotes_is_in_no_message(
    scorer: Scorer, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_VARIABLE", "open sesame")
    with standing(Knobs(key="open sesame")) as server:
        monkeypatch.setattr(server, "respond", _quoting(server))
        with pytest.raises(UserError) as refused:
            scorer.score(attached(server, key="MY_VARIABLE"), ["letters"])
    assert "<key>" in str(refused.value)
    assert "sesame" not in str(refused.value)
    assert not [path for path in scorer.outputs.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]


def _quoting(server: StandIn) -> Callable[..., tuple[int, bytes] | None]:
    honest = server.respond

    def respond(method: str, path: str, headers: dict[str, str], content: bytes) -> tuple[int, bytes] | None:
        if method == "POST" and server.seen[GENERATE] > 2:
            return 401, f'{{"error": {{"message": "bad key {headers["Authorization"]}"}}}}'.encode()
        return honest(method, path, headers, content)

    return respond


def test_proxies_are_not_asked_for_this_machine(
    scorer: Scorer, letters: Answers, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with standing() as server:
        assert_equal(scorer.score(attached(server), ["letters"]), letters)


def test_ctrl_c_does_not_wait_for_a_server_that_hangs(scorer: Scorer, standing: Standing, ctrl_c: None) -> None:
    with standing(Knobs(every=1, after=5, failure="hang")) as server:
        main = threading.get_ident()

        def interrupt() -> None:
            while server.seen["failed"] < 4:
                time.sleep(0.02)
            signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            scorer.score(attached(server), ["letters"], batch_size=1)
        waited = time.monotonic() - started
    assert waited < 60  # a request may take 600


def test_findings_of_somebody_elses_server_are_never_reused(scorer: Scorer, standing: Standing) -> None:
    with standing() as server:
        scorer.score(attached(server), ["letters"])
    shutil.rmtree(scorer.outputs / ".cells")
    with standing(Knobs(offset=-1.0)) as server, pytest.raises(UserError, match="gives log-probabilities up to 1"):
        scorer.score(attached(server), ["letters"])
    assert not list(Path(scorer.outputs).glob(".engines/*"))


def test_transformers_own_cells_are_not_those_of_an_engine(scorer: Scorer, standing: Standing) -> None:
    scorer.score(EngineConfig(), ["letters"])
    replied = {scored.cell.digest for scored in scorer.cells}
    with standing() as server:
        scorer.score(attached(server), ["letters"])
    served = {scored.cell.digest for scored in scorer.cells}
    with standing(Knobs(version="0.33.0")) as server:
        scorer.score(attached(server), ["letters"])
        assert server.seen[GENERATE] > 0
    assert len(replied | served | {scored.cell.digest for scored in scorer.cells}) == 6


def test_what_is_stored_is_not_asked(scorer: Scorer, letters: Answers, standing: Standing) -> None:
    with standing() as server:
        scorer.score(attached(server), ["letters"])
        before, again = server.seen[GENERATE], scorer.into(scorer.outputs)
        assert_equal(again.score(attached(server), ["letters"]), letters)
        assert (server.seen[GENERATE], again.loads) == (before, 0)
