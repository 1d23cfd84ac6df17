"""The tables of docs/scaling.md, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tools.scaling import (
    A100,
    BOTH_OVER_GREEDY,
    CELL_BYTES_PER_ITEM,
    FIGURE_2,
    MATRIX,
    QWEN_3B,
    SEPARATE_OVER_GREEDY,
    Figure,
    checkpoint_gb,
    figure,
    scoring_flops,
    trained_weights,
    training_flops,
    vision_share,
    wall_hours,
)

LIMITED = 2000
"""Items of a dataset with `matrix.limit=2000`."""


def tables() -> Iterator[str]:
    """Every table in the page's order."""
    whole = list(MATRIX.values())
    limited = [min(LIMITED, n_items) for n_items in whole]
    plans = {
        "all items, bf16": (figure(QWEN_3B, FIGURE_2, whole), whole),
        "all items, fp32": (figure(QWEN_3B, FIGURE_2, whole, fp32=True), whole),
        "2,000 a dataset, bf16": (figure(QWEN_3B, FIGURE_2, limited), limited),
        "2,000 a dataset, fp32": (figure(QWEN_3B, FIGURE_2, limited, fp32=True), limited),
    }
    yield _assumptions()
    yield _runs()
    yield _walls({name: costs for name, (costs, _) in plans.items()})
    yield _savings({name: costs for name, (costs, _) in plans.items()})
    yield _disk(whole)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _assumptions() -> str:
    rows = [
        ["an A100 in training, from LLaVA-1.5-7B's published hours", f"{A100.training_flops / 1e12:.0f} TFLOP/s"],
        [
            "an A100 in scoring, bf16; fp32",
            f"{A100.scoring_flops / 1e12:.0f}; {A100.scoring_fp32_flops / 1e12:.1f} TFLOP/s",
        ],
        ["starting a process and loading 3 B weights", f"{A100.load_seconds:.0f} s"],
        ["choice and greedy together, of greedy alone; apart", f"{BOTH_OVER_GREEDY:.2f}; {SEPARATE_OVER_GREEDY:.2f}"],
        ["reading one ImageNet picture and question", f"{scoring_flops(QWEN_3B) / 1e12:.2f} TFLOP"],
        ["of that, vision tower and projector", f"{vision_share(QWEN_3B):.0%}"],
    ]
    return _table(["quantity", "value"], rows)


def _runs() -> str:
    hours = figure(QWEN_3B, FIGURE_2, list(MATRIX.values()))
    rows = [
        [
            recipe.name,
            f"{training_flops(QWEN_3B, recipe) / 1e12:.1f}",
            f"{trained:.0f}",
            str(recipe.checkpoints),
            f"{scored:.0f}",
            f"{trained_weights(QWEN_3B, recipe) / 1e6:,.0f}",
            f"{checkpoint_gb(QWEN_3B, recipe):.1f}",
        ]
        for recipe, trained, scored in zip(FIGURE_2, hours.training, hours.scoring, strict=True)
    ]
    header = [
        "recipe",
        "TFLOP an instance",
        "training, GPU-h",
        "checkpoints",
        "scoring, GPU-h",
        "million weights",
        "GB",
    ]
    return _table(header, rows)


def _walls(plans: dict[str, Figure]) -> str:
    rows = []
    for name, costs in plans.items():
        jobs = [trained + scored for trained, scored in zip(costs.training, costs.scoring, strict=True)]
        hours = [f"{wall_hours(jobs, gpus):.0f}" for gpus in (1, 8, 64)]
        rows.append([name, f"{sum(costs.training):.0f}", f"{sum(costs.scoring):.0f}", *hours])
    return _table(["scored", "training, GPU-h", "scoring, GPU-h", "hours on 1 GPU", "on 8", "on 64"], rows)


def _savings(plans: dict[str, Figure]) -> str:
    rows = []
    for name, costs in plans.items():
        ours = sum(costs.scoring)
        rows.append(
            [
                name,
                f"{costs.processes:,}",
                f"{costs.naive_loading:.0f}",
                f"{costs.naive_scoring:.0f}",
                f"{ours:.0f}",
                f"{costs.naive_scoring / ours:.1f}",
            ]
        )
    header = ["scored", "processes", "loading, GPU-h", "a process per cell, GPU-h", "forgetbench, GPU-h", "times"]
    return _table(header, rows)


def _disk(items: Sequence[int]) -> str:
    deltas = sum(checkpoint_gb(QWEN_3B, recipe) for recipe in FIGURE_2)
    checkpoints = sum(recipe.checkpoints for recipe in FIGURE_2)
    weights = QWEN_3B.vision + QWEN_3B.projector + QWEN_3B.language
    resume = max(trained_weights(QWEN_3B, recipe) for recipe in FIGURE_2) * 12 / 1e9
    cells = (checkpoints + 1) * sum(items) * 2 * CELL_BYTES_PER_ITEM / 1e9
    features = sum(items) * QWEN_3B.picture_tokens * 2048 * 4 / 1e9
    rows = [
        [f"{checkpoints} checkpoints, changed tensors as fp32", f"{deltas:,.0f}"],
        [f"{checkpoints} whole models as fp32", f"{checkpoints * weights * 4 / 1e9:,.0f}"],
        ["a resume point while a run trains, the largest", f"{resume:.0f}"],
        ["every prediction", f"{cells:.1f}"],
        ["memory to keep every picture's features (fp32), all items", f"{features:.0f}"],
    ]
    return _table(["disk", "GB"], rows)
