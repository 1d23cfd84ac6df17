"""What stands in the page's HTML, as a parser reads it; no browser, and no figures but where they matter."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest

from forgetbench.reporting import page
from forgetbench.reporting.contents import LeakRow, Recommendation, ReportContents
from forgetbench.reporting.page import render
from forgetbench.reporting.page.score_history import seconds_text, short_count, signed_text, value_text
from tests.support.pages import (
    HOSTILE,
    PIXEL,
    contents_of,
    facts,
    figure,
    flips,
    matrix_row,
    one_run,
    score_row,
    single,
    sweep,
    unscored,
)

PLAIN = str.maketrans("\N{MINUS SIGN}\N{EN DASH}", "--")
VOID = {"meta", "link", "img", "input", "br", "circle", "path", "polyline"}


class Tree(HTMLParser):
    """Elements in order, with attributes, their open ancestors and all the text in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th", "li", "dt", "dd"}:
            self.handle_data(" ")
        if tag not in VOID:
            assert self.elements[self.open.pop()][0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for index in self.open:
            self.elements[index][2].append(data)

    def all(self, wanted: Callable[[str, dict[str, str | None]], Any]) -> list[tuple[dict[str, str | None], str]]:
        """Attributes and text of the elements that fit."""
        return [
            (attributes, re.sub(r"\s+", " ", "".join(words)).strip().translate(PLAIN).replace("→to", "->"))
            for tag, attributes, words in self.elements
            if wanted(tag, attributes)
        ]

    def texts(self, tag: str) -> list[str]:
        return [text for _, text in self.all(lambda name, _: name == tag)]

    def section(self, name: str) -> str:
        return self.all(lambda _, attributes: attributes.get("id") == name)[0][1]


def tree(contents: ReportContents) -> Tree:
    return Tree(render(contents, []))


def cells(parsed: Tree) -> list[str]:
    """The four quadrants of the first 2x2, by rows."""
    return [text for attributes, text in parsed.all(lambda tag, _: tag == "td") if "sets" in text][:4]


def with_rows(scores: list[Any] = (), matrix: list[Any] = (), **changes: Any) -> ReportContents:  # type: ignore[assignment]
    own_scores, own_matrix = one_run("demo")
    return contents_of(own_scores + list(scores), own_matrix + list(matrix), [facts("demo")], **changes)


def test_each_quadrant_shows_base_and_last_with_the_change_its_interval_and_chance() -> None:
    target, *_, shrunk, unclear = cells(tree(single()))
    assert "40.0 -> 60.0 % +20.0 higher [15.0, 25.0] chance 25.0 · 2 sets · choice" in target
    assert "90.0 -> 70.0 % -20.0 lower [-25.0, -15.0]" in shrunk
    assert "70.0 -> 69.0 % -1.0 unclear [-6.0, 4.0]" in unclear


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (value_text(-0.0002), "0.0"),
        (signed_text(-0.0002), "+0.0"),
        (signed_text(-0.25, "cider_d"), "\N{MINUS SIGN}0.25"),
        (seconds_text(4.25), "4.2 s"),
        (seconds_text(59.7), "1 min 00 s"),
        (seconds_text(7500), "2 h 05 min"),
        (short_count(999_700), "1.00M"),
        (short_count(820_480), "820k"),
        (short_count(12), "12"),
    ],
)
def test_numbers_are_written_for_people(written: str, said: str) -> None:
    assert written == said


def test_the_2x2_has_texts_as_rows_and_images_as_columns() -> None:
    parsed = tree(single())
    grid = parsed.all(lambda tag, attributes: tag == "table" and attributes.get("class") == "grid")[0][1]
    order = [
        grid.index(text) for text in ("ID image", "OOD image", "40.0", "60.0 ->", "OOD text", "90.0", "70.0 -> 69")
    ]
    assert order == sorted(order)


def test_the_last_stage_is_shown() -> None:
    later = [matrix_row("demo", 300, "ood_text-id_image", 0.3, 0.9, stage=2)]
    assert "90.0 -> 30.0" in tree(with_rows(matrix=later)).section("matrix")


def test_a_p_value_is_shown_where_there_is_one() -> None:
    scores, matrix = one_run("demo")
    matrix[-1]["p_holm"], matrix[-2]["p_holm"] = 0.0421, 0.0000004
    quadrants = cells(tree(contents_of(scores, matrix, [facts("demo")])))
    assert "Holm" not in quadrants[0]
    assert "pHolm <0.001" in quadrants[2]
    assert "pHolm 0.042" in quadrants[3]


def test_a_set_that_the_mix_has_shown_stands_apart_and_is_named_so() -> None:
    seen = [matrix_row("demo", step, "ood_text-ood_image", 0.8, 0.75, seen_in_mix=True) for step in (0, 200)]
    quadrant = cells(tree(with_rows(matrix=seen)))[3]
    assert quadrant.index("70.0 -> 69.0") < quadrant.index("75.0 -> 80.0") < quadrant.index("seen in mix")


def test_absent_cells_are_dashes_and_an_empty_quadrant_too() -> None:
    scores = [score_row("demo", 200, "only", "id_text-id_image", 0.5, 0.4, mde=None, forgotten=float("nan"))]
    matrix = [matrix_row("demo", 200, "id_text-id_image", 0.5, 0.4)]
    parsed = tree(contents_of(scores, matrix, [facts("demo", peak_memory_mb=None, train_seconds=None, audit={})]))
    last = next(text for text in parsed.texts("tr") if text.startswith("only"))
    assert last == "only 200 25.0 40.0 50.0 +10.0 higher [5.0, 15.0] - 10.0 - - 0.0"
    empty = parsed.all(lambda _, attributes: attributes.get("title") == "no scored set")
    assert [text for _, text in empty] == ["-", "-", "-"]
    assert "demo - - - 51.3 - 41 s" in parsed.section("cost")


def test_a_mean_has_a_chance_level_only_if_each_of_its_sets_has_one() -> None:
    place = ("ood_text-ood_image", 0.8, 0.6)
    scores = [
        score_row("demo", step, name, *place, chance=chance)
        for step in (0, 200)
        for name, chance in (("letters", 0.5), ("open", None))
    ]
    matrix = [matrix_row("demo", step, *place, n_datasets=2) for step in (0, 200)]
    *_, last = cells(tree(contents_of(scores, matrix, [facts("demo")])))
    assert "chance known for 1 of 2 · 2 sets · choice" in last
    assert "chance 50.0" not in last


def test_a_metric_on_its_own_scale_is_not_a_percentage() -> None:
    row = {"metric": "cider_d", "decoding": "greedy", "chance": None, "forgotten": None, "gained": None}
    captions = [score_row("demo", step, "captions", "ood_text-ood_image", 0.8, 1.17, **row) for step in (0, 200)]
    caption_line = next(text for text in tree(with_rows(captions)).texts("tr") if text.startswith("captions"))
    assert caption_line.startswith("captions cider_d greedy 200 - 1.17 0.80 -0.37 lower [-0.42, -0.32]")


CAPTIONS = {"metric": "cider_d", "decoding": "greedy", "chance": None}


def test_what_is_no_fraction_is_never_said_to_be_in_percent_points_or_on_the_lines_scale() -> None:
    place = ("ood_text-ood_image", 0.8, 1.17)
    scores = [score_row("demo", step, "captions", *place, **CAPTIONS) for step in (0, 200)]
    matrix = [matrix_row("demo", step, *place, **CAPTIONS) for step in (0, 200)]
    greedy = [line | {"decoding": "greedy"} for line in one_run("demo")[1]]
    both = contents_of(scores + one_run("demo")[0], matrix + greedy, [facts("demo")])
    text = tree(both).section("matrix")
    assert "Accuracy (other metrics on their own scale) of the base" in text
    assert "heights are from 0 to 100 % (of other metrics, to the highest value)" in text
    assert "% right, with the change in points (other metrics on their own scale)" in text
    assert "OOD text, OOD image, % and points (other metrics on their own scale)" in text
    assert "OOD text, ID image, % and points dataset" in text
    captions_only = tree(contents_of(scores, matrix, [facts("demo")]))
    assert "All sets here are scored in cider_d, which is no share of right answers" in captions_only.section("figures")
    assert "demo: base → step_000200, metrics on their own scale, with 95 % intervals" in captions_only.section(
        "matrix"
    )
    assert "their heights are from 0 to the highest value of each" in captions_only.section("matrix")
    assert "% right" not in captions_only.section("matrix")
    assert "All sets here" not in tree(both).texts("body")[0]
    assert "own scale" not in tree(single()).section("matrix")


def test_a_run_table_names_a_metric_that_is_not_accuracy() -> None:
    known = sweep(2, 1)
    captions = [
        matrix_row("recipe-00--seed-0", step, "ood_text-ood_image", 0.8, 1.17, metric="cider_d") for step in (0, 200)
    ]
    matrix = pd.concat([known.tables.matrix, pd.DataFrame(captions)], ignore_index=True)
    table = tree(replace(known, tables=replace(known.tables, matrix=matrix))).texts("table")[0]
    assert "% right; the change in points (other metrics on their own scale)" in table
    assert "1.17 -> 0.80-0.37 lowercider_d" in table


def test_choice_is_at_a_glance_and_other_decodings_are_in_the_details() -> None:
    greedy = [matrix_row("demo", step, "id_text-id_image", 0.33, 0.31, decoding="greedy") for step in (0, 200)]
    named = [score_row("demo", step, "one_0", "id_text-id_image", 0.33, 0.31, decoding="greedy") for step in (0, 200)]
    parsed = tree(with_rows(named, greedy))
    assert "33.0" not in cells(parsed)[0]
    details = parsed.texts("details")[0]
    assert "mean of 2 greedy 200" in details
    assert "one_0 greedy 200 25.0 31.0 33.0" in details


def test_the_probe_and_sets_in_no_quadrant_are_in_none() -> None:
    outside = [score_row("demo", step, "partly", None, 0.5, 0.6) for step in (0, 200)]
    parsed = tree(with_rows(outside))
    assert any("In no quadrant: 1 set that" in text and "partly" in text for text in parsed.texts("details"))
    assert not any("probe" in text for text in parsed.texts("details") if "text," in text)
    assert "probe choice mischoice 200 1.0 41.0 +40.0 higher" in parsed.section("matrix")


def test_mischoice_that_rises_is_for_the_worse_and_still_called_higher() -> None:
    parsed = tree(single())
    assert ({"class": "worse"}, "+40.0 higher") in parsed.all(lambda tag, _: tag == "span")


def test_variants_have_a_table_of_their_own() -> None:
    changed = {"variant": "wise_ft:0.5", "checkpoint": "step_000200@wise_ft-0.5"}
    parsed = tree(with_rows(matrix=[matrix_row("demo", 200, "id_text-id_image", 0.55, 0.4, **changed)]))
    variants = next(text for text in parsed.texts("table") if text.startswith("Variants"))
    assert "as trained 40.0 -> 60.0" in variants
    assert "step_000200@wise_ft-0.5 40.0 -> 55.0" in variants
    assert "55.0" not in cells(parsed)[0]


def test_a_sparkline_starts_at_the_base_and_says_in_words_what_it_shows() -> None:
    label = "accuracy from 40.0 % at the base to 60.0 % at step 200, between 40.0 and 60.0 % over 3 checkpoints"
    parsed = tree(single())
    assert any(attributes.get("aria-label") == label for attributes, _ in parsed.all(lambda tag, _: tag == "svg"))
    points = parsed.all(lambda tag, _: tag == "polyline")[0][0]["points"] or ""
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert len(heights) == 3
    assert heights == sorted(heights, reverse=True)


def test_a_sweep_has_a_row_per_run_under_its_recipe_and_a_link_to_its_2x2() -> None:
    parsed = tree(sweep(2, 2))
    table = parsed.texts("table")[0]
    assert re.findall(r"recipe-0\d(?:--seed-\d)?", table) == [
        "recipe-00", "recipe-00--seed-0", "recipe-00--seed-1", "recipe-01", "recipe-01--seed-0", "recipe-01--seed-1",
    ]  # fmt: skip
    links = {attributes["href"]: text for attributes, text in parsed.all(lambda tag, _: tag == "a")}
    assert links["#run-3"] == "recipe-01--seed-0"
    assert parsed.section("run-3").startswith("recipe-01--seed-0 recipe-01--seed-0: base")


def test_runs_can_be_filtered_only_where_there_are_many() -> None:
    assert 'id="run-filter"' not in render(sweep(4, 3), [])
    assert 'id="run-filter"' in render(sweep(13, 1), [])


def test_a_run_without_scores_says_so_alone_and_in_a_sweep() -> None:
    unscored_run = tree(unscored(refresh_s=30))
    assert "Nothing is scored yet." in unscored_run.section("matrix")
    assert "demo language 2.07M of 2.95M" in unscored_run.section("cost")
    among = sweep(2, 1)
    parsed = tree(replace(among, runs=[*among.runs, facts("recipe-02--seed-0")]))
    assert "recipe-02--seed-0 nothing is scored yet" in parsed.section("matrix")


def test_a_base_without_checkpoints_has_no_last_score() -> None:
    scores, matrix = one_run("demo", (0, 100))
    first = [line for line in matrix if line["step"] == 0], [line for line in scores if line["step"] == 0]
    parsed = tree(contents_of(first[1], first[0], [facts("demo")], n_flips=None))
    assert "demo: the base, % right ID image" in parsed.section("matrix")
    assert "the task's own 40.0 % chance 25.0" in parsed.section("matrix")
    assert "step_000000" not in parsed.texts("body")[0]
    assert "The untouched model tiny, nothing trained, with quadrants relative to naming" in parsed.texts("header")[0]
    assert "fine-tuned" not in parsed.texts("body")[0]
    assert "No answers could be compared" in parsed.section("flips")


def test_a_page_of_a_run_that_goes_on_reloads_itself_and_says_so() -> None:
    parsed = tree(single(refresh_s=30))
    assert ({"http-equiv": "refresh", "content": "30"}, "") in parsed.all(lambda tag, _: tag == "meta")
    assert "The run goes on" in parsed.texts("header")[0]
    assert "refresh" not in render(single(), [])


def test_the_recommendation_and_what_is_compared_are_in_the_header() -> None:
    header = tree(sweep(2, 2, recommendation=Recommendation("Take it.", ["One.", "Two."]))).texts("header")[0]
    assert "4 runs of 2 recipes of the model tiny, fine-tuned on naming, scored on 9 sets" in header
    assert "Take it. One. Two." in header


def test_more_evidence_than_four_sentences_can_be_unfolded() -> None:
    sentences = [f"Sentence {k}." for k in range(1, 8)]
    parsed = tree(sweep(2, 2, recommendation=Recommendation("Take it.", sentences)))
    folded = next(text for text in parsed.texts("details") if "Sentence" in text)
    assert folded == "3 more sentences Sentence 5. Sentence 6. Sentence 7."
    few = tree(sweep(2, 2, recommendation=Recommendation("Take it.", sentences[:4])))
    assert not any("Sentence" in text for text in few.texts("details"))


def test_what_is_not_on_the_page_is_said_only_where_something_is_missing() -> None:
    assert "Not on this page No flips: gone." in tree(single(notes=["No flips: gone."])).texts("header")[0]
    assert "Not on this page" not in tree(single()).texts("header")[0]


def test_runs_of_different_targets_are_said_to_have_quadrants_of_their_own() -> None:
    known = sweep(2, 1)
    names = {"recipe-00": "naming", "recipe-01": "counting"}
    scores, matrix = (
        frame.assign(target=frame["recipe"].map(names)) for frame in (known.tables.scores, known.tables.matrix)
    )
    parsed = tree(replace(known, tables=replace(known.tables, scores=scores, matrix=matrix)))
    assert "Runs have different targets, and each one's quadrants are relative to its own." in parsed.section("matrix")
    assert "base → step_000200, quadrants relative to counting, % right" in parsed.section("run-2")
    assert "relative to" not in tree(known).section("matrix")


def test_hostile_names_questions_and_configurations_are_text() -> None:
    scores, matrix = one_run(HOSTILE)
    spoilt = [replace(flip, question=HOSTILE, run=HOSTILE, options=(HOSTILE, "b")) for flip in flips("demo", 1)]
    leaks = [LeakRow(HOSTILE, HOSTILE, 1, 0, 0, HOSTILE)]
    known = facts(HOSTILE, config=HOSTILE, command=HOSTILE, environment={HOSTILE: HOSTILE})
    contents = contents_of(
        scores, matrix, [known], title=HOSTILE, flips=spoilt, n_flips=1, leaks=leaks, command=HOSTILE,
        recommendation=Recommendation(HOSTILE, [HOSTILE]),
    )  # fmt: skip
    html = render(contents, [])
    assert "<script>window" not in html
    assert "<img src=x" not in html
    assert HOSTILE in Tree(html).texts("title")[0]
    data = json.loads(next(text for at, text in Tree(html).all(lambda t, _: t == "script") if at.get("id")))
    assert data["items"][0]["question"] == HOSTILE


def test_nothing_is_loaded_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_vega", lambda _: "")
    html = render(single(), [figure("one")])
    loading = Tree(html).all(lambda _, attributes: attributes.keys() & {"src", "href", "srcset", "action"})
    assert loading
    for attributes, _ in loading:
        assert (attributes.get("src") or attributes["href"] or "").startswith(("#", "data:"))
    assert "default-src 'none'" in html
    assert "@import" not in html
    assert not re.search(r"url\((?!data:)", html)


def test_pictures_that_are_not_pictures_stay_out() -> None:
    html = render(single(pictures={"pixel": "https://example.org/spy.png", "unused": PIXEL}), [])
    assert "example.org" not in html
    assert PIXEL not in html


def test_the_same_contents_give_the_same_bytes() -> None:
    assert render(sweep(2, 2), []) == render(sweep(2, 2), [])


def test_an_item_seen_by_several_checkpoints_is_in_the_page_once() -> None:
    first = next(flips("demo", 1))
    html = render(single(flips=(first, replace(first, checkpoint="step_000100"))), [])
    assert html.count(first.question) == 1


def test_the_explorer_says_how_much_of_the_run_it_holds() -> None:
    assert "holds 47 of the 120 there are" in tree(single()).section("flips")
    assert "there are" not in tree(single(n_flips=47)).section("flips")
    assert "No answer changed" in tree(single(flips=(), n_flips=0)).section("flips")
    assert "No answers could be compared" in tree(single(flips=(), n_flips=None)).section("flips")


def test_figures_have_a_title_a_caption_and_words_for_those_who_do_not_see_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page, "_vega", lambda version: f"vega({version})")
    parsed = Tree(render(single(), [figure("one"), figure("two")]))
    charts = parsed.all(lambda _, attributes: attributes.get("class") == "chart")
    assert [(at["role"], at["aria-label"]) for at, _ in charts] == [
        ("img", f"A line that rises ({name}).") for name in ("one", "two")
    ]
    assert [
        text.startswith(f"Figure {name}") for text, name in zip(parsed.texts("figure"), ("one", "two"), strict=True)
    ]
    assert "figures/two.svg" in parsed.texts("noscript")[-2]
    assert parsed.texts("script").count("vega(6.1)") == 1


def test_figures_of_two_versions_of_vega_lite_are_refused() -> None:
    older = replace(figure("old"), spec={"$schema": "https://vega.github.io/schema/vega-lite/v5.20.1.json"})
    with pytest.raises(ValueError, match=r"5\.20.*6\.1"):
        render(single(), [figure("new"), older])


def test_seeds_have_both_errors_beside_each_other() -> None:
    row = {
        "recipe": "recipe-00", "variant": None, "method": "plain", "parts": "language", "lr": 0.001, "mix": "general",
        "mix_ratio": 0.5, "quadrant": "ood_text-id_image", "decoding": "choice", "metric": "accuracy",
        "seen_in_mix": True, "n_seeds": 3, "value": 0.7, "base_value": 0.9, "delta": -0.2, "item_stderr": 0.011,
        "seed_sd": 0.032, "ci_low": -0.27, "ci_high": -0.13,
    }  # fmt: skip
    known = sweep(1, 3)
    seeds = tree(replace(known, tables=replace(known.tables, seeds=pd.DataFrame([row])))).section("seeds")
    assert "recipe-00 plain, language, lr 0.001, mix general at 0.5" in seeds
    line = "OOD text, ID image seen in mix choice accuracy 3 90.0 70.0 -20.0 lower [-27.0, -13.0] 1.1 3.2"
    assert line in seeds
    assert 'id="seeds"' not in render(known, [])


@pytest.mark.parametrize(
    ("leaks", "said"),
    [
        ([], "were not compared"),
        (
            [LeakRow("a", "t, u", 9, 0, 0, ""), LeakRow("b", "t, u", 9, 0, 0, "")],
            "No picture of the 2 sets checked is identical, or nearly identical, to one in a training set.",
        ),
        (
            [LeakRow("a", "t", 9, 1, 0, ""), LeakRow("b", "t, u", 9, 0, 0, "")],
            "1 of the 2 sets checked has pictures that a training set shows again: a (1 identical to those of t).",
        ),
        (
            [LeakRow("a", "t", 9, 1, 2, ""), LeakRow("a", "u", 9, 0, 3, ""), LeakRow("b", "t", 9, 0, 4, "")],
            "a (1 identical and 2 nearly identical to those of t, 3 nearly identical to those of u); "
            "b (4 nearly identical to those of t).",
        ),
        ([LeakRow("a", "t", 0, 0, 0, "gated")], "Not checked: a."),
    ],
)
def test_leakage_is_said_in_a_sentence_that_tells_identical_from_nearly_identical(
    leaks: list[LeakRow], said: str
) -> None:
    assert said in tree(single(leaks=leaks)).section("leaks")


def test_what_makes_it_again_is_at_the_end() -> None:
    again = tree(single()).section("again")
    for text in ("forgetbench report run=outputs/demo", "forgetbench finetune name=demo", "seed: 0", "torch 2.13.0"):
        assert text in again


def test_headings_do_not_skip_a_level_and_tables_have_captions_and_scopes() -> None:
    parsed = tree(sweep(2, 2, flips=tuple(flips("recipe-00--seed-0", 3)), n_flips=3))
    levels = [int(tag[1]) for tag, _, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(parsed.texts("table")) == len(parsed.texts("caption")) > 0
    heads = parsed.all(lambda tag, _: tag == "th")
    assert heads
    assert all("scope" in attributes for attributes, _ in heads)
    regions = parsed.all(lambda _, attributes: "scroll" in (attributes.get("class") or "").split())
    assert regions
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes, _ in regions)


def test_every_link_within_the_page_has_somewhere_to_go() -> None:
    parsed = tree(sweep(2, 2))
    ids = [attributes["id"] for attributes, _ in parsed.all(lambda _, attributes: "id" in attributes)]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] or "" for attributes, _ in parsed.all(lambda tag, _: tag == "a")]
    assert links
    assert {link[1:] for link in links} <= set(ids)
