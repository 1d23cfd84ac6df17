"""The methods that act during training, by the names of their configurations."""

from __future__ import annotations

from collections.abc import Callable

from forgetbench.methods.base import Method
from forgetbench.methods.lora import LoRA
from forgetbench.methods.operation import Operation
from forgetbench.methods.registry import SCHEMAS

DURING: dict[str, Callable[[], Method]] = {
    key.partition("/")[2]: cls
    for key, cls in SCHEMAS.items()
    if key.startswith("method/") and not issubclass(cls, Operation)
} | {"rslora": lambda: LoRA(rank_stabilised=True), "dora": lambda: LoRA(weight_decomposed=True)}
ADAPTERS = {"lora", "rslora", "dora", "inc_lora", "o_lora", "moe_lora", "mr_lora"}
