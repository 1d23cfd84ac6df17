"""Root dataclasses: schema, documentation and read-only values of every command's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import MISSING

from forgetbench.config.engine import Engine, EngineConfig, Reload
from forgetbench.config.guard import GuardConfig, Over
from forgetbench.config.recipe import (
    CheckpointConfig,
    MixConfig,
    Optimiser,
    RecipeConfig,
    ReplayConfig,
    Schedule,
    TooLong,
    TrainOn,
)
from forgetbench.config.result import NO_RESULT
from forgetbench.config.search import Retention, SearchConfig
from forgetbench.config.stages import DataConfig, StageConfig, Training, stage_recipe, stage_recipes
from forgetbench.core.records import THOUGHT_MARKS, Decoding, Precision
from forgetbench.methods.base import Method

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "Dtype",
    "Engine",
    "EngineConfig",
    "EvalMatrixConfig",
    "FinetuneConfig",
    "GuardConfig",
    "MatrixConfig",
    "MixConfig",
    "ModelConfig",
    "Optimiser",
    "Over",
    "Quantisation",
    "ReasoningConfig",
    "RecipeConfig",
    "Reload",
    "ReplayConfig",
    "RepresentationConfig",
    "Retention",
    "Schedule",
    "ScoreConfig",
    "SearchConfig",
    "Sharding",
    "StageConfig",
    "SweepConfig",
    "TooLong",
    "Tracker",
    "TrainOn",
    "Training",
    "Weights",
    "stage_recipe",
    "stage_recipes",
]


class Weights(StrEnum):
    """Where a model's weights come from."""

    pretrained = "pretrained"
    random = "random"
    """Architecture and processor from `path`, weights initialised from the seed."""


class Dtype(StrEnum):
    """How frozen weights are held; what trains is always fp32."""

    fp32 = "fp32"
    bf16 = "bf16"
    """Half the memory; passes through the model are then bf16, too."""


class Quantisation(StrEnum):
    """How the frozen base is compressed."""

    none = "none"
    nf4 = "nf4"
    """4 bits a weight (bitsandbytes) in the language model's linear layers: for adapters only."""


class Sharding(StrEnum):
    """What several processes share of a model that trains."""

    none = "none"
    """Each holds all of it (DDP)."""
    fsdp2 = "fsdp2"
    """Each holds a slice of every tensor, its gradient and its moments (`fully_shard`)."""


class Tracker(StrEnum):
    """Where else the numbers of training and the scores go, through accelerate; the CSVs are always written."""

    none = "none"
    tensorboard = "tensorboard"
    trackio = "trackio"
    wandb = "wandb"
    mlflow = "mlflow"


@dataclass
class ModelConfig:
    """A multimodal model: anything AutoModelForImageTextToText and AutoProcessor load."""

    path: str = MISSING
    """Hub id, local folder, or `embedded:<name>` for one shipped inside the package."""
    revision: str | None = None
    """Branch, tag or commit of the Hub; null: its main branch."""
    weights: Weights = Weights.pretrained
    """Pretrained, or initialised from the seed; architecture and processor come from `path` either way."""
    attention: str = "sdpa"
    """attn_implementation: sdpa, eager, flash_attention_2; auto is flash_attention_2 where it can run, else sdpa."""
    dtype: Dtype = Dtype.fp32
    """How frozen weights are held; what trains is always fp32."""
    quantisation: Quantisation = Quantisation.none
    """How the frozen base is compressed: nf4 takes 4 bits a weight, for adapters only (bitsandbytes)."""
    max_pixels: int | None = None
    """Pictures with more pixels are shrunk first; the paper used 512*512 = 262144."""
    chat_template: str | None = None
    """File (.jinja) in place of the checkpoint's own template; `embedded:templates/llava_1_5.jinja` comes along."""
    system_prompt: str | None = None
    """System turn of conversations that bring none; null: what the template does by itself."""
    trust_remote_code: bool = False
    """Run the Python code that comes with a checkpoint: for sources you trust."""

    @property
    def name(self) -> str:
        """The last part of the path, marked if the weights are random."""
        last = self.path.rpartition(":")[2].rstrip("/").rpartition("/")[2]
        return last if self.weights is Weights.pretrained else f"{last}-random"


@dataclass
class RepresentationConfig:
    """How checkpoints see pictures, and how far their weights moved, beside the base: representation.csv."""

    enabled: bool = True
    """Whether representation.csv is made."""
    datasets: list[str] | None = None
    """Some of the matrix's datasets; null: the first of each kind of pictures (image domains and shift)."""
    images: int = 64
    """Different pictures of each dataset, spread evenly over the scored items."""
    layers: list[int] | None = None
    """0 enters the first decoder layer, k leaves the k-th, -1 is the last; null: five, evenly spaced."""
    centred: bool = False
    """Effective rank of hidden states less their mean over a picture's tokens."""


@dataclass
class ReasoningConfig:
    """Models that think aloud before they answer."""

    marks: list[list[str]] = field(default_factory=lambda: [list(pair) for pair in THOUGHT_MARKS])
    """Pairs of texts around a thought, which is put aside; one without an end is no answer. Default: public models'."""
    max_tokens: int | None = None
    """Tokens of a thought, besides those of `max_new_tokens`, which count from its end; null: one cap for both."""


@dataclass
class MatrixConfig:
    """What is scored, and how."""

    datasets: list[str] = MISSING
    """Names of manifests; their quadrants follow from the target's manifest."""
    decodings: list[Decoding] = field(default_factory=lambda: [Decoding.choice, Decoding.greedy])
    """How predictions are read: likelihood of the candidates, what is written, what is drawn."""
    limit: int | None = None
    """Score n items of each dataset, drawn over the whole file; the same ones every time, and fewer are among more."""
    skip: dict[str, int] = field(default_factory=dict)
    """Score, of these sets, what a limit of n leaves out (and shows none of its pictures): {digits_naming: 300}."""
    batch_size: int = 64
    """Items in a forward pass."""
    precision: Precision = Precision.fp32
    """Arithmetic of the forward pass."""
    steps: list[int] = field(default_factory=list)
    """Score these checkpoints only (step 0 is always scored); empty: every checkpoint."""
    class_probe: list[str] = field(default_factory=list)
    """Multiple-choice sets to score once more with the pictured object's class name among the wrong options."""
    temperature: float = 1.0
    """Of decoding `sample`."""
    top_p: float = 1.0
    """Of decoding `sample`: draw from the likeliest tokens that together have this probability."""
    sample_seed: int = 0
    """Of decoding `sample`; an item's draw does not depend on its batch."""
    max_new_tokens: Any = None
    """Cap on written answers: tokens for all sets, or for some, such as {textvqa: 64}; null: the manifest's, else from
    the longest accepted answer."""
    cache_gb: float = 8.0
    """Disk for each dataset's preprocessed pictures, under <outputs>/.cache; larger sets are read anew every time."""
    feature_gb: float = 2.0
    """Memory for picture features, kept while vision tower and projector stay the same; 0 keeps none."""
    reasoning: ReasoningConfig = field(default_factory=ReasoningConfig)
    representation: RepresentationConfig = field(default_factory=RepresentationConfig)


@dataclass
class FinetuneConfig:
    """`forgetbench finetune`."""

    name: str = field(default=MISSING, metadata=NO_RESULT)
    """The folder under `outputs`; by default from data, recipe, seed and what else is given."""
    run: str | None = field(default=None, metadata=NO_RESULT)
    """With a method that comes after training: the run to work on; null trains one first. Takes `model.path` only."""
    seed: int = 0
    """Decides the order of the data, random weights and whatever else is drawn."""
    outputs: str = field(default="outputs", metadata=NO_RESULT)
    """Folder that runs and cells are written to."""
    manifests: list[str] = field(default_factory=lambda: ["data_manifests"], metadata=NO_RESULT)
    """Folders searched for your own manifests, besides the shipped ones."""
    threads: int | None = field(default=None, metadata=NO_RESULT)
    """CPU threads; null leaves it to torch. Same seed and threads, same bytes."""
    sharding: Sharding = field(default=Sharding.none, metadata=NO_RESULT)
    """With several processes: what each holds of the model."""
    resume_minutes: float = field(default=5.0, metadata=NO_RESULT)
    """Minutes between points that a killed run goes on from, besides checkpoints and signals; 0: after every step."""
    tracker: Tracker = field(default=Tracker.none, metadata=NO_RESULT)
    """Also send every step's numbers there, and the scores of a sweep's points; its account and address come from its
    own environment variables."""
    strategy: str | None = None
    """What tables call this way of continual learning; a config of the group `strategy` says it."""
    model: ModelConfig = MISSING
    data: DataConfig = MISSING
    recipe: RecipeConfig = MISSING
    method: Method = MISSING
    """Against forgetting (docs/methods.md); `--cfg` prints the method's own keys, such as method.rank."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """A budget of forgetting, watched while it trains (docs/guard.md)."""


@dataclass
class EvalMatrixConfig:
    """`forgetbench eval-matrix`: one run's checkpoints, or just the base model when `run` is null."""

    run: str | None = None
    """A run's folder; model, target and mix are read from it. If its base has moved, `model.path` says where to."""
    name: str | None = None
    """When `run` is null: the folder under `outputs`; null: named after the model, its digest and the target."""
    outputs: str = "outputs"
    """Folder that tables and cells of a base are written to; those of a run are where the run is."""
    manifests: list[str] = field(default_factory=lambda: ["data_manifests"])
    """Folders searched for your own manifests, besides the shipped ones."""
    threads: int | None = None
    """CPU threads; null leaves it to torch."""
    seed: int = 0
    """Of random weights (model.weights=random), when `run` is null."""
    tracker: Tracker = Tracker.none
    """Also send the matrix of each checkpoint and the summary there, beside the numbers of training."""
    model: ModelConfig = MISSING
    """Used when `run` is null."""
    data: DataConfig = MISSING
    """The target that quadrants are relative to, when `run` is null."""
    matrix: MatrixConfig = MISSING
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass
class ScoreConfig:
    """`forgetbench score`: tables from stored predictions, or from predictions made elsewhere; no model is needed."""

    run: str | None = None
    """A run's folder, whose stored predictions are scored again."""
    predictions: str | None = None
    """Instead of a run: a folder with a subfolder per checkpoint (`base`, `step_000100`), in it a file per dataset."""
    name: str = "predictions"
    """With `predictions`: the folder under `outputs` that the tables go to."""
    model_name: str = ""
    """With `predictions`: what the tables call the model."""
    outputs: str = "outputs"
    """Folder that tables and cells of `predictions` are written to; those of a run are where the run is."""
    manifests: list[str] = field(default_factory=lambda: ["data_manifests"])
    """Folders searched for your own manifests, besides the shipped ones."""
    engine_name: str | None = None
    """What ran the model, with its version, such as 'vllm 0.32.0'; null: as the run was scored last."""
    partial: bool = False
    """Score what is there (of a run: its cells; of `predictions`: the items that every file has) and say what is not;
    `--partial` is the same."""
    tracker: Tracker = Tracker.none
    """Also send the matrix of each checkpoint and the summary there, beside the numbers of training."""
    lm_eval: bool = False
    """Also write each checkpoint's results in lm-evaluation-harness's JSON layout."""
    data: DataConfig = MISSING
    """With `predictions`: the target that quadrants are relative to."""
    matrix: MatrixConfig = MISSING


@dataclass
class SweepConfig(FinetuneConfig):
    """`forgetbench sweep`: train and score every point of a grid."""

    matrix: MatrixConfig = field(default=MISSING, metadata=NO_RESULT)
    """What is scored does not make another point: the same training is never repeated for another matrix."""
    engine: EngineConfig = field(default_factory=EngineConfig, metadata=NO_RESULT)
    """What runs the model while it is scored."""
    search: SearchConfig = field(default_factory=SearchConfig, metadata=NO_RESULT)
    """With a space, points are searched instead of listed (docs/search.md)."""
