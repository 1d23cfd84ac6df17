"""Runs read back: renamed, linked, damaged or of another shape."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.core.errors import UserError
from forgetbench.reporting.gather import gather
from forgetbench.runs.recipes import named, stored_runs
from forgetbench.runs.stored import read_table
from tests.support.answered import KEEPS, answered_run

FEW = {name: KEEPS[name] for name in ("fashion_naming", "fashion_knowledge")}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answered_run(tmp_path_factory.mktemp("stored") / "outputs", "run", FEW)


@pytest.fixture
def run(scored: Path, tmp_path: Path) -> Path:
    shutil.copytree(scored.parent, tmp_path / "outputs")
    return tmp_path / "outputs/run"


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 2, (done.output, done.exception)
    return done.output


def test_a_renamed_or_linked_folder_has_its_present_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed, link = run.parent / "renamed", run.parent / "link"
    run.rename(renamed)
    link.symlink_to(renamed)
    monkeypatch.chdir(renamed)
    for path in (renamed, link, Path()):
        contents = gather(path, 5)
        assert {*contents.tables.scores["run"], *contents.tables.matrix["run"], contents.runs[0].name} == {"renamed"}
        assert contents.title == "renamed"


def test_in_one_process_what_changed_on_disk_since_the_last_look_is_read_anew(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [*(run.parent / ".cells").glob("*.parquet")]
    aside = run.parent / "aside"
    aside.mkdir()
    for cell in cells:
        cell.rename(aside / cell.name)
    gather(run, 5)
    assert "Without the answers of run" in capsys.readouterr().out
    for cell in cells:
        (aside / cell.name).rename(cell)
    assert "seed: 0" in gather(run, 5).runs[0].config
    assert "Without the answers" not in capsys.readouterr().out  # cells that were missing are asked for again
    content = json.loads((run / "run.json").read_text("utf-8"))
    content["config"]["seed"] = 7
    (run / "run.json").write_text(json.dumps(content), "utf-8")
    assert "seed: 7" in gather(run, 5).runs[0].config


def test_runs_that_only_differ_in_the_seed_share_a_recipe(run: Path) -> None:
    def copy(name: str, **changes: Any) -> Path:
        folder = run.parent / name
        shutil.copytree(run, folder)
        content = json.loads((folder / "run.json").read_text("utf-8"))
        content["config"] |= changes
        (folder / "run.json").write_text(json.dumps(content), "utf-8")
        return folder

    folders = [copy("a--seed-0", seed=0), copy("a--seed-1", seed=1), copy("b-seed2", seed=2)]
    assert [one.recipe for one in named(folders)] == ["a", "a", "b"]
    other = copy(
        "a--seed-2", seed=2, model={**json.loads((run / "run.json").read_text())["config"]["model"], "revision": "x"}
    )
    assert [one.recipe for one in named([*folders[:2], other])] == ["a--seed-0", "a--seed-1", "a--seed-2"]
    twice = copy("a-seed0", seed=0)
    assert [one.recipe for one in named([folders[0], twice])] == ["a--seed-0", "a-seed0"]


def test_seeds_share_a_recipe_whichever_items_a_stage_replayed(run: Path) -> None:
    folders = []
    for seed in (0, 1):
        folder = run.parent / f"a--seed-{seed}"
        shutil.copytree(run, folder)
        content = json.loads((folder / "run.json").read_text("utf-8"))
        content["config"]["seed"], content["data_digests"] = seed, [f"items drawn with seed {seed}"]
        content["config"]["data"]["stages"][0]["recipe"] = {"replay": {"samples": 5}}
        (folder / "run.json").write_text(json.dumps(content), "utf-8")
        folders.append(folder)
    assert [one.recipe for one in named(folders)] == ["a", "a"]


def cut(text: str) -> str:
    lines = text.splitlines()
    return "\n".join([*lines[:-1], lines[-1].split(",")[0]])


@pytest.mark.parametrize("file", ["scores.csv", "matrix.csv"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "is cut short"),
        (lambda _: "a,b\n1,2\n", "has no column"),
        (lambda _: '"', "cannot be read"),
        (lambda text: text[: len(text) // 2] + "\0" * 1000, "NUL bytes"),
    ],
    ids=["half a row", "another table", "no table", "half of zeros"],
)
@pytest.mark.parametrize("command", ["report", "show"])
def test_a_damaged_table_is_named_with_the_way_to_mend_it(
    run: Path, file: str, damage: Callable[[str], str], said: str, command: str
) -> None:
    (run / file).write_text(damage((run / file).read_text("utf-8")), "utf-8")
    message = refused(command, str(run))
    assert str(run / file) in message
    assert said in message
    assert "eval-matrix" in message


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("step", "last", "'last' as `step`, where a whole number is expected"),
        ("step", "1.5", "1.5 as `step`, where a whole number is expected"),
        ("step", "9" * 30, "as `step`, where a whole number is expected"),
        ("value", "good", "'good' as `value`, where a number is expected"),
        ("value", "inf", "inf as `value`, where a number is expected"),
        ("text_axis", "sideways", "'sideways' as `text_axis`, where id or ood or partial is expected"),
        ("decoding", "", "is cut short"),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_line_and_column(
    run: Path, column: str, value: str, said: str
) -> None:
    scores = pd.read_csv(run / "scores.csv", dtype=str, keep_default_na=False)
    scores.loc[0, column] = value
    scores.to_csv(run / "scores.csv", index=False)
    with pytest.raises(UserError, match=rf"scores\.csv .*line 2 .*{said}"):
        read_table(run / "scores.csv")


def test_half_a_line_of_a_growing_log_is_left_out(run: Path) -> None:
    log = run / "train.csv"
    whole = read_table(log)
    text = log.read_text("utf-8")
    for half in ("21,1", "21,1,0.5,1e-"):
        log.write_text(text + half, "utf-8")
        pd.testing.assert_frame_equal(read_table(log), whole)
    log.write_text("", "utf-8")
    assert read_table(log).empty


@pytest.mark.parametrize("content", ["<html></html>", "step,sta", "\0" * 64])
def test_a_log_that_is_no_table_is_refused(run: Path, content: str) -> None:
    (run / "train.csv").write_text(content, "utf-8")
    with pytest.raises(UserError, match=r"train\.csv"):
        read_table(run / "train.csv")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", None), ("config", "text"), ("config.recipe", None), ("config.seed", "one"),
        ("config.method", "ewc"), ("config.data", []), ("audit", None), ("audit", {}), ("environment", "here"),
        ("method_class", "Unknown"), ("data_digests", None), ("labels", ...), ("labels", None), ("labels", []),
        ("config.method", ...), ("config.data.stages", []), ("audit.parts", None),
        ("config.data.stages", [{"set": "fashion_naming", "recipe": {"nonsense": 1}}]),
        ("config.recipe.mix.data", [3]), ("config.recipe.mix.data", [{"set": "general", "weight": "much"}]),
    ],
)  # fmt: skip
def test_a_run_file_of_another_shape_is_refused(run: Path, key: str, value: Any) -> None:
    content = json.loads((run / "run.json").read_text("utf-8"))
    *above, last = key.split(".")
    part = content
    for name in above:
        part = part[name]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    (run / "run.json").write_text(json.dumps(content), "utf-8")
    message = refused("report", str(run))
    assert "is not a run of this version" in message
    assert "__init__" not in message


def test_what_an_older_version_did_not_write_has_its_default(run: Path) -> None:
    content = json.loads((run / "run.json").read_text("utf-8"))
    del content["config"]["recipe"]["replay"]
    (run / "run.json").write_text(json.dumps(content), "utf-8")
    (found,) = stored_runs(run)
    assert found.run is not None
    assert found.run.settings["recipe"]["replay"] == {"samples": 0, "earlier": []}


def test_a_damaged_cell_leaves_out_its_run_alone_and_is_said(run: Path) -> None:
    scores = pd.read_csv(run / "scores.csv")
    cell = run.parent / f".cells/{scores.loc[scores['step'] == 20, 'cell'].iloc[0]}.parquet"
    shutil.copytree(run, run.parent / "grid/a")
    answered_run(run.parent / "grid", "b", FEW)
    for other in (run.parent / "grid/.cells").iterdir():
        shutil.move(other, run.parent / ".cells" / other.name)
    (run.parent / "grid/.cells").rmdir()
    cell.write_bytes(cell.read_bytes()[:-50])
    contents = gather(run.parent / "grid", 100)
    assert {flip.run for flip in contents.flips} == {"b"}
    (note,) = contents.notes
    assert note.startswith("Without the answers of a")
    alone = gather(run, 100)
    assert (alone.n_flips, alone.recommendation) == (None, None)
    (found,) = stored_runs(run)
    with pytest.raises(UserError, match="missing or damaged"):
        found.views(found.last(""))


def test_a_base_alone_has_not_changed(run: Path) -> None:
    for name in ("scores.csv", "matrix.csv"):
        frame = pd.read_csv(run / name)
        frame[frame["step"] == 0].to_csv(run / name, index=False)
    assert "only the base" in refused("compare", str(run))
    assert gather(run, 10).n_flips is None


def test_a_folder_with_a_pattern_in_its_name_is_a_folder(run: Path) -> None:
    odd = run.rename(run.parent / "run [1]*")
    assert CliRunner().invoke(app, ["compare", str(odd)]).exit_code == 0


def test_a_table_of_endless_columns_is_refused_before_it_is_read(run: Path) -> None:
    (run / "scores.csv").write_text(",".join(f"c{number}" for number in range(100_000)) + "\n")
    with pytest.raises(UserError, match=r"scores\.csv cannot be read as a table \(its first line is longer"):
        read_table(run / "scores.csv")
