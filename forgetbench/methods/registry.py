"""The table of config schemas: each dataclass is schema, documentation and, for a method, implementation."""

from __future__ import annotations

from forgetbench.config import (
    DataConfig,
    EngineConfig,
    EvalMatrixConfig,
    FinetuneConfig,
    MatrixConfig,
    ModelConfig,
    RecipeConfig,
    ScoreConfig,
    SweepConfig,
)
from forgetbench.methods.base import Method
from forgetbench.methods.dare import Dare
from forgetbench.methods.ewc import EWC
from forgetbench.methods.gmt import GMT
from forgetbench.methods.grafting import Grafting
from forgetbench.methods.hft import HFT
from forgetbench.methods.inc_lora import IncLoRA
from forgetbench.methods.l2sp import L2SP
from forgetbench.methods.lora import LoRA
from forgetbench.methods.lwf import LwF
from forgetbench.methods.magnitude_mask import MagnitudeMask
from forgetbench.methods.mdgd import MDGD
from forgetbench.methods.mdgd_gm import MDGDGM
from forgetbench.methods.model_tailor import ModelTailor
from forgetbench.methods.moe_lora import MoELoRA
from forgetbench.methods.mr_lora import MRLoRA
from forgetbench.methods.o_lora import OLoRA
from forgetbench.methods.spider import Spider
from forgetbench.methods.ties import Ties
from forgetbench.methods.wise_ft import WiseFT

SCHEMAS: dict[str, type] = {
    "finetune": FinetuneConfig,
    "eval_matrix": EvalMatrixConfig,
    "score": ScoreConfig,
    "sweep": SweepConfig,
    "model": ModelConfig,
    "data": DataConfig,
    "recipe": RecipeConfig,
    "matrix": MatrixConfig,
    "engine": EngineConfig,
    "method/plain": Method,
    "method/lora": LoRA,
    "method/rslora": LoRA,
    "method/dora": LoRA,
    "method/inc_lora": IncLoRA,
    "method/o_lora": OLoRA,
    "method/moe_lora": MoELoRA,
    "method/mr_lora": MRLoRA,
    "method/l2sp": L2SP,
    "method/ewc": EWC,
    "method/lwf": LwF,
    "method/hft": HFT,
    "method/gmt": GMT,
    "method/spider": Spider,
    "method/magnitude_mask": MagnitudeMask,
    "method/mdgd": MDGD,
    "method/mdgd_gm": MDGDGM,
    "method/wise_ft": WiseFT,
    "method/dare": Dare,
    "method/ties": Ties,
    "method/grafting": Grafting,
    "method/model_tailor": ModelTailor,
}
"""Key -> dataclass; the first default of a YAML in conf/, `/schema/<key>@_here_`, names the schema that checks it."""
