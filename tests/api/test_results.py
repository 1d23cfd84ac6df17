"""Results: frames, text and HTML of the tables that are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import forgetbench
from forgetbench.cli import app
from forgetbench.commands.report import Options, WrittenReport
from forgetbench.compose.points import FailedPoint
from forgetbench.core.errors import UserError
from tests.support.answered import FORGETS, KEEPS, answered_run

HOSTILE = "<img src=x onerror=alert(1)>&amp;"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("results") / "outputs"
    answered_run(outputs, "grid/low", KEEPS, "recipe.lr=1e-5", steps=(20,), limit=20)
    answered_run(outputs, "grid/high", FORGETS, "recipe.lr=1e-3", steps=(20,), variants=("wise_ft-0.5",))
    answered_run(outputs, HOSTILE, FORGETS, steps=(20,), limit=20)
    return outputs


def run_of(path: Path) -> forgetbench.RunResult:
    result = forgetbench.show(path)
    assert isinstance(result, forgetbench.RunResult)
    return result


def test_tables_are_those_of_the_folder_and_what_is_absent_has_no_rows(outputs: Path) -> None:
    run = run_of(outputs / "grid/high")
    for name in ("scores", "matrix", "summary", "drift", "train"):
        stored = pd.read_csv(outputs / f"grid/high/{name}.csv")
        assert len(stored) == len(getattr(run, name)) > 0
        assert list(getattr(run, name).columns) == list(stored.columns)
    assert run.representation.empty
    assert run.continual.empty
    assert set(run.rows["variant"].dropna()) == {"wise_ft-0.5"}
    sweep = forgetbench.show(outputs / "grid")
    assert isinstance(sweep, forgetbench.SweepResult)
    assert [run.name for run in sweep.runs] == ["high", "low"]
    assert set(sweep.summary["run"]) == {"high", "low"}
    assert (list(sweep.failed), sweep.seeds.empty, sweep.strategies.empty) == ([], True, True)


def test_a_result_prints_what_a_terminal_shows_and_its_repr_is_one_line(outputs: Path) -> None:
    run = run_of(outputs / "grid/high")
    assert "best on target" in str(run)
    assert "lower*" in str(run)
    assert max(map(len, str(run).splitlines())) <= 120
    assert "base -> last, %" in str(forgetbench.show(outputs / "grid"))
    assert repr(run) == f"RunResult(folder={outputs / 'grid/high'!r})"
    assert "recipe" not in repr(forgetbench.compare(outputs / "grid/high"))


def test_a_notebook_gets_the_2x2_with_texts_as_rows_and_images_as_columns(outputs: Path) -> None:
    html = run_of(outputs / "grid/high")._repr_html_()
    headings, first, second = re.findall("<tr>.*?</tr>", html)[:3]
    assert headings.index(">ID image<") < headings.index(">OOD image<")
    assert (">ID text<" in first, ">OOD text<" in second) == (True, True)
    row = run_of(outputs / "grid/high").rows.query("quadrant == 'ood_text-id_image' and variant.isna()").iloc[0]
    assert f"{100 * row['value']:.1f}" in second
    assert "@wise_ft-0.5" in html
    assert "mischoice" in forgetbench.show(outputs / "grid")._repr_html_()


def test_names_are_escaped(outputs: Path, tmp_path: Path) -> None:
    run = run_of(outputs / HOSTILE)
    texts = [run._repr_html_(), forgetbench.compare(run)._repr_html_()]
    sweep = forgetbench.SweepResult(tmp_path, failed=[_failed(tmp_path / HOSTILE)])
    for html in [*texts, sweep._repr_html_()]:
        assert "<img" not in html
        assert "&lt;img" in html


def _failed(folder: Path) -> FailedPoint:
    return FailedPoint(folder, "<b>cause</b>")


def test_an_unscored_run_says_what_scores_it(outputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_bytes((outputs / "grid/low/run.json").read_bytes())
    run = run_of(folder)
    assert (run.scores.empty, run.matrix.empty, run.summary.empty, list(run.checkpoints)) == (True, True, True, [])
    assert "has no scores yet: forgetbench eval-matrix" in str(run)
    assert "has no scores yet" in run._repr_html_()


def test_functions_and_commands_say_the_same(outputs: Path) -> None:
    high, low = str(outputs / "grid/high"), str(outputs / "grid/low")
    printed = CliRunner().invoke(app, ["compare", high, low, "--margin", "5"]).stdout
    rows = forgetbench.compare(high, low, margin=5).rows
    assert len(printed.splitlines()) == len(rows) + 1
    none = str(outputs / "none")
    for wrong in (["compare", high, "--margin", "0"], ["show", none], ["report", none]):
        message = CliRunner().invoke(app, wrong).stderr.splitlines()[-1]
        function = getattr(forgetbench, wrong[0])
        with pytest.raises(UserError) as refused:
            function(wrong[1], **({"margin": 0} if "--margin" in wrong else {}))
        assert str(refused.value) == message


def test_a_report_gives_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, Options]] = []

    def make(path: Path, options: Options) -> WrittenReport:
        asked.append((path, options))
        return WrittenReport(path / "report.html", [path / "figures/curves.svg"])

    monkeypatch.setattr("forgetbench.commands.report.make_report", make)
    monkeypatch.chdir(tmp_path)
    made = forgetbench.report(forgetbench.RunResult(Path("<b>/run")), flips=3, open=True)
    assert asked == [(Path("<b>/run"), Options(flips=3, open_page=True))]
    assert (Path(made), list(made.figures)) == (Path("<b>/run/report.html"), [Path("<b>/run/figures/curves.svg")])
    assert made._repr_html_().startswith('<a href="%3Cb%3E/run/report.html"')
    assert "<b>" not in made._repr_html_()


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import forgetbench; forgetbench.__version__; dir(forgetbench)\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - sys.stdlib_module_names))\n"
        "forgetbench.finetune, forgetbench.UserError\n"
        "print(*sorted({'torch', 'pandas', 'numpy', 'hydra', 'omegaconf', 'transformers', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["forgetbench", ""]


def test_every_public_name_is_there_and_documented() -> None:
    assert set(dir(forgetbench)) == set(forgetbench.__all__)
    for name in forgetbench.__all__:
        assert getattr(forgetbench, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'finetune_all'"):
        _ = forgetbench.finetune_all  # type: ignore[attr-defined]
