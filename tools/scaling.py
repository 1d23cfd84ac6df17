"""What the paper's Figure 2 costs on real GPUs: a cost model, arithmetic alone, that prints docs/scaling.md's tables.

    python -m tools.scaling

Floating-point operations of a transformer pass are 2 a weight and token forwards; backwards 2 more for the gradient
that flows on and 2 for the gradient of a weight that trains (Kaplan et al. 2020, arXiv:2001.08361, section 2.1).
Attention's own products and the optimiser are left out: at these lengths they are a few percent.
Shapes do not occur: everything is counted per picture-and-question instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BYTES_FP32 = 4
HOUR = 3600


@dataclass(frozen=True)
class Model:
    """Sizes that decide cost; embeddings are looked up, not multiplied, so they count as no operations."""

    name: str
    vision: float
    """Weights of the vision tower; the others likewise."""
    projector: float
    language: float
    embeddings: float
    patches: int
    """Of one picture, before the projector merges them."""
    picture_tokens: int
    """Of one picture, as the language model reads it."""
    text_tokens: int = 80
    """Template, question, four options, letter."""


@dataclass(frozen=True)
class Recipe:
    """One line of the figure."""

    name: str
    trains: frozenset[str]
    instances: int
    checkpoints: int
    adapter: float = 0.0
    """Weights of adapters on the language part, which is frozen then."""


@dataclass(frozen=True)
class Gpu:
    """Throughput of a GPU; measured or published, never only the data sheet's peak."""

    training_flops: float
    """Operations a second that count, in training."""
    scoring_flops: float
    scoring_fp32_flops: float
    load_seconds: float
    """To start a process and read the model."""


# Sizes: transformers' own configurations on the meta device. Pictures: ImageNet's mean of 182,000 pixels (469 x 387);
# a patch is 14 x 14 pixels and four of them make a token. LLaVA: 336 x 336 pixels, 577 patches, 576 tokens.
QWEN_3B = Model("Qwen2.5-VL-3B", 632.0e6, 36.71e6, 3.086e9, 311e6, 926, 232)
LLAVA_7B = Model("LLaVA-1.5-7B", 303.5e6, 20.98e6, 6.739e9, 131e6, 577, 576)

LANGUAGE, PROJECTOR, VISION = frozenset({"language"}), frozenset({"projector"}), frozenset({"vision"})
LORA_WEIGHTS = 14.97e6
"""Rank 8 on every linear layer of the language part of Qwen2.5-VL-3B."""
INSTANCES = 80_000 * 16
FIGURE_2 = (
    Recipe("language 1e-5", LANGUAGE, INSTANCES, 8),
    Recipe("language 1e-6", LANGUAGE, INSTANCES, 8),
    Recipe("language, LoRA", LANGUAGE, 40_000 * 32, 20, LORA_WEIGHTS),
    Recipe("language and projector", LANGUAGE | PROJECTOR, INSTANCES, 8),
    Recipe("vision 1e-6", VISION, INSTANCES, 8),
    Recipe("vision 1e-5", VISION, INSTANCES, 8),
    Recipe("vision and projector", VISION | PROJECTOR, INSTANCES, 8),
    Recipe("projector 1e-6", PROJECTOR, INSTANCES, 8),
    Recipe("projector 1e-5", PROJECTOR, INSTANCES, 8),
)

MATRIX = {
    "imagenet_vqa": 50_000,
    "imagenetv2_vqa": 10_000,
    "flowers102_vqa": 6149,
    "caltech101_vqa": 4331,
    "stanford_cars_vqa": 8041,
    "imagewikiqa": 2000,
    "imagewikiqa+class_name": 2000,
    "mmmu_val": 847,
    "vmcbench_dev": 1000,
}

# LLaVA-1.5-7B's second stage: 665,298 conversations in about 10 hours on 8 A100 40 GB (the repository's README).
PUBLISHED_INSTANCES, PUBLISHED_HOURS, PUBLISHED_GPUS = 665_298, 10, 8
PUBLISHED_TEXT_TOKENS = 250
"""Of a conversation, assumed: the published data's mean is not on record."""
PUBLISHED_FLOPS = (
    PUBLISHED_INSTANCES
    / (PUBLISHED_HOURS * HOUR * PUBLISHED_GPUS)
    * (
        6 * (LLAVA_7B.language - LLAVA_7B.embeddings) * (LLAVA_7B.picture_tokens + PUBLISHED_TEXT_TOKENS)
        + 6 * LLAVA_7B.projector * LLAVA_7B.picture_tokens
        + 2 * LLAVA_7B.vision * LLAVA_7B.patches
    )
)
# Scoring: 40 % of an A100's bf16 peak of 312 TFLOP/s and 60 % of its fp32 peak of 19.5; 45 s to start. Assumed.
A100 = Gpu(PUBLISHED_FLOPS, 0.40 * 312e12, 0.60 * 19.5e12, 45.0)

# From docs/results/evaluation_speed.md: seconds of greedy, of choice, and of both in one process.
GREEDY_SECONDS, CHOICE_SECONDS, BOTH_SECONDS = 17.2, 18.3, 22.1
BOTH_OVER_GREEDY = BOTH_SECONDS / GREEDY_SECONDS
"""Both decodings share the reading of picture and question."""
SEPARATE_OVER_GREEDY = (GREEDY_SECONDS + CHOICE_SECONDS) / GREEDY_SECONDS
CELL_BYTES_PER_ITEM = 99
"""Of a stored cell, compressed: the mean of the cells of docs/results."""
SCALING = 0.9
"""Efficiency of each GPU in a run on several, relative to a run on one; assumed."""


def training_flops(model: Model, recipe: Recipe) -> float:
    """Operations of one training instance.

    The gradient flows back to the first part that trains: all of the language model for the projector or the tower.
    """
    tokens = model.picture_tokens + model.text_tokens
    language, below = model.language - model.embeddings, recipe.trains & (VISION | PROJECTOR)
    full = recipe.trains & LANGUAGE and not recipe.adapter
    total = (2 + 2 + (2 if full else 0)) * language * tokens + 6 * recipe.adapter * tokens
    total += (
        (2 + (2 if below else 0) + (2 if recipe.trains & PROJECTOR else 0)) * model.projector * model.picture_tokens
    )
    return total + (6 if recipe.trains & VISION else 2) * model.vision * model.patches


def scoring_flops(model: Model) -> float:
    """Operations of reading a picture and question; the answer's letter is negligible."""
    language = (model.language - model.embeddings) * (model.picture_tokens + model.text_tokens)
    return 2 * (language + model.projector * model.picture_tokens + model.vision * model.patches)


def vision_share(model: Model) -> float:
    """Part of a scoring pass that kept picture features save, where tower and projector are frozen."""
    return 2 * (model.vision * model.patches + model.projector * model.picture_tokens) / scoring_flops(model)


def training_hours(model: Model, recipe: Recipe, gpu: Gpu = A100) -> float:
    """GPU-hours of one run."""
    return recipe.instances * training_flops(model, recipe) / gpu.training_flops / HOUR


def scoring_hours(model: Model, items: int, gpu: Gpu = A100, fp32: bool = False) -> float:
    """GPU-hours of a checkpoint in a single decoding, greedy."""
    return items * scoring_flops(model) / (gpu.scoring_fp32_flops if fp32 else gpu.scoring_flops) / HOUR


def trained_weights(model: Model, recipe: Recipe) -> float:
    """Weights that a checkpoint holds."""
    if recipe.adapter:
        return recipe.adapter
    sizes = {"vision": model.vision, "projector": model.projector, "language": model.language}
    return sum(sizes[part] for part in recipe.trains)


def checkpoint_gb(model: Model, recipe: Recipe) -> float:
    """Disk of a run's checkpoints: changed tensors as fp32."""
    return trained_weights(model, recipe) * BYTES_FP32 * recipe.checkpoints / 1e9


def makespan(hours: Sequence[float], workers: int) -> float:
    """Hours until the last of some jobs ends, the longest started first, each on the worker that is free first."""
    free = [0.0] * workers
    for job_hours in sorted(hours, reverse=True):
        free.sort()
        free[0] += job_hours
    return max(free)


def wall_hours(jobs: Sequence[float], gpus: int) -> float:
    """Hours of a figure on some GPUs: a run a GPU, or as many GPUs a run as there are to share."""
    each = max(1, gpus // len(jobs))
    share = 1 if each == 1 else 1 / (each * SCALING)
    return makespan([job_hours * share for job_hours in jobs], gpus // each)


@dataclass(frozen=True)
class Figure:
    """Cost of the whole figure."""

    training: Sequence[float]
    """GPU-hours of every run."""
    scoring: Sequence[float]
    """Likewise, both decodings of every checkpoint; the base is scored once, with the first."""
    naive_scoring: float
    """A process for each checkpoint, dataset and decoding, the base in every run."""
    naive_loading: float
    """Of that, starting processes and loading models."""
    processes: int


def figure(
    model: Model, recipes: Sequence[Recipe], items: Sequence[int], gpu: Gpu = A100, fp32: bool = False
) -> Figure:
    """Add up a figure; `items` are those of every dataset."""
    once = scoring_hours(model, sum(items), gpu, fp32)
    scoring = [(recipe.checkpoints + (place == 0)) * once * BOTH_OVER_GREEDY for place, recipe in enumerate(recipes)]
    loads = [gpu.load_seconds / HOUR] * len(recipes)  # one process scores a run
    scored = sum(recipe.checkpoints + 1 for recipe in recipes)
    processes = scored * len(items) * 2
    loading = processes * gpu.load_seconds / HOUR
    return Figure(
        training=[training_hours(model, recipe, gpu) for recipe in recipes],
        scoring=[hours + load for hours, load in zip(scoring, loads, strict=True)],
        naive_scoring=scored * once * SEPARATE_OVER_GREEDY + loading,
        naive_loading=loading,
        processes=processes,
    )


def main() -> None:
    """Print every table."""
    from tools.scaling_tables import tables

    print("\n\n".join(tables()))


if __name__ == "__main__":
    main()
