"""forgetbench: measure catastrophic forgetting in multimodal language models on a 2x2 matrix.

The public names are loaded when they are first asked for, so that `import forgetbench` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetbench.exchange.callback import ForgettingCallback

__version__ = "0.1.0"
__all__ = ["ForgettingCallback", "__version__"]


def __getattr__(name: str) -> Any:
    if name != "ForgettingCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("forgetbench.exchange.callback"), name)
