"""Scores in lm-evaluation-harness's layout: its keys, nothing that was not measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from forgetbench.core.errors import UserError
from forgetbench.exchange.lm_eval import lm_eval_results, write_lm_eval

Row = dict[str, Any]


def row(**fields: Any) -> Row:
    return {
        "run": "mine", "model": "tiny", "target": "shirts", "checkpoint": "step_000020", "variant": "",
        "method": "lora", "parts": "language", "lr": 0.001, "mix": "", "mix_ratio": None, "seed": 0,
        "stage": 1, "step": 20, "dataset": "digits", "image_domain": "digits", "text_task": "naming", "text_axis": "id",
        "image_axis": "ood", "quadrant": "id_text-ood_image", "seen_in_mix": False, "decoding": "choice",
        "metric": "accuracy", "n": 50, "value": 0.5, "stderr": 0.07, "chance": 0.25, "cell": "c0",
    } | fields  # fmt: skip


def table(*rows: Row) -> pd.DataFrame:
    """As analysis.tables makes it: nullable columns."""
    frame = pd.DataFrame(list(rows))
    return frame.astype(dict.fromkeys(("value", "stderr", "chance", "mix_ratio"), "Float64") | {"n": "Int64"})


PROBE: Row = {"dataset": "probe", "quadrant": "", "text_axis": "ood"}
SCORES = table(
    row(),
    row(decoding="greedy", value=0.375, chance=None, cell="c1"),
    row(**PROBE),
    row(**PROBE, metric="mischoice", value=0.125, chance=None),
    row(**PROBE, metric="mischoice_of_wrong", value=None, stderr=None, n=0, chance=None),
    row(step=0, checkpoint="step_000000", stage=0, value=0.75, stderr=None),
)


def test_each_dataset_is_a_task_with_a_value_per_metric_and_decoding() -> None:
    results = lm_eval_results(SCORES, 20)["results"]
    assert results["digits"] == {
        "alias": "digits",
        "acc,none": 0.5,
        "acc_stderr,none": 0.07,
        "exact_match,greedy": 0.375,
        "exact_match_stderr,greedy": 0.07,
    }
    assert results["probe"]["mischoice,none"] == 0.125


def test_other_metrics_keep_their_names_and_other_decodings_are_filters() -> None:
    rows = [row(decoding="sample"), row(decoding="greedy", metric="anls")]
    results = lm_eval_results(table(*rows), 20)["results"]["digits"]
    assert set(results) == {
        "alias",
        "exact_match,sample",
        "exact_match_stderr,sample",
        "anls,greedy",
        "anls_stderr,greedy",
    }


def test_an_absent_value_stays_out_and_an_absent_standard_error_is_said_as_lm_eval_does() -> None:
    assert not any("of_wrong" in key for key in lm_eval_results(SCORES, 20)["results"]["probe"])
    assert lm_eval_results(SCORES, 0)["results"]["digits"] == {
        "alias": "digits", "acc,none": 0.75, "acc_stderr,none": "N/A",
    }  # fmt: skip


def test_what_lm_eval_says_of_its_tasks_is_said_where_it_is_known() -> None:
    made = lm_eval_results(SCORES, 20)
    assert made["n-samples"] == {"digits": {"effective": 50}, "probe": {"effective": 50}}
    assert made["n-shot"] == {"digits": 0, "probe": 0}
    assert made["group_subtasks"] == {"digits": [], "probe": []}
    assert made["higher_is_better"]["digits"] == {"acc": True, "exact_match": True}
    assert made["higher_is_better"]["probe"] == {"acc": True, "mischoice": False}
    config = made["configs"]["digits"]
    assert (config["output_type"], config["metadata"]["chance"]) == ("multiple_choice", 0.25)
    assert config["metadata"]["cells"] == {"none": "c0", "greedy": "c1"}
    assert "quadrant" not in made["configs"]["probe"]["metadata"]
    assert "lm_eval_version" not in made
    assert made["model_name"] == "mine/step_000020"


def test_an_open_task_is_a_generative_one() -> None:
    made = lm_eval_results(table(row(decoding="greedy")), 20)
    assert made["configs"]["digits"]["output_type"] == "generate_until"


def test_settings_go_to_the_configuration_and_a_date_beside_it() -> None:
    made = lm_eval_results(SCORES, 20, {"batch_size": 8, "date": 1.5})
    assert (made["config"]["batch_size"], made["date"]) == (8, 1.5)
    assert made["config"]["model_args"]["pretrained"] == "tiny"
    assert "mix" not in made["config"]["model_args"]
    assert "date" not in {**made["config"], **lm_eval_results(SCORES, 20)}


def test_every_checkpoint_has_a_file_and_the_same_scores_make_the_same_bytes(tmp_path: Path) -> None:
    SCORES.to_csv(tmp_path / "scores.csv", index=False)
    paths = write_lm_eval(SCORES, tmp_path / "a")
    again = write_lm_eval(pd.read_csv(tmp_path / "scores.csv"), tmp_path / "b")
    names = ["lm_eval/step_000000/results.json", "lm_eval/step_000020/results.json"]
    assert [path.relative_to(tmp_path / "a").as_posix() for path in paths] == names
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert "NaN" not in paths[1].read_text()
    assert json.loads(paths[1].read_text()) == lm_eval_results(SCORES, 20)


def test_an_edited_checkpoint_has_a_file_of_its_own(tmp_path: Path) -> None:
    paths = write_lm_eval(table(row(), row(checkpoint="step_000020@merged", variant="merged", value=0.625)), tmp_path)
    assert [path.parent.name for path in paths] == ["step_000020", "step_000020@merged"]


def test_a_step_that_was_not_scored_is_told_with_those_that_were() -> None:
    with pytest.raises(UserError, match=r"at step 7, found none \(steps: 0, 20\)"):
        lm_eval_results(SCORES, 7)


def test_scores_of_two_runs_are_not_mixed(tmp_path: Path) -> None:
    both = table(row(), row(run="other"))
    with pytest.raises(UserError, match="found mine/step_000020, other/step_000020"):
        write_lm_eval(both, tmp_path)
    assert not (tmp_path / "lm_eval").exists()
