"""What a user of the callback asked for, and the configuration of its run as far as the trainer tells it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetbench.config import (
    DataConfig,
    Dtype,
    FinetuneConfig,
    GuardConfig,
    MatrixConfig,
    ModelConfig,
    RecipeConfig,
    RepresentationConfig,
    Schedule,
    StageConfig,
)
from forgetbench.core.errors import UserError
from forgetbench.core.records import PARTS, QUADRANTS, AnswerKind, Decoding, Precision
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.quadrant import place
from forgetbench.exchange.live_model import plain_name
from forgetbench.methods.base import Method
from forgetbench.models.parts import PartCount, TrainableAudit, part_of
from forgetbench.models.precision import is_narrow

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

NAME = "ForgettingCallback"
_PEFT = "base_model.model."
_WIDTHS = {"torch.float32", "torch.bfloat16"}


@dataclass(frozen=True)
class Wish:
    """What the user of the callback asked for."""

    target: str
    matrix: Sequence[str]
    items: int
    budget: float | None
    every: int | None
    name: str | None
    outputs: str
    manifests: Sequence[str]
    model: str | Mapping[str, Any] | None
    precision: Precision | None
    batch_size: int

    def check(self) -> None:
        """Refuse what cannot be asked, before anything is loaded.

        Raises:
            UserError: names the argument.
        """
        catalogue = Catalogue(self.manifests)
        catalogue.load(self.target)
        if not self.matrix or isinstance(self.matrix, str):
            raise UserError(f"{NAME}(matrix={self.matrix!r}): give a list of datasets, such as ['digits_naming'].")
        for dataset in self.matrix:
            if not catalogue.load(dataset).eval_split:
                raise UserError(f"{NAME}(matrix=...): '{dataset}' has no evaluation split; leave it out.")
        if self.items < len(self.matrix):
            raise UserError(f"{NAME}(items={self.items}) for {len(self.matrix)} datasets; give at least one for each.")
        if self.every is not None and self.every < 1:
            raise UserError(f"{NAME}(every={self.every}): give a number of steps, 1 or more; None looks at every save.")
        if self.budget is not None and not 0 <= self.budget < 100:
            raise UserError(f"{NAME}(budget={self.budget:g}) is no loss in points; give 0 or more, below 100.")
        if self.budget is not None and not self.guarded(catalogue):
            raise UserError(
                f"{NAME}(budget={self.budget:g}): no dataset of the matrix is outside the target's quadrant and scored "
                "by a share of 1, so there is nothing to lose; add one, such as 'digits_naming'."
            )

    def guarded(self, catalogue: Catalogue) -> list[str]:
        """The datasets that the budget is for."""
        target = catalogue.load(self.target)
        manifests = [catalogue.load(name) for name in self.matrix]
        outside = [manifest for manifest in manifests if place(target, manifest).quadrant not in ("", QUADRANTS[0])]
        return [manifest.name for manifest in outside if manifest.metric.is_fraction]


def planned_looks(args: TrainingArguments, state: TrainerState, every: int | None) -> int | None:
    """How many looks a training will have; None if that cannot be known."""
    steps = state.max_steps
    if every:
        return math.ceil(steps / every)
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy == "steps":
        return math.ceil(steps / max(1, int(state.save_steps or args.save_steps)))
    if strategy == "epoch" and args.max_steps <= 0:
        return math.ceil(args.num_train_epochs)
    return 1 if strategy == "no" else None


def model_config_of(inner: Any, given: str | Mapping[str, Any] | None) -> ModelConfig:
    """Where the base is, and how it is held.

    Raises:
        UserError: neither the model nor the user says where.
    """
    settings = {"path": given} if isinstance(given, str) else dict(given or {})
    path = str(settings.pop("path", None) or inner.config._name_or_path)
    if not path:
        raise UserError(
            f"{NAME}: the model does not say which folder or Hub id it was loaded from, and later scoring starts from "
            f"there. Save it with its processor (save_pretrained) and name the folder: {NAME}(model='folder')."
        )
    if held := {str(parameter.dtype) for parameter in inner.parameters()} - _WIDTHS:
        widths = ", ".join(sorted(held))
        raise UserError(f"{NAME}: weights are held in {widths}; load the model in float32 or bfloat16.")
    dtype = Dtype.bf16 if is_narrow(inner) else Dtype.fp32
    is_local = path.startswith("embedded:") or Path(path).is_dir()
    if not is_local:
        settings.setdefault("revision", str(getattr(inner.config, "_commit_hash", None) or "main"))
    attention = getattr(inner.config, "_attn_implementation", None) or "sdpa"
    return ModelConfig(**{"path": path, "dtype": dtype, "attention": attention, **settings})


def matrix_of(wish: Wish, model: ModelConfig, catalogue: Catalogue) -> MatrixConfig:
    """What is scored at a look: by likelihood, and where a dataset's answers are open by what is written, too."""
    is_open = any(catalogue.load(name).answer is AnswerKind.text for name in wish.matrix)
    return MatrixConfig(
        datasets=list(wish.matrix),
        decodings=[Decoding.choice, *([Decoding.greedy] if is_open else [])],
        limit=wish.items // len(wish.matrix),
        batch_size=wish.batch_size,
        precision=wish.precision or (Precision.bf16 if model.dtype is Dtype.bf16 else Precision.fp32),
        representation=RepresentationConfig(enabled=False),
    )


def config_of(
    wish: Wish, args: TrainingArguments, state: TrainerState, model: Any, model_config: ModelConfig
) -> tuple[FinetuneConfig, list[str]]:
    """The configuration as far as the trainer tells it, and the settings that it does not tell."""
    audit = audit_of(model)
    known: dict[str, Any] = {
        "lr": args.learning_rate,
        "steps": state.max_steps,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "gradient_accumulation": args.gradient_accumulation_steps,
        "weight_decay": args.weight_decay,
        "max_grad_norm": args.max_grad_norm,
        "gradient_checkpointing": bool(args.gradient_checkpointing or getattr(args, "activation_checkpointing", False)),
        "precision": Precision.bf16 if args.bf16 or model_config.dtype is Dtype.bf16 else Precision.fp32,
    }
    schedule = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    if schedule in set(Schedule):
        known["schedule"] = Schedule(schedule)
    unknown = ["mix", "train_on", "max_length", "optimiser", "warmup", *(() if "schedule" in known else ("schedule",))]
    guarded = wish.guarded(Catalogue(wish.manifests)) if wish.budget is not None else None
    config = FinetuneConfig(
        name=wish.name or Path(str(args.output_dir)).resolve().name,
        seed=args.seed,
        outputs=wish.outputs,
        manifests=list(wish.manifests),
        model=model_config,
        data=DataConfig(stages=[StageConfig(set=wish.target)]),
        recipe=RecipeConfig(parts=[count.part for count in audit.parts if count.trainable], **known),
        method=Method(name=_method(model)),
        guard=GuardConfig(
            max_loss=wish.budget,
            datasets=guarded,
            items=wish.items,
            every=wish.every,
            batch_size=wish.batch_size,
        ),
    )
    return config, unknown


def _method(model: Any) -> str:
    """What tables call the way of training: the kind of adapter, or plain."""
    adapter = next(iter(getattr(model, "peft_config", {}).values()), None)
    if adapter is None:
        return "plain"
    kind = str(getattr(adapter.peft_type, "value", adapter.peft_type)).lower()
    return "dora" if getattr(adapter, "use_dora", False) else kind


def audit_of(model: Any) -> TrainableAudit:
    """What trains, by part; adapters belong where their layer is."""
    total, trained, names = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0), []
    for full, parameter in model.named_parameters():
        name = plain_name(full).removeprefix(_PEFT)
        part = part_of(name)
        total[part] += parameter.numel()
        if parameter.requires_grad:
            trained[part] += parameter.numel()
            names.append(name)
    return TrainableAudit(tuple(PartCount(part, total[part], trained[part]) for part in PARTS), tuple(names))
