"""The page on where to train: the rate is validation's, what is published is marked, and what stays open is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from forgetbench.core.records import QUADRANTS
from tools import modules_result

SETS = {
    "fashion_naming": QUADRANTS[0],
    "fashion_naming_validation": QUADRANTS[0],
    "digits_naming": QUADRANTS[1],
    "fashion_shade": QUADRANTS[2],
    "digits_yesno": QUADRANTS[3],
    "fashion_probe": QUADRANTS[2],
}
COMMON = {"variant": None, "step": 120, "metric": "accuracy", "decoding": "choice", "base_value": 0.5}


def write_run(folder: Path, parts: str, lr: float, seed: int, learnt: float, elsewhere: float) -> None:
    run = f"recipe.lr-{lr}--recipe.parts-{parts}--seed-{seed}"
    (folder / run).mkdir(parents=True)
    run_columns = {"run": run, "parts": parts, "lr": lr, "seed": seed, **COMMON}
    values = {name: learnt if quadrant == QUADRANTS[0] else elsewhere for name, quadrant in SETS.items()}
    cells = [run_columns | {"dataset": name, "quadrant": SETS[name], "value": value} for name, value in values.items()]
    pd.DataFrame(cells).to_csv(folder / run / "scores.csv", index=False)
    interval = {"delta_ci_low": -0.01, "delta_ci_high": 0.03}
    pd.DataFrame([run_columns | interval | {"quadrant": quadrant_name} for quadrant_name in QUADRANTS]).to_csv(
        folder / run / "matrix.csv", index=False
    )
    wide = {
        f"{side}_delta_ci_{end}": value for side in ("target", "source") for end, value in (("low", 0), ("high", 0.1))
    }
    pd.DataFrame([run_columns | wide]).to_csv(folder / run / "summary.csv", index=False)
    (folder / run / "run.json").write_text(json.dumps({"audit": {"trainable": 1234}}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(modules_result, "OUT", tmp_path / "modules.md")
    for lr, learnt in ((1e-4, 0.60), (4e-4, 0.70), (1.6e-3, 0.55)):
        write_run(tmp_path / "modules", "language", lr, 0, learnt, 0.40)
        write_run(tmp_path / "modules", "language.attention", lr, 0, learnt + lr * 100, 0.48)
    write_run(tmp_path / "modules", "language", 4e-4, 1, 0.72, 0.42)
    return tmp_path / "modules"


def test_the_chosen_rate_and_the_seeds_to_run_are_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["modules_result", str(folder), "--choose"])
    modules_result.main()
    assert capsys.readouterr().out.splitlines() == ["language\t0.0004\t2", "language.attention\t0.0004\t1,2"]


def test_the_page_has_both_errors_the_published_rows_and_what_stays_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["modules_result", str(folder)])
    modules_result.main()
    page = (folder.parent / "modules.md").read_text("utf-8")
    (whole,) = [line for line in page.splitlines() if line.startswith("| language | 1,234")]
    assert "71.0 (+21.0 ± 1.4)" in whole  # 70 and 72 after 50; their standard deviation is 1.4
    assert "41.0 (-9.0 ± 1.4)" in whole
    assert "| half width in a run | | | | 5.0 | 5.0 | 2.0 | 2.0 | 2.0 | |" in page
    assert "| language.attention | 1 | +4.0 | +8.0 | 0.08 |" in page  # 74 and 48 against seed 0's 70 and 40
    assert "*Reference, other model and data.*" in page
    assert "- Not all seeds were run for `language`, `language.attention`." in page
    assert (folder.parent / "modules.svg").is_file()
