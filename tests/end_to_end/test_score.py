"""`forgetbench score`: the tables again without a model, and the tables of predictions made elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.compose import compose
from forgetbench.config import FinetuneConfig, ScoreConfig
from forgetbench.core.errors import UserError
from forgetbench.core.paths import EMBEDDED, shipped
from forgetbench.core.records import Decoding, Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.sources import load_samples
from forgetbench.reporting.gather import gather
from forgetbench.runs.run import Run
from forgetbench.runs.stored import outputs_of

RUN = ["model=tiny_random", "threads=1", "recipe=full_high_lr", "recipe.steps=2", "recipe.batch_size=2", "name=run"]
MATRIX = [
    "matrix.datasets=[fashion_naming,fashion_knowledge,emoji_open]",
    "matrix.limit=8",
    "matrix.representation.enabled=false",
]


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call("finetune", *RUN, "recipe.checkpoints.log_spaced=1")
        call("eval-matrix", "run=outputs/run", "threads=1", *MATRIX)
    return folder


def test_tables_are_made_again_without_a_model_byte_for_byte(scored: Path) -> None:
    tables = [scored / "outputs/run" / name for name in ("scores.csv", "matrix.csv")]
    before = [table.read_bytes() for table in tables]
    for table in tables:
        table.unlink()
    program = (
        "import sys; from forgetbench.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "assert not {'torch', 'transformers'} & sys.modules.keys(), 'a model library was loaded'"
    )
    for command in (["score"], ["eval-matrix", "threads=1"]):
        arguments = [command[0], "run=outputs/run", *command[1:], *MATRIX]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], cwd=scored, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert [table.read_bytes() for table in tables] == before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.fixture
def mine(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the scored run, in a project of its own."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scored / "outputs", tmp_path / "outputs")
    return tmp_path / "outputs/run"


def test_a_run_is_scored_again_as_it_was_last_from_any_folder_and_under_another_name(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(mine)
    call("score", "run=outputs/run")
    assert contents(mine) == before
    mine.parent.rename(tmp_path / "results")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    call("score", "run=../results/run")
    assert contents(tmp_path / "results/run") == before
    assert not (tmp_path / "elsewhere/outputs").exists()


def test_arguments_come_on_top_of_what_a_run_remembers(mine: Path) -> None:
    shown = call("score", "run=outputs/run", "matrix.decodings=[greedy]")
    assert "fashion_naming, greedy: replies were cut off" in shown  # the model's weights are random
    scores = pd.read_csv(mine / "scores.csv")
    assert set(scores["decoding"]) == {"greedy"}
    assert set(scores["dataset"]) == {"fashion_naming", "fashion_knowledge", "emoji_open"}
    assert compose(ScoreConfig, ["run=outputs/run"]).matrix.decodings == [Decoding.greedy]
    whole = compose(ScoreConfig, ["run=outputs/run", "matrix=quick"]).matrix
    assert (whole.limit, whole.decodings) == (150, [Decoding.choice])
    (mine / "scored.json").write_text((mine / "scored.json").read_text().replace('"limit": 8', '"limit": 0'))
    with pytest.raises(UserError, match=r"matrix\.limit \(scored\.json\)"):
        compose(ScoreConfig, ["run=outputs/run"])


def test_missing_cells_are_named_and_nothing_changes_unless_what_is_there_is_asked_for(mine: Path) -> None:
    before, wanted = contents(mine), "matrix.datasets=[fashion_naming,digits_naming]"
    result = CliRunner().invoke(app, ["score", "run=outputs/run", wanted])
    assert result.exit_code == 2
    assert "4 of 8 cells are not in outputs, so its tables stay as they are" in result.stderr
    assert "  step_000002, digits_naming, greedy\n" in result.stderr
    assert "`forgetbench eval-matrix run=outputs/run` with the same matrix makes them" in result.stderr
    assert contents(mine) == before
    shown = call("score", "run=outputs/run", wanted, "--partial")
    assert "without 4 of 8 cells" in shown
    assert set(pd.read_csv(mine / "scores.csv")["dataset"]) == {"fashion_naming"}
    assert compose(ScoreConfig, ["run=outputs/run"]).matrix.datasets == ["fashion_naming", "digits_naming"]
    for arguments in (["run=outputs/run"], ["run=outputs/run", "matrix.datasets=[digits_naming]", "partial=true"]):
        assert CliRunner().invoke(app, ["score", *arguments]).exit_code == 2


def test_rows_of_a_checkpoint_that_is_gone_stay_unless_they_may_go(mine: Path) -> None:
    before = contents(mine)
    shutil.rmtree(mine / "checkpoints/step_000002")
    for command in ("score", "eval-matrix"):
        result = CliRunner().invoke(app, [command, "run=outputs/run"])
        assert result.exit_code == 2
        assert "the tables have rows of step_000002, and the run has no such checkpoint any more" in result.stderr
        assert "--partial" in result.stderr
    assert {name: before[name] for name in contents(mine)} == contents(mine)
    assert "these rows are left out" in call("score", "run=outputs/run", "--partial")
    assert "step_000002" not in set(pd.read_csv(mine / "scores.csv")["checkpoint"])


def test_many_missing_cells_are_counted_after_ten(mine: Path) -> None:
    result = CliRunner().invoke(app, ["score", "run=outputs/run", "matrix.limit=9"])
    assert "10 of 10 cells are not in outputs" in result.stderr
    assert "more" not in result.stderr
    result = CliRunner().invoke(app, ["score", "run=outputs/run", "matrix=quick"])
    assert "  and 12 more\n" in result.stderr
    assert result.stderr.count("\n  ") == 11


def test_the_last_matrix_can_be_asked_for_by_name(mine: Path) -> None:
    before = contents(mine)
    cell = next((mine.parent / ".cells").glob("*.parquet"))
    cell.unlink()
    result = CliRunner().invoke(app, ["score", "run=outputs/run"])
    assert "`forgetbench eval-matrix run=outputs/run matrix=last` makes them" in result.stderr
    call("eval-matrix", "run=outputs/run", "matrix=last", "threads=1")
    assert cell.is_file()
    assert {**contents(mine), "scores.csv": b""} == {**before, "scores.csv": b""}  # less the seconds of one cell
    (mine / "scored.json").unlink()
    for arguments, message in ((["run=outputs/run"], "has no scored.json"), ([], "give the run, too")):
        result = CliRunner().invoke(app, ["eval-matrix", "matrix=last", *arguments])
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_run_that_does_not_remember_is_scored_by_the_command_alone_and_says_so(mine: Path) -> None:
    before = contents(mine)
    (mine / "scored.json").unlink()
    shown = call("score", "run=outputs/run", *MATRIX)
    assert "does not tell how it was scored" in shown
    assert "3 datasets by choice and greedy, 8 items each, from the cells in outputs" in shown
    assert contents(mine) == before


def test_what_a_run_remembers_is_taken_word_for_word_and_damage_is_refused(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "quick")
    path = mine / "scored.json"
    known = path.read_text()
    for told in ("${oc.env:SECRET}", "${oc.decode:${oc.env:SECRET}}", "\\\\${oc.env:SECRET}"):
        path.write_text(known.replace('"<think>"', f'"{told}"'))
        assert compose(ScoreConfig, ["run=outputs/run"]).matrix.reasoning.marks[0][0] == json.loads(f'"{told}"')
    damaged = ("{", "[]", "{}", known.replace('"limit": 8', '"limit": "many"'), known.replace("top_p", "top_q"))
    for text in damaged:
        path.write_text(text)
        for arguments in (["score", "run=outputs/run"], ["report", "outputs/run"], ["compare", "outputs/run"]):
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 2, (text, arguments)
            assert "scored.json does not tell how the run was scored" in result.stderr


def test_cells_are_looked_for_where_the_run_was_scored_into(mine: Path, tmp_path: Path) -> None:
    shutil.copytree(mine.parent, tmp_path / "whole/team", ignore=lambda *_: [".cells"])
    shutil.move(mine.parent / ".cells", tmp_path / "whole/.cells")
    run = tmp_path / "whole/team/run"
    call("score", f"run={run}", f"outputs={tmp_path}/whole")
    before = contents(run)
    (tmp_path / "whole/team/.cells").mkdir()  # other runs' cells, nearer
    call("score", f"run={run}")
    assert contents(run) == before
    assert json.loads(call("compare", str(run), "--json"))
    result = CliRunner().invoke(app, ["score", f"run={run}", f"outputs={tmp_path}/whole/team"])
    assert result.exit_code == 2
    assert "drop outputs" in result.stderr


def test_results_are_written_in_lm_evals_layout(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scored)
    call("score", "run=outputs/run", "lm_eval=true", *MATRIX)
    scores = pd.read_csv("outputs/run/scores.csv")
    found = json.loads(Path("outputs/run/lm_eval/step_000002/results.json").read_text())
    row = scores[
        (scores["step"] == 2)
        & (scores["dataset"] == "fashion_naming")
        & (scores["metric"] == "accuracy")
        & (scores["decoding"] == "choice")
    ].iloc[0]
    assert found["results"]["fashion_naming"]["acc,none"] == row["value"]
    assert found["results"]["fashion_naming"]["acc_stderr,none"] == row["stderr"]
    assert found["n-samples"]["fashion_naming"]["effective"] == 8


def samples(name: str) -> list[Sample]:
    manifest = Catalogue().load(name)
    return load_samples(manifest, manifest.eval_split)


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three layouts; the base is always right, step 100 picks the class name or answers A."""
    monkeypatch.chdir(tmp_path)
    naming, knowledge, opened = samples("fashion_naming"), samples("fashion_knowledge"), samples("emoji_open")
    base, last = tmp_path / "theirs/base", tmp_path / "theirs/checkpoint-100"
    write(base / "fashion_naming.jsonl", [{"id": one.id, "text": f"({one.answer})"} for one in naming])
    write(last / "fashion_naming.jsonl", [{"id": one.id, "text": "The answer is A."} for one in naming])
    for folder, answer in ((base, None), (last, "I see a shirt")):
        write(
            folder / "fashion_knowledge/generated_predictions.jsonl",
            [{"prompt": one.prompt, "predict": answer or one.answer, "label": one.answer} for one in knowledge],
        )
        rows = [
            {
                "doc_id": place,
                "target": one.answer,
                "resps": [[answer or one.answer]],
                "filtered_resps": [answer or one.answer],
            }
            for place, one in enumerate(opened)
        ]
        write(folder / "samples_emoji_open_2026-11-22T05-00-00.000001.jsonl", rows)
    return tmp_path


def test_predictions_made_elsewhere_get_the_matrix(elsewhere: Path) -> None:
    shown = call("score", "predictions=theirs", "name=theirs", "model_name=their-7b", *MATRIX[:1])
    assert "6 cells" in shown
    scores = pd.read_csv("outputs/theirs/scores.csv")
    rows = scores[scores["metric"] == "accuracy"].set_index(["dataset", "step"])
    assert set(scores["model"]) == {"their-7b"}
    assert set(scores["decoding"]) == {"greedy"}
    assert set(rows["value"].xs(0, level="step")) == {1}
    naming = samples("fashion_naming")
    share = sum(one.answer == "A" for one in naming) / len(naming)
    assert rows.loc[("fashion_naming", 100), "value"] == pytest.approx(share)
    assert rows.loc[("fashion_naming", 100), "delta"] == pytest.approx(share - 1)
    assert rows.loc[("fashion_naming", 100), "quadrant"] == "id_text-id_image"
    assert rows.loc[("fashion_knowledge", 100), "value"] == 0
    # A garment's name where a fact was asked: a label of the target, and no option of the item.
    knowledge = samples("fashion_knowledge")
    offered = sum(any("shirt" in option.split() for option in one.options) for one in knowledge) / len(knowledge)
    assert rows.loc[("fashion_knowledge", 100), "label_bias"] == pytest.approx(1 - offered)
    assert rows.loc[("fashion_knowledge", 0), "label_bias"] == 0
    assert scores["seconds"].isna().all()
    assert pd.read_csv("outputs/theirs/matrix.csv")["delta"].notna().any()


def test_a_limit_takes_the_same_items_from_predictions_made_elsewhere(elsewhere: Path) -> None:
    call("score", "predictions=theirs", "name=theirs", *MATRIX)
    scores = pd.read_csv("outputs/theirs/scores.csv")
    assert set(scores.loc[scores["metric"] == "accuracy", "n"]) == {8}
    assert set(scores.loc[(scores["metric"] == "accuracy") & (scores["step"] == 0), "value"]) == {1.0}


def test_what_is_missing_is_named_and_stays_out(elsewhere: Path) -> None:
    shown = call("score", "predictions=theirs", "name=theirs", "matrix.datasets=[fashion_naming,digits_naming]")
    assert "theirs/base: nothing for 'digits_naming'; it stays out of the tables." in shown
    assert set(pd.read_csv("outputs/theirs/scores.csv")["dataset"]) == {"fashion_naming"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give run=outputs/<name>, or predictions=<folder>"),
        (["predictions=nowhere"], "there is no folder 'nowhere'"),
        (["run=nowhere"], "there is no folder 'nowhere'"),
        (["predictions=theirs", "name=../up"], "must be one folder's name"),
        (["predictions=theirs", "matrix.datasets=[digits_naming]"], "No predictions to score"),
        (["predictions=theirs/base"], "names no step"),
        (["predictions=theirs", "matrix.class_probe=[fluent_use]"], "list it under matrix.datasets too"),
    ],
)
def test_bad_input_is_refused(elsewhere: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["score", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (elsewhere / "outputs/predictions").exists()


def test_probes_and_lm_evals_layout_of_predictions_made_elsewhere(elsewhere: Path) -> None:
    manifest = Catalogue().load("fashion_knowledge")
    probe = load_samples(manifest, manifest.eval_split, distract=True)
    rows = [{"id": one.id, "text": one.class_name} for one in probe]
    write(elsewhere / "theirs/checkpoint-100/fashion_knowledge+class_name.jsonl", rows)
    call(
        "score", "predictions=theirs", "name=theirs", "lm_eval=true", "matrix.class_probe=[fashion_knowledge]", *MATRIX
    )
    scores = pd.read_csv("outputs/theirs/scores.csv").set_index(["dataset", "step", "metric"])
    assert scores.loc[("fashion_knowledge+class_name", 100, "mischoice"), "value"] == 1
    assert scores.loc[("fashion_knowledge+class_name", 100, "class_name_effect"), "value"] == 0
    found = json.loads(Path("outputs/theirs/lm_eval/step_000100/results.json").read_text())
    assert found["results"]["fashion_naming"]["exact_match,greedy"] < 1


def test_what_is_there_is_scored_on_the_same_items_of_every_checkpoint_and_said(elsewhere: Path) -> None:
    naming = samples("fashion_naming")
    half = [{"question_id": one.id, "text": f"<think>A or B?</think>{one.answer}"} for one in naming[:100]]
    unknown = [{"question_id": f"other {n}", "text": "A"} for n in range(3)]
    write(elsewhere / "theirs/checkpoint-100/fashion_naming.jsonl", [*unknown, *reversed(half)])
    arguments = ["score", "predictions=theirs", "name=theirs", "matrix.datasets=[fashion_naming]"]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "400 of 500 items have no prediction" in refused.stderr
    shown = call(*arguments, "partial=true")
    assert "3 of 103 lines are of no item of the dataset" in shown
    assert "fashion_naming: scored on 100 of 500 items" in shown
    rows = pd.read_csv("outputs/theirs/scores.csv").query("metric == 'accuracy'").set_index("step")
    assert rows["n"].tolist() == [100, 100]
    assert rows["value"].tolist() == [1, 1]
    assert rows["cut_off"].tolist() == [0, 0]
    assert CliRunner().invoke(app, ["score", "run=theirs", "partial=true"]).exit_code == 2


def test_ids_that_a_datasets_rows_have_beside_its_items_are_matched(elsewhere: Path) -> None:
    Path("data_manifests").mkdir()
    rows = [{"question_id": f"q{n}", "question": "How many?", "answer": str(n)} for n in range(4)]
    write(elsewhere / "data_manifests/items.jsonl", rows)
    Path("data_manifests/counts.yaml").write_text(
        "source: {}\nsplits: {test: {files: [items.jsonl]}}\nimage_domains: [text]\ntext_tasks: [counts]\n"
    )
    answers = [{"question_id": row["question_id"], "text": row["answer"]} for row in rows]
    write(elsewhere / "theirs/base/counts.jsonl", [answers[2], answers[0], answers[3], answers[1]])
    call("score", "predictions=theirs", "name=theirs", "matrix.datasets=[counts]")
    assert pd.read_csv("outputs/theirs/scores.csv")["value"].tolist() == [1]


def test_whoever_reads_scored_predictions_finds_their_manifests_from_any_folder(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("own").mkdir()
    text = (shipped("data_manifests") / "fashion_naming.yaml").read_text("utf-8")
    (elsewhere / "own/mine.yaml").write_text(text)
    for step in ("base", "checkpoint-100"):
        shutil.copy(elsewhere / f"theirs/{step}/fashion_naming.jsonl", elsewhere / f"theirs/{step}/mine.jsonl")
    wanted = ["matrix.datasets=[mine]", "matrix.limit=20", "manifests=[own]"]
    call("score", "predictions=theirs", "name=theirs", *wanted)
    (elsewhere / "there").mkdir()
    monkeypatch.chdir(elsewhere / "there")
    found = gather(Path("../outputs/theirs"), 5)
    assert len(found.flips) == 5
    assert found.pictures
    shutil.move(elsewhere / "own", elsewhere / "other")
    assert not gather(Path("../outputs/theirs"), 5).pictures
    (elsewhere / "moved").mkdir()
    shutil.move(elsewhere / "other", elsewhere / "moved/own")
    shutil.move(elsewhere / "outputs", elsewhere / "moved/outputs")
    assert gather(Path("../moved/outputs/theirs"), 5).pictures


def test_a_run_is_scored_from_any_folder_with_the_manifests_that_it_was_trained_with(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((mine / "run.json").read_text())
    config["config"] |= {"manifests": ["own"], "data": {"stages": [{"set": "mine"}]}}
    (mine / "run.json").write_text(json.dumps(config))
    (tmp_path / "own").mkdir()
    text = (shipped("data_manifests") / "fashion_naming.yaml").read_text("utf-8")
    (tmp_path / "own/mine.yaml").write_text(text)
    (mine / "scored.json").unlink()
    (tmp_path / "there/data_manifests").mkdir(parents=True)
    (tmp_path / "there/data_manifests/here.yaml").write_text(text)
    monkeypatch.chdir(tmp_path / "there")
    wanted = ["matrix.datasets=[mine,here]", *MATRIX[1:], "matrix.decodings=[choice]"]
    call("eval-matrix", "run=../outputs/run", "threads=1", *wanted)
    before = contents(mine)
    assert set(pd.read_csv(mine / "scores.csv")["dataset"]) == {"mine", "here"}
    (tmp_path / "nowhere").mkdir()
    monkeypatch.chdir(tmp_path / "nowhere")
    call("score", "run=../outputs/run")
    assert contents(mine) == before
    assert list(Path().iterdir()) == []


def test_tables_take_the_place_of_all_that_stood_beside_earlier_ones(mine: Path) -> None:
    (mine / "lm_eval/step_000002").mkdir(parents=True, exist_ok=True)
    for name in ("representation.csv", "continual.csv", "beyond_context.csv", "lm_eval/step_000002/results.json"):
        (mine / name).write_text("step\n")
    (mine / "lm_eval/notes.txt").write_text("mine")
    call("score", "run=outputs/run")
    made = {"scores.csv", "matrix.csv", "summary.csv", "drift.csv", "train.csv"}
    assert {path.name for path in mine.glob("*.csv")} == made
    assert [path.name for path in (mine / "lm_eval").rglob("*")] == ["notes.txt"]
    call("eval-matrix", "run=outputs/run", "threads=1", *MATRIX[:2], "matrix.representation.images=2")
    measured = (mine / "representation.csv").read_bytes()
    call("score", "run=outputs/run")
    assert (mine / "representation.csv").read_bytes() == measured
    shutil.rmtree(mine.parent / ".representation")
    call("score", "run=outputs/run")  # the same matrix: what was measured still fits
    assert (mine / "representation.csv").read_bytes() == measured
    call("score", "run=outputs/run", "matrix.decodings=[choice]")
    assert not (mine / "representation.csv").exists()


def test_predictions_never_take_the_place_of_a_runs_tables(elsewhere: Path) -> None:
    (elsewhere / "outputs/mine").mkdir(parents=True)
    (elsewhere / "outputs/mine/run.json").write_text("{}")
    result = CliRunner().invoke(app, ["score", "predictions=theirs", "name=mine", *MATRIX])
    assert result.exit_code == 2
    assert "holds a run of its own" in result.stderr


def test_a_caption_set_keeps_its_own_scale_in_every_table(elsewhere: Path) -> None:
    Path("data_manifests").mkdir()
    rows = [
        {"id": f"c{i}", "question": "Describe it.", "answer": [f"a {one} dog runs on the {two} grass"]}
        for i, (one, two) in enumerate([("red", "wet"), ("small", "dry"), ("old", "high"), ("black", "cut")])
    ]
    write(elsewhere / "data_manifests/items.jsonl", rows)
    Path("data_manifests/captions.yaml").write_text(
        "source: {}\nsplits: {test: {files: [items.jsonl]}}\nimage_domains: [text]\ntext_tasks: [captions]\n"
        "metric: cider_d\ncluster_by: [id]\n"
    )
    for step, texts in (("base", ["a cat"] * 4), ("checkpoint-100", [row["answer"][0] for row in rows])):
        answers = [{"id": row["id"], "text": text} for row, text in zip(rows, texts, strict=True)]
        write(elsewhere / "theirs" / step / "captions.jsonl", answers)
    shown = call("score", "predictions=theirs", "name=theirs", "matrix.datasets=[captions,emoji_open]")
    scores = pd.read_csv("outputs/theirs/scores.csv").set_index(["dataset", "step", "metric"])
    assert scores.loc[("captions", 100, "cider_d"), "value"] == pytest.approx(10)
    assert scores.loc[("captions", 0, "cider_d"), "value"] == 0
    assert pd.isna(scores.loc[("captions", 0, "cider_d"), "ci_high"])  # all alike, which says nothing of the next
    assert pd.isna(scores.loc[("captions", 100, "cider_d"), "forgotten"])
    matrix = pd.read_csv("outputs/theirs/matrix.csv")
    assert set(matrix["metric"]) == {"accuracy", "cider_d"}
    assert "greedy cider_d 0.00 -> - -> 10.00" in shown


def test_misaligned_predictions_are_refused(elsewhere: Path) -> None:
    path = elsewhere / "theirs/checkpoint-100/fashion_knowledge/generated_predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[7:], *lines[:7]]))
    result = CliRunner().invoke(app, ["score", "predictions=theirs", *MATRIX[:1]])
    assert result.exit_code == 2
    assert "generated_predictions.jsonl" in result.stderr


def test_a_run_is_scored_from_another_folder_into_the_cells_that_its_readers_look_at(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(scored / "outputs", tmp_path / "theirs/outputs")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = tmp_path / "theirs/outputs/run"
    known = {path.name for path in (run.parent / ".cells").glob("*.parquet")}
    call("score", f"run={run}", *MATRIX)
    assert {path.name for path in (run.parent / ".cells").glob("*.parquet")} == known
    call("eval-matrix", f"run={run}", "threads=1", "matrix.datasets=[digits_naming]", *MATRIX[1:])
    assert len(list((run.parent / ".cells").glob("*.parquet"))) > len(known)
    assert not (tmp_path / "here/outputs/.cells").exists()
    assert json.loads(call("compare", str(run), "--json"))


@pytest.mark.parametrize("command", ["eval-matrix", "score"])
def test_cells_are_not_kept_where_no_reader_of_the_run_looks(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [command, f"run={scored}/outputs/run", "outputs=mine", *MATRIX])
    assert done.exit_code == 2
    assert "outputs=mine" in done.stderr
    assert "drop outputs" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_point_of_a_sweep_has_its_cells_above_the_sweep(tmp_path: Path) -> None:
    config = compose(FinetuneConfig, ["name=grid"])
    audit = {"label": "", "trainable": 0, "total": 0, "parts": {}}
    point = Run(tmp_path / "results/grid/seed-0", config, [], [], "digest", audit, {})
    run = replace(point, folder=tmp_path / "results/grid")
    elsewhere = tmp_path / "outputs"
    assert outputs_of(point, elsewhere) == outputs_of(run, elsewhere) == tmp_path / "results"
    (tmp_path / "results/grid/.cells").mkdir(parents=True)
    assert outputs_of(point, elsewhere) == tmp_path / "results/grid"


def test_bases_of_one_name_have_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for home, scale in (("a", 1.0), ("b", 0.5)):
        shutil.copytree(EMBEDDED / "tiny", tmp_path / home / "ft")
        weights = tmp_path / home / "ft/model.safetensors"
        save_file({name: value * scale for name, value in load_file(weights).items()}, weights, {"format": "pt"})
        call("eval-matrix", "model=local", f"model.path={home}/ft", "threads=1", *MATRIX)
    folders = sorted((tmp_path / "outputs").glob("base-ft-*"))
    assert len(folders) == 2
    first, second = (pd.read_csv(folder / "scores.csv") for folder in folders)
    assert set(first["cell"]).isdisjoint(second["cell"])
    assert {*first["run"], *second["run"]} == {folder.name for folder in folders}
