"""Ship a trained base: weights into forgetbench/embedded/tiny, its curve, scores and card beside them.

python -m tools.export_base outputs/base_words                        both are steps of `make base-model`
python -m tools.export_base outputs/base_words outputs/base_model
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageFont

from forgetbench.commands.eval_matrix import eval_matrix
from forgetbench.compose import compose
from forgetbench.config import EvalMatrixConfig, FinetuneConfig, ModelConfig
from forgetbench.core.paths import EMBEDDED
from forgetbench.evaluation.swap import WeightSwap
from forgetbench.exchange.published_names import save_as_published
from forgetbench.models.load import load_model
from forgetbench.models.pretrained import load_processor
from forgetbench.runs.run import read_run

FOLDER = EMBEDDED / "tiny"
RESULTS = EMBEDDED.parents[1] / "docs/results/base_model"
WORDS_STEP = 2000
"""Before the rate has fallen to nothing, so that the second half goes on smoothly."""
WIDTH, HEIGHT, MARGIN, SMOOTH = 900, 320, 46, 25
CARD = """\
# The embedded base model

A small LLaVA ({parameters:,} parameters: CLIP vision tower of 4 layers, 128 wide, over 32x32 pictures in 16 patches;
two-layer projector; Llama decoder of 4 layers, 192 wide; byte-level BPE of {vocabulary} tokens), trained by forgetbench
from random weights on the training splits of the embedded world and on nothing else. Stored in bf16.

- **Made by** `make base-model`, in two halves of batch 64: `recipe=base_words data=base_words` from random weights,
  then, from its checkpoint at step 2000, `recipe=base_model data=base_model`.
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
    """Export the first half, to go on from, or both, to ship."""
    words, *rest = (Path(folder) for folder in sys.argv[1:])
    if rest:
        ship(words, rest[0])
    else:
        shutil.copytree(FOLDER, words / "model", dirs_exist_ok=True)
        save_as_published(_trained(words, WORDS_STEP), words / "model")


def _trained(run_folder: Path, step: int | None = None) -> Any:
    """The model of a run at a step; at the last one by default."""
    run = read_run(run_folder)
    loaded = load_model(run.model, run.config.seed)
    checkpoints = run.checkpoints()
    chosen = (
        checkpoints[-1] if step is None else next(checkpoint for checkpoint in checkpoints if checkpoint.step == step)
    )
    WeightSwap(loaded.model).to(chosen.delta())
    return loaded.model


def ship(words: Path, run_folder: Path) -> None:
    """Put the last checkpoint of the second half into the package in bf16, score it, describe it."""
    run = read_run(run_folder)
    save_as_published(_trained(run_folder).to(torch.bfloat16), FOLDER)
    RESULTS.mkdir(parents=True, exist_ok=True)
    draw_curve(losses(words, run_folder), RESULTS / "loss.png")
    eval_matrix(compose(EvalMatrixConfig, ["model=tiny", "matrix=fashion"]), Path("outputs"))
    scores = pd.read_csv("outputs/base-tiny-fashion_naming/scores.csv")
    scores.drop(columns=["seconds"]).to_csv(RESULTS / "scores.csv", index=False)
    chosen = scores[scores["decoding"].eq("choice") & scores["metric"].isin(["accuracy", "mischoice"])]
    halves = [compose(FinetuneConfig, [f"data={name}", f"recipe={name}"]) for name in ("base_words", "base_model")]
    stages = [stage for half in halves for stage in half.data.stages]
    card = CARD.format(
        parameters=run.audit["total"],
        vocabulary=len(load_processor(ModelConfig(path="embedded:tiny")).tokenizer),
        stages=", ".join(f"`{stage.set}` ({stage.steps} steps)" for stage in stages),
        rows="\n".join(_row(row) for row in chosen.to_dict("records")),
    )
    (FOLDER / "README.md").write_text(card, "utf-8")


def _row(row: dict[str, float]) -> str:
    name = f"{row['dataset']}{', class name chosen' if row['metric'] == 'mischoice' else ''}"
    chance = "" if pd.isna(row["chance"]) else f"{row['chance'] * 100:.0f}"
    interval = f"{row['ci_low'] * 100:.1f} to {row['ci_high'] * 100:.1f}"
    return f"| {name} | {row['value'] * 100:.1f} | {interval} | {chance} |"


def losses(words: Path, run_folder: Path) -> pd.DataFrame:
    """Step, stage and loss over both halves, the first up to where the second goes on from it."""
    first, second = (pd.read_csv(folder / "train.csv") for folder in (words, run_folder))
    first = first[first["step"] <= WORDS_STEP]
    second["stage"] += first["stage"].max()
    return pd.concat([first, second], ignore_index=True)[["stage", "loss"]]


def draw_curve(log: pd.DataFrame, picture: Path) -> None:
    """The training loss, a running mean over steps, with the stages marked."""
    means, n = log["loss"].rolling(SMOOTH, min_periods=1).mean(), len(log)
    top = 2.0
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    scale_x, scale_y = (WIDTH - 2 * MARGIN) / n, (HEIGHT - 2 * MARGIN) / top

    def at(step: int, loss: float) -> tuple[float, float]:
        return MARGIN + step * scale_x, HEIGHT - MARGIN - min(loss, top) * scale_y

    for level in (0.0, 0.5, 1.0, 1.5, 2.0):
        pen.line((at(0, level), at(n, level)), "#d1d9e0")
        pen.text((8, at(0, level)[1] - 9), f"{level:.1f}", "#59636e", font)
    for step in log.index[log["stage"].diff() > 0]:
        pen.line((at(step, 0.0), at(step, top)), "#59636e")
    pen.line([at(step, loss) for step, loss in enumerate(means, start=1)], "#0969da", 2)
    pen.text((MARGIN, 12), f"training loss, mean of {SMOOTH} steps; lines divide the stages", "#1f2328", font)
    pen.text((WIDTH - MARGIN - 90, HEIGHT - MARGIN + 10), f"step {n}", "#59636e", font)
    sheet.save(picture, optimize=True)


if __name__ == "__main__":
    main()
