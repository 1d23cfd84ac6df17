"""The page in a real browser: what is drawn, filtered and read, by keyboard, on a phone and in the dark."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from forgetbench.reporting.charts import figures, vega_spec
from forgetbench.reporting.page import DrawnFigure, render
from tests.support.pages import HOSTILE, PIXEL, facts, figure, flips, single, sweep

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install '.[dev]'")

ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const c = rgb[i] / 255;
    return sum + weight * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  }, 0);
  const paper = (node) => {
    for (; node; node = node.parentElement) {
      const colour = rgba(getComputedStyle(node).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    throw new Error("no background");
  };
  const low = new Set();
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("script, template, .chart")) continue;
    const [a, b] = [light(rgba(getComputedStyle(node).color)), light(paper(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.add(node.outerHTML.slice(0, 80));
  }
  return [...low];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("no Chromium here: apt install chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=executable, args=ARGUMENTS.split())
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


class Window:
    """A tab with one page, and what went wrong in it."""

    def __init__(self, browser: Any, folder: Path, name: str, html: str, **options: Any) -> None:
        self.wrong: list[str] = []
        path = folder / f"{name}.html"
        path.write_text(html, encoding="utf-8")
        self.url = path.as_uri()
        self.tab = browser.new_page(reduced_motion="reduce", **options)
        self.tab.on("console", lambda message: self.wrong.append(message.text))
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("request", lambda request: self._note(request.url))
        start = time.perf_counter()
        self.tab.goto(self.url)
        print(f"{name}: {len(html) / 1e6:.1f} MB loaded in {time.perf_counter() - start:.2f} s")

    def _note(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.wrong.append(url)

    def draw_all(self) -> None:
        for chart in self.tab.query_selector_all(".chart"):
            chart.scroll_into_view_if_needed()
            self.tab.wait_for_function("chart => ['drawn', 'failed'].includes(chart.dataset.state)", arg=chart)

    def count(self) -> str:
        return str(self.tab.inner_text("#flip-count"))

    def cards(self) -> int:
        return int(self.tab.locator("#flip-list > li").count())

    def choose(self, facet: str, value: str) -> None:
        self.tab.select_option(f"#flip-{facet}", value)


@pytest.fixture(scope="module")
def window(browser: Any, folder: Path) -> Window:
    """One run, two figures and 47 changed answers, the first of them hostile."""
    first, *others = flips("demo", 47)
    hostile = replace(first, question=HOSTILE, options=(HOSTILE, "coat", "bag", "boot"), image="pixel")
    unsaid = replace(first, sample_id="one_2/test/last", options=(), kinds=("unparsed",), dataset="open")
    unsaid = replace(unsaid, after=replace(first.after, text="", is_parsed=False, probabilities=None))
    known = single(
        title=HOSTILE,
        runs=[facts("demo", config=HOSTILE)],
        flips=(hostile, *others[:-1], unsaid),
        pictures={"pixel": PIXEL},
    )
    return Window(browser, folder, "run", render(known, [figure("one"), figure("two")]))


@pytest.fixture(autouse=True)
def all_answers(request: pytest.FixtureRequest) -> None:
    """Tests that share the window start without filters."""
    if "window" in request.fixturenames:
        request.getfixturevalue("window").tab.click("#flip-filters button")


def test_every_figure_is_drawn_when_it_comes_near_and_can_be_saved(window: Window) -> None:
    window.draw_all()
    assert window.tab.locator(".chart svg").count() == 2
    assert window.tab.locator(".chart path[aria-roledescription='point']").count() == 4
    assert window.tab.locator("#figure-one .vega-actions a").all_inner_texts() == ["Save as SVG", "Save as PNG"]
    link = window.tab.locator("#figure-one .vega-actions a").first
    link.focus()
    with window.tab.expect_download() as saved:
        window.tab.wait_for_function("link => !link.getAttribute('href').endsWith('#')", arg=link.element_handle())
        window.tab.keyboard.press("Enter")
    assert saved.value.suggested_filename == "one.svg"


def test_an_answers_card_has_the_item_and_both_answers(window: Window) -> None:
    text = window.tab.locator("#flip-list > li").nth(1).inner_text()
    for part in ("gained", "Question 1: when is it worn?", "A. shirt class name", "B. coat right", "70.0", "20.0"):
        assert part in text
    assert "B. coat \N{EN DASH} right" in text
    assert "A. shirt \N{EN DASH} wrong" in text
    pictures = window.tab.locator("#flip-list img:visible")
    assert pictures.count() == 11
    assert pictures.first.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"


def test_filters_narrow_answers_and_each_others_choices(window: Window) -> None:
    assert window.count() == "20 of 47 shown; 120 in the run in all"
    window.choose("kind", "forgotten")
    assert window.count() == "16 of 16 shown; 120 in the run in all"
    window.choose("dataset", "two_3")
    assert window.cards() == 8
    offered = window.tab.locator("#flip-quadrant option").all_inner_texts()
    assert [text.split(" (")[0] for text in offered] == ["all", "OOD text, OOD image"]
    window.tab.fill("#flip-text", "nowhere in any of them")
    assert window.count() == "Nothing matches these filters; 120 in the run in all"
    assert window.cards() == 0


def test_free_text_finds_questions_whatever_their_case(window: Window) -> None:
    window.tab.fill("#flip-text", "QUESTION 12:")
    assert window.count().startswith("1 of 1 shown")


def test_facets_with_one_value_are_not_offered(window: Window) -> None:
    assert not window.tab.locator("#flip-run").is_visible()
    assert window.tab.locator("#flip-kind").is_visible()


def test_more_answers_come_on_demand_and_take_the_focus(window: Window) -> None:
    window.tab.focus("#flip-more")
    window.tab.keyboard.press("Enter")
    assert window.count().startswith("40 of 47 shown")
    assert (
        window.tab.evaluate("[...document.querySelectorAll('#flip-list > li')].indexOf(document.activeElement)") == 20
    )
    window.tab.click("#flip-more")
    assert window.cards() == 47
    assert not window.tab.locator("#flip-more").is_visible()


def test_a_view_of_answers_can_be_linked_and_comes_back_on_reload(window: Window) -> None:
    window.choose("kind", "mischoice")
    window.tab.fill("#flip-text", "question 2")
    before = window.count()
    assert window.tab.url.endswith("#flips?kind=mischoice&text=question+2")
    window.tab.reload()
    assert window.count() == before
    assert window.tab.input_value("#flip-kind") == "mischoice"
    assert window.tab.locator("#flips h2").evaluate("title => title.getBoundingClientRect().top") < 400


def test_details_open_by_keyboard(window: Window) -> None:
    details = window.tab.locator("#matrix details").first
    details.locator("summary").focus()
    window.tab.keyboard.press("Enter")
    assert details.locator("table").is_visible()
    window.tab.keyboard.press("Enter")
    assert not details.locator("table").is_visible()


def test_a_click_on_a_quadrant_opens_its_datasets(window: Window) -> None:
    cells, details = window.tab.locator(".grid tbody td"), window.tab.locator("#matrix details[id$=image]")
    for place in (1, 2, 1):
        if details.nth(place).get_attribute("open") is not None:
            details.nth(place).locator("summary").click()
        cells.nth(place).click()
        window.tab.wait_for_function("element => element.open", arg=details.nth(place).element_handle())
        assert details.nth(place).locator("table").is_visible()


def test_the_first_key_goes_to_the_results(window: Window) -> None:
    window.tab.goto(window.url)
    window.tab.keyboard.press("Tab")
    assert window.tab.evaluate("document.activeElement.textContent") == "Skip to the results"
    window.tab.keyboard.press("Enter")
    assert window.tab.evaluate("document.activeElement.id") == "main"


def test_what_looks_like_a_script_is_shown_and_not_run(window: Window) -> None:
    assert window.tab.evaluate("window.ran") is None
    assert window.tab.inner_text("h1") == HOSTILE
    assert window.tab.locator(".flip-question").first.inner_text() == HOSTILE
    assert HOSTILE in window.tab.locator(".flip-options tbody th").first.inner_text()


def test_light_and_dark_are_both_readable(window: Window) -> None:
    window.draw_all()
    window.tab.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    inks = []
    for scheme in ("light", "dark"):
        window.tab.emulate_media(color_scheme=scheme)
        assert window.tab.evaluate(CONTRAST) == []
        axis = window.tab.locator(".chart .role-axis-label text").first
        inks.append(axis.evaluate("label => getComputedStyle(label).fill"))
        inks.append(window.tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(set(inks)) == 4
    window.tab.emulate_media(color_scheme="light")


def test_a_phone_scrolls_tables_and_not_the_page(window: Window) -> None:
    usual = window.tab.viewport_size
    window.tab.set_viewport_size({"width": 390, "height": 844})
    window.tab.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert window.tab.evaluate("document.documentElement.scrollWidth") == 390
    assert window.tab.evaluate("[...document.querySelectorAll('.scroll')].some((box) => box.scrollWidth > 390)")
    window.tab.set_viewport_size(usual)


def test_fifty_runs_can_be_searched_and_opened(browser: Any, folder: Path) -> None:
    names = [f"recipe-{recipe:02}--seed-0" for recipe in range(50)]
    known = sweep(50, 1, flips=tuple(flip for name in names for flip in flips(name, 20)), n_flips=1000)
    many = Window(browser, folder, "sweep", render(known, [figure("one")]), viewport={"width": 390, "height": 844})
    assert many.tab.locator("tr[data-run]:visible").count() == 50
    many.tab.fill("#run-filter", "RECIPE-1")
    assert many.tab.inner_text("#run-count") == "10 of 50 runs"
    assert many.tab.locator("tr[data-run]:visible").count() == 10
    many.tab.click("text=recipe-17--seed-0 >> nth=0")
    assert many.tab.locator("#run-18 .grid").is_visible()
    many.choose("run", "recipe-49--seed-0")
    assert many.count() == "20 of 20 shown; 1,000 in all runs"
    assert many.tab.evaluate("document.documentElement.scrollWidth") == 390
    assert many.wrong == []
    many.tab.close()


def test_a_run_of_fifty_checkpoints_is_one_line_per_score(browser: Any, folder: Path) -> None:
    known = sweep(1, 1, range(0, 5000, 100))
    long = Window(browser, folder, "long", render(known, []))
    points = long.tab.locator(".grid polyline").first.get_attribute("points")
    assert len(re.findall(",", points)) == 50
    assert long.wrong == []
    long.tab.close()


def test_the_fronts_of_several_targets_fit_a_phone_without_a_warning(browser: Any, folder: Path) -> None:
    ends = {
        f"{name}_ci_{end}": at for name, at in (("target_delta", 0.3), ("retention", 0.8)) for end in ("low", "high")
    }
    known = {"decoding": "choice", "method": "plain", "variant": None, "stage": 1, "step": 9, "seed": 0, **ends}
    summary = pd.DataFrame(
        known | {"run": name, "recipe": name, "target": name[0], "target_delta": 0.3, "retention": 0.8}
        for name in ("a1", "a2", "b1")
    )
    (drawn,) = figures(replace(single().tables, scores=pd.DataFrame(), matrix=pd.DataFrame(), summary=summary))
    shown = DrawnFigure(drawn.name, drawn.title, drawn.caption, drawn.alt_text, vega_spec(drawn, "page"))
    phone = Window(browser, folder, "targets", render(single(), [shown]), viewport={"width": 390, "height": 844})
    phone.draw_all()
    box = phone.tab.locator(".chart svg").bounding_box()
    assert 300 < box["width"] <= 390
    assert phone.tab.locator(".chart").inner_text().count("Target") == 2
    phone.tab.set_viewport_size({"width": 1100, "height": 844})
    phone.tab.wait_for_function("document.querySelector('.chart svg').getBoundingClientRect().width > 900")
    assert phone.wrong == []
    phone.tab.close()


def test_nothing_went_wrong_and_nothing_was_loaded(window: Window) -> None:
    assert window.wrong == []
