"""`show`, `compare` and `power` on answered runs: addresses, output for people and programs, refusals."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from forgetbench.cli import app
from forgetbench.commands import compare as compare_module
from forgetbench.commands import power as power_module
from forgetbench.commands import show as show_module
from forgetbench.commands import sweep
from forgetbench.terminal import plain
from tests.support.answered import FORGETS, KEEPS, answered_run


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("readout") / "outputs"
    for seed in (0, 1):
        answered_run(outputs, f"grid/low--seed-{seed}", KEEPS, "recipe.lr=1e-5", seed=seed)
        answered_run(outputs, f"grid/high--seed-{seed}", FORGETS, "recipe.lr=1e-3", seed=seed)
    return outputs


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 2, done.output
    return done.output


def rows(output: str, level: str) -> pd.DataFrame:
    frame = pd.read_csv(StringIO(output), sep="\t")
    return frame[frame["level"] == level].set_index("name")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    screen = StringIO()
    console = Console(file=screen, width=80, force_terminal=True, color_system=None, highlight=False)
    for module in (show_module, compare_module, power_module, plain):
        monkeypatch.setattr(module, "console", console)
    return screen


def test_a_pipe_gets_rows_and_a_program_json(outputs: Path) -> None:
    frame = pd.read_csv(StringIO(call("show", str(outputs / "grid"))), sep="\t")
    assert set(frame["run"]) == {f"{recipe}--seed-{seed}" for recipe in ("low", "high") for seed in (0, 1)}
    objects = json.loads(call("show", str(outputs / "grid"), "--json"))
    assert len(objects) == len(frame)
    assert objects[0]["delta"] == frame["delta"][0]


@pytest.mark.parametrize(
    "arguments", [("show", "grid"), ("show", "grid/low--seed-0"), ("power", "grid"), ("compare", "grid/high--seed-0")]
)
def test_tables_fit_a_terminal_of_80_columns(outputs: Path, terminal: StringIO, arguments: tuple[str, str]) -> None:
    call(arguments[0], str(outputs / arguments[1]))
    lines = terminal.getvalue().splitlines()
    assert len(lines) > 8
    assert max(map(len, lines)) <= 80
    assert "…" not in terminal.getvalue()


def test_a_terminal_is_told_how_far_answers_on_the_target_moved(outputs: Path, terminal: StringIO) -> None:
    call("show", str(outputs / "grid/high--seed-0"))
    drift = pd.read_csv(outputs / "grid/high--seed-0/drift.csv").iloc[-1]
    output = " ".join(terminal.getvalue().split())
    assert f"base -> last: KL {drift['kl_from_base']:.3f} nats (95 % {drift['kl_from_base_ci_low']:.3f} to" in output
    assert f"{100 * drift['flips']:.1f} % of the choices changed" in output


def test_a_sweep_joins_the_drift_of_its_points(outputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "outputs/sweep"
    shutil.copytree(outputs / "grid", folder)
    shutil.copytree(outputs / ".cells", tmp_path / "outputs/.cells")
    sweep.summarise_sweep(folder, sorted(folder.glob("*--*")))
    joined = pd.read_csv(folder / "drift.csv")
    assert set(joined["run"]) == {f"{recipe}--seed-{seed}" for recipe in ("low", "high") for seed in (0, 1)}
    assert joined["step"].dtype == "int64"


def test_one_address_is_compared_with_its_base(outputs: Path) -> None:
    output = call("compare", str(outputs / "grid/high--seed-0"))
    scores = pd.read_csv(outputs / "grid/high--seed-0/scores.csv")
    last = scores[(scores["step"] == 20) & (scores["metric"] == "accuracy")].set_index("dataset")
    by_name = rows(output, "dataset")
    assert by_name["difference"].to_dict() == pytest.approx(last["delta"].to_dict())
    assert by_name["p_value"].to_dict() == pytest.approx(last["p_value"].to_dict())
    matrix = pd.read_csv(outputs / "grid/high--seed-0/matrix.csv").query("step == 20").set_index("quadrant")
    assert rows(output, "quadrant")["stderr"].to_dict() == pytest.approx(matrix["delta_stderr"].to_dict())


def test_checkpoints_are_named_by_their_folder_and_the_base_by_its_word(outputs: Path) -> None:
    run = outputs / "grid/high--seed-0"
    half = rows(call("compare", f"{run}/checkpoints/base", f"{run}/checkpoints/step_000010"), "dataset")
    rest = rows(call("compare", f"{run}/checkpoints/step_000010", str(run)), "dataset")
    whole = rows(call("compare", str(run)), "dataset")
    assert (half["difference"] + rest["difference"]).to_dict() == pytest.approx(whole["difference"].to_dict())
    message = refused("compare", f"{run}/checkpoints/step_000011")
    assert "no scores of step_000011" in message
    assert "step_000010" in message


def test_seeds_are_named_with_a_star_and_paired_by_seed(outputs: Path) -> None:
    output = call("compare", str(outputs / "grid/high--*"), str(outputs / "grid/low--*"))
    by_name = rows(output, "quadrant")
    assert set(by_name["n_seeds"]) == {2}
    assert (by_name["seed_sd"] >= 0).all()
    assert by_name.loc["ood_text-id_image", "ci_low"] > 0
    assert by_name.loc["ood_text-id_image", "p_holm"] > 0.05  # over four quadrants
    assert by_name.loc["ood_text-id_image", "verdict"] == "unclear"
    assert "several recipes (high, low)" in refused("compare", str(outputs / "grid/*--seed-0"))
    assert "is a sweep" in refused("compare", str(outputs / "grid"))
    assert "matches no scored run" in refused("compare", str(outputs / "grid/none*"))


def test_the_margin_decides_on_equivalence(outputs: Path) -> None:
    pair = (str(outputs / "grid/low--seed-0"), str(outputs / "grid/low--seed-0"))
    strict = rows(call("compare", *pair, "--margin", "2"), "dataset")
    loose = rows(call("compare", *pair, "--margin", "20"), "dataset")
    # Nothing changed in 40 items, which leaves room for a change of 2 points but not for one of 20.
    assert set(strict["verdict"]) == {"unclear"}
    assert set(loose["verdict"]) == {"equivalent"}
    assert "--margin 0" in refused("compare", *pair, "--margin", "0")
    assert "--decoding sample" in refused("compare", *pair, "--decoding", "sample")


def test_power_reads_the_run_of_median_error(outputs: Path) -> None:
    frame = pd.read_csv(StringIO(call("power", str(outputs / "grid"), "--points", "5", "--points", "50")), sep="\t")
    assert set(frame["difference"]) == {0.05, 0.5}
    naming = frame[frame["dataset"] == "fashion_naming"].set_index("difference")
    assert naming.loc[0.05, "items_needed"] > 40
    assert naming.loc[0.5, "enough"]
    assert "between 0 and 100" in refused("power", str(outputs / "grid"), "--points", "0")


def test_what_has_no_scores_is_refused_with_the_next_step(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text((outputs / "grid/low--seed-0/run.json").read_text("utf-8"), "utf-8")
    for command in ("show", "compare", "power"):
        assert "forgetbench eval-matrix run=" in refused(command, str(tmp_path))


def test_a_sweep_with_seeds_writes_both_errors(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = sorted(path.parent for path in (outputs / "grid").glob("*/run.json"))
    sweep.summarise_sweep(outputs / "grid", points)
    seeds = pd.read_csv(outputs / "grid/seeds.csv")
    assert seeds.groupby("recipe")["quadrant"].nunique().to_dict() == {"high": 4, "low": 4}
    assert set(seeds["n_seeds"]) == {2}
    matrix = pd.read_csv(outputs / "grid/matrix.csv").query("step == 20")
    deltas = matrix[matrix["run"].str.startswith("high")].groupby("quadrant")["delta"]
    high = seeds[seeds["recipe"] == "high"].set_index("quadrant")
    assert high["delta"].to_dict() == pytest.approx(deltas.mean().to_dict())
    assert high["seed_sd"].to_dict() == pytest.approx(deltas.std().to_dict())
    seed_0 = [path for path in points if path.name.endswith("seed-0")]
    sweep.summarise_sweep(outputs / "alone", seed_0)
    assert not (outputs / "alone/seeds.csv").exists()


def test_what_a_comparison_leaves_out_is_said_to_people_and_to_programs(
    outputs: Path, terminal: StringIO, tmp_path: Path
) -> None:
    answered_run(tmp_path, "few", {"fashion_naming": 0.6, "fashion_knowledge": 0.9}, limit=20)
    left_out = ["digits_naming (choice)", "On the items that both were asked, 20 items, of 40 and 20"]
    pair = ("compare", str(outputs / "grid/low--seed-0"), str(tmp_path / "few"))
    call(*pair)
    assert all(line in " ".join(terminal.getvalue().split()) for line in left_out)
    done = CliRunner().invoke(app, [*pair, "--json"])
    assert {row["n"] for row in json.loads(done.stdout) if row["level"] == "dataset"} == {20}
    assert all(line in done.stderr for line in left_out)
    same = CliRunner().invoke(app, ["compare", str(outputs / "grid/low--seed-0"), "--json"])
    assert same.stderr == ""


def test_a_sweep_replaces_all_of_its_tables(outputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "outputs/sweep"
    shutil.copytree(outputs / "grid/low--seed-0", folder / "point")
    shutil.copytree(outputs / ".cells", tmp_path / "outputs/.cells")
    stale = ("representation.csv", "drift.csv", "seeds.csv", "strategies.csv")
    (folder / "point/drift.csv").unlink()
    for name in (*stale, "mine.csv"):
        (folder / name).write_text("run\n")
    sweep.summarise_sweep(folder, [folder / "point"])
    assert {path.name for path in folder.glob("*.csv")} == {"scores.csv", "matrix.csv", "summary.csv", "mine.csv"}
