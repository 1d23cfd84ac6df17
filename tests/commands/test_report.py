"""`forgetbench report`, from folders of answered runs to a page: what it gathers, says and leaves out."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.commands import report
from forgetbench.compose import compose
from forgetbench.config import FinetuneConfig
from forgetbench.core.errors import UserError
from forgetbench.reporting.gather import gather
from tests.support.answered import FORGETS, KEEPS, answered_run, write_train


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two decodings and a variant, and a sweep of two recipes, one of them with two seeds."""
    outputs = tmp_path_factory.mktemp("report") / "outputs"
    answered_run(outputs, "run", FORGETS, greedy=True, variants=("wise_ft:0.5",))
    for seed in (0, 1):
        answered_run(outputs, f"grid/low--seed-{seed}", KEEPS, "recipe.lr=1e-5", seed=seed)
    answered_run(outputs, "grid/high--seed-0", FORGETS, "recipe.lr=1e-3")
    return outputs


def test_the_page_and_its_figures_are_written_into_the_folder(outputs: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(outputs / "run")])
    assert done.exit_code == 0, done.output
    page = (outputs / "run/report.html").read_text("utf-8")
    assert len(page.encode()) < 5_000_000
    figures = sorted(path.name for path in (outputs / "run/figures").iterdir())
    assert {"tradeoff.svg", "tradeoff.png", "probe.svg", "probe.png"} <= set(figures)
    assert "cannot tell run from run + wise_ft:0.5" in page


def test_every_kind_of_flip_is_found_with_its_answers_and_picture(outputs: Path) -> None:
    contents = gather(outputs / "run", 10_000)
    assert contents.n_flips == len(contents.flips)
    kinds = {kind for flip in contents.flips for kind in flip.kinds}
    assert kinds == {"forgotten", "gained", "mischoice", "unparsed"}
    scores = pd.read_csv(outputs / "run/scores.csv")
    counts = scores[scores["forgotten"].notna()]
    assert not counts.empty
    for (dataset, checkpoint, decoding), rows in counts.groupby(["dataset", "checkpoint", "decoding"]):
        flips = [
            flip
            for flip in contents.flips
            if (flip.dataset, flip.checkpoint, flip.decoding) == (dataset, checkpoint, decoding)
        ]
        for kind in ("forgotten", "gained"):
            counted = sum(kind in flip.kinds for flip in flips)
            assert counted == round(rows[kind].iloc[0] * rows["n"].iloc[0]), (dataset, checkpoint, kind)
    forgotten = next(flip for flip in contents.flips if flip.kinds == ("forgotten",) and flip.decoding == "choice")
    assert (forgotten.before.is_right, forgotten.after.is_right) == (True, False)
    assert forgotten.before.text == forgotten.target
    assert sum(forgotten.after.probabilities or ()) == pytest.approx(1, abs=1e-3)
    assert contents.pictures[forgotten.image].startswith("data:image/")
    assert forgotten.question
    assert not any(line.startswith("A. ") for line in forgotten.question.splitlines())
    mischoice = next(flip for flip in contents.flips if "mischoice" in flip.kinds)
    assert mischoice.dataset == "fashion_probe"
    assert mischoice.class_option is not None


def test_a_limit_takes_flips_of_every_dataset_checkpoint_and_kind(outputs: Path) -> None:
    every, few = gather(outputs / "run", 10_000), gather(outputs / "run", 60)
    assert (len(few.flips), few.n_flips) == (60, every.n_flips)
    assert {flip.dataset for flip in few.flips} == {flip.dataset for flip in every.flips}
    assert {flip.checkpoint for flip in few.flips} == {flip.checkpoint for flip in every.flips}
    assert {kind for flip in few.flips for kind in flip.kinds} == {kind for flip in every.flips for kind in flip.kinds}


def test_a_sweep_is_compared_by_recipe_with_its_seeds(outputs: Path) -> None:
    contents = gather(outputs / "grid", 50)
    assert contents.is_sweep
    assert {run.recipe for run in contents.runs} == {"low", "high"}
    assert set(contents.tables.seeds.loc[contents.tables.seeds["recipe"] == "low", "n_seeds"]) == {2}
    assert contents.recommendation is not None
    assert contents.recommendation.headline.startswith("Take low:")
    assert any("high" in line and "worse by" in line for line in contents.recommendation.evidence)
    assert {flip.checkpoint for flip in contents.flips} == {"step_000020"}


def test_a_single_run_is_told_whether_it_forgot_and_where(outputs: Path) -> None:
    forgot = gather(outputs / "grid/high--seed-0", 0).recommendation
    assert forgot is not None
    assert "learnt its target and forgot elsewhere" in forgot.headline
    assert any(line.startswith("On ID images: the drop on OOD text minus") for line in forgot.evidence)
    kept = gather(outputs / "grid/low--seed-0", 0).recommendation
    assert kept is not None
    assert "the data cannot tell whether it forgot elsewhere" in kept.headline


def test_cost_audit_and_leaks_are_what_the_run_says(outputs: Path) -> None:
    contents = gather(outputs / "grid", 0)
    facts = contents.runs[0]
    assert facts.train_seconds == pytest.approx(20 * 32 / 100)
    assert (facts.samples_per_s, facts.peak_memory_mb) == (100, 512)
    assert facts.eval_seconds == pytest.approx(3 * 5 * 1.5)  # base, two checkpoints; five sets; one decoding
    assert facts.audit["label"] == "language"
    leaks = {row.dataset: row for row in contents.leaks}
    assert leaks["fashion_naming"].trained_on == "fashion_naming"
    assert (leaks["fashion_naming"].identical, leaks["fashion_naming"].n_pictures) == (0, 500)


def test_the_command_of_a_run_composes_to_its_configuration(outputs: Path) -> None:
    overrides = ["recipe.lr={language: 1e-5, projector: 1e-4}", "recipe.parts=[language,projector]", "method=lora"]
    more = ["recipe.mix.data=[general]", "recipe.mix.ratio=0.25", "method.rank=4", "outputs='my (own) \\'folder\\''"]
    folder = answered_run(outputs, "odd", KEEPS, *overrides, *more, steps=(5,))
    (facts,) = gather(folder, 0).runs
    words = shlex.split(facts.command)
    assert words[:2] == ["forgetbench", "finetune"]
    assert compose(FinetuneConfig, words[2:]) == compose(FinetuneConfig, ["name=odd", "seed=0", *overrides, *more])


def test_a_run_that_is_only_trained_has_a_page_too(outputs: Path) -> None:
    folder = outputs / "begun"
    folder.mkdir()
    shutil.copy(outputs / "run/run.json", folder)
    write_train(folder, 3)
    report.make_report(folder, report.Options())
    assert "scored" in (folder / "report.html").read_text("utf-8")


def test_lost_answers_are_said_and_the_tables_are_shown_all_the_same(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(outputs / "run", tmp_path / "outputs/run")
    (tmp_path / "outputs/.cells").mkdir()
    contents = gather(tmp_path / "outputs/run", 50)
    assert "forgetbench eval-matrix run=" in capsys.readouterr().out
    assert (contents.recommendation, list(contents.flips)) == (None, [])
    assert len(contents.tables.scores)


def test_pictures_stay_within_their_budget(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forgetbench.reporting.thumbnails.BUDGET", 3_000)
    contents = gather(outputs / "run", 200)
    assert sum(map(len, contents.pictures.values())) < 5_000
    assert {flip.image for flip in contents.flips} == {"", *contents.pictures}


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a run"):
        gather(tmp_path, 10)
    done = CliRunner().invoke(app, ["report", str(tmp_path / "nothing")])
    assert done.exit_code == 2
    assert "is not a folder" in done.output


def test_a_watched_page_follows_its_run_and_ends_without_refreshing(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, pages, naps = tmp_path / "run", [], []

    def nap(_: float) -> None:
        naps.append(0)
        if len(naps) == 1:  # the run has not begun
            folder.mkdir()
            shutil.copy(outputs / "run/run.json", folder)
            write_train(folder, 2)
            return
        pages.append((folder / "report.html").read_text("utf-8"))
        if len(pages) == 1:
            write_train(folder, 9)
        elif len(pages) == 3:  # what was shown last is kept
            (folder / "run.json").write_text("{", "utf-8")
            raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", nap)
    opened: list[str] = []
    monkeypatch.setattr(report.webbrowser, "open", opened.append)
    report.watch(folder, report.Options(open_page=True))
    assert len(opened) == 1
    assert pages[0] != pages[1]
    assert pages[1] == pages[2]
    assert 'http-equiv="refresh"' in pages[2]
    assert 'http-equiv="refresh"' not in (folder / "report.html").read_text("utf-8")


def test_an_imported_run_is_made_again_by_its_import(outputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "outputs/run"
    shutil.copytree(outputs, tmp_path / "outputs")
    described = json.loads((folder / "run.json").read_text("utf-8"))
    described["environment"] = {**described["environment"], "imported from": "/saves/my sft"}
    (folder / "run.json").write_text(json.dumps(described))
    (facts,) = gather(folder, 0).runs
    words = shlex.split(facts.command)
    assert words[:4] == ["forgetbench", "import", "/saves/my sft", "name=run"]
    assert compose(FinetuneConfig, words[3:]).data.stages[0].set == "fashion_naming"
