"""forgetbench: measure catastrophic forgetting in multimodal language models on a 2x2 matrix.

The public names are loaded when they are first asked for, so that `import forgetbench` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetbench.api import (
        ComparisonResult,
        ReportResult,
        RunResult,
        SweepResult,
        UserError,
        compare,
        eval_matrix,
        finetune,
        report,
        show,
        sweep,
    )
    from forgetbench.exchange.callback import ForgettingCallback

__version__ = "0.1.0"
__all__ = [
    "ComparisonResult",
    "ForgettingCallback",
    "ReportResult",
    "RunResult",
    "SweepResult",
    "UserError",
    "__version__",
    "compare",
    "eval_matrix",
    "finetune",
    "report",
    "show",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = "forgetbench.exchange.callback" if name == "ForgettingCallback" else "forgetbench.api"
    return getattr(import_module(room), name)


def __dir__() -> list[str]:
    return __all__
