"""forgetbench: measure catastrophic forgetting in multimodal language models on a 2x2 matrix."""

__version__ = "0.1.0"
