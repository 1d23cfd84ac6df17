"""Ship a trained base: weights into forgetbench/embedded/tiny, its curve, scores and card beside them.

python -m tools.export_base outputs/base_model      (the last step of `make base-model`)
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageFont

from forgetbench.config import EvalMatrixConfig, FinetuneConfig
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.experiment import eval_matrix
from forgetbench.launch import compose
from forgetbench.models.checkpoint import list_checkpoints
from forgetbench.models.load import load_model
from forgetbench.paths import EMBEDDED
from forgetbench.runfile import model_config, read_run

FOLDER = EMBEDDED / "tiny"
RESULTS = EMBEDDED.parents[1] / "docs/results/base_model"
WIDTH, HEIGHT, MARGIN, SMOOTH = 900, 320, 46, 25
CARD = """\
# The embedded base model

A small LLaVA ({parameters:,} parameters: CLIP vision tower of 4 layers, 128 wide, over 32x32 pictures in 16 patches;
two-layer projector; Llama decoder of 4 layers, 192 wide; byte-level BPE of {vocabulary} tokens), trained by forgetbench
from random weights on the training splits of the embedded world and on nothing else. Stored in bf16.

- **Made by** `make base-model`: `recipe=base_model data=base_model model=tiny_random`, seed {seed}, {steps} steps of
  batch 64.
- **Stages** {stages}. The target task `fashion_naming` is all but left out (60 items at a weight of 0.05), so that
  fine-tuning has something to teach.
- **For** trying recipes and testing. It knows the embedded world's words and pictures and nothing else.
- **Licence** Apache-2.0; the pictures' licences are in NOTICE.

Held-out scores, likelihood over the options (`docs/results/base_model/scores.csv` has every column, and `greedy`):

| dataset | accuracy | 95 % interval | chance |
|---|---|---|---|
{rows}
"""


def main() -> None:
    """Export the last checkpoint of a run, then score it and describe it."""
    run_folder = Path(sys.argv[1])
    run = read_run(run_folder)
    loaded = load_model(model_config(run), run.config["seed"])
    last = list_checkpoints(run_folder)[-1]
    WeightSwap(loaded.model).to(last.delta())
    loaded.model.to(torch.bfloat16).save_pretrained(FOLDER)
    RESULTS.mkdir(parents=True, exist_ok=True)
    draw_curve(run_folder / "train.csv", RESULTS / "loss.png")

    eval_matrix(compose(EvalMatrixConfig, ["model=tiny", "matrix=fashion"]), Path("outputs"))
    (scores_file,) = Path("outputs").glob("base-tiny-*/scores.csv")
    scores = pd.read_csv(scores_file)
    scores.drop(columns=["seconds"]).to_csv(RESULTS / "scores.csv", index=False)
    chosen = scores[scores["decoding"].eq("choice") & scores["metric"].isin(["accuracy", "mischoice"])]
    stages = compose(FinetuneConfig, ["data=base_model", "recipe=base_model", "model=tiny_random"]).data.stages
    card = CARD.format(
        parameters=run.audit["total"],
        vocabulary=len(loaded.processor.tokenizer),
        seed=run.config["seed"],
        steps=last.step,
        stages=", ".join(f"`{stage.set}` ({stage.steps} steps)" for stage in stages),
        rows="\n".join(_row(row) for row in chosen.to_dict("records")),
    )
    (FOLDER / "README.md").write_text(card, "utf-8")


def _row(row: dict[str, float]) -> str:
    name = f"{row['dataset']}{', class name chosen' if row['metric'] == 'mischoice' else ''}"
    chance = "" if pd.isna(row["chance"]) else f"{row['chance'] * 100:.0f}"
    interval = f"{row['ci_low'] * 100:.1f} to {row['ci_high'] * 100:.1f}"
    return f"| {name} | {row['value'] * 100:.1f} | {interval} | {chance} |"


def draw_curve(log: Path, picture: Path) -> None:
    """The training loss, a running mean over steps, with the stages marked."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = pd.Series([float(row["loss"]) for row in rows]).rolling(SMOOTH, min_periods=1).mean()
    top = 2.0
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    scale_x, scale_y = (WIDTH - 2 * MARGIN) / len(rows), (HEIGHT - 2 * MARGIN) / top

    def at(step: int, loss: float) -> tuple[float, float]:
        return MARGIN + step * scale_x, HEIGHT - MARGIN - min(loss, top) * scale_y

    for level in (0.0, 0.5, 1.0, 1.5, 2.0):
        pen.line((at(0, level), at(len(rows), level)), "#d1d9e0")
        pen.text((8, at(0, level)[1] - 9), f"{level:.1f}", "#59636e", font)
    for step in range(1, len(rows)):
        if rows[step]["stage"] != rows[step - 1]["stage"]:
            pen.line((at(step, 0.0), at(step, top)), "#59636e")
    pen.line([at(step, loss) for step, loss in enumerate(losses, start=1)], "#0969da", 2)
    pen.text((MARGIN, 12), f"training loss, mean of {SMOOTH} steps; lines divide the stages", "#1f2328", font)
    pen.text((WIDTH - MARGIN - 90, HEIGHT - MARGIN + 10), f"step {len(rows)}", "#59636e", font)
    sheet.save(picture, optimize=True)


if __name__ == "__main__":
    main()
