"""Model FLOPs of a training step, and what share of a GPU's peak they are (MFU).

As PaLM counts them (Chowdhery et al. 2022, arXiv:2204.02311, appendix B): 6 for each weight and token of what trains,
of which 2 are forward, and 12 L a d T for attention over T tokens in L layers of a heads of size d, causal or not.
What gradient checkpointing computes again is not counted: MFU is about the model's work, not the hardware's. A frozen
tower and projector are passed forward only, a third of it. Embeddings are looked up, which is no operation, and the
head is counted at the positions that it is asked for. Padding is not counted, nor is the convolution that cuts
patches; a tower with windows is counted as if each patch met all others (2 % too much at Qwen2.5-VL-3B).
"""

from __future__ import annotations

from collections.abc import Mapping

from forgetbench.models.sizes import Layers, Sizes

PEAKS: Mapping[str, float] = {
    "B200": 2250e12,
    "GH200": 989.4e12,
    "H200": 989.4e12,
    "H100 PCIe": 756.5e12,
    "H100 NVL": 835.5e12,
    "H100": 989.4e12,
    "A100": 312e12,
    "L40S": 362.05e12,
    "RTX 4090": 165.2e12,
}
"""Dense bf16 operations a second by what a device's name contains, the longer name first; from NVIDIA's data sheets."""


def peak(device_name: str) -> float | None:
    """Of a device, as torch names it; None if it is not in the table."""
    return next((value for name, value in PEAKS.items() if name in device_name), None)


def attention(layers: Layers, tokens: int, seen: int) -> float:
    """Forward operations of queries with keys, and of scores with values; each token meets `seen` others."""
    return 4.0 * layers.count * layers.query * tokens * seen


def training_step(sizes: Sizes, text_tokens: int, answer_tokens: int, items: int) -> float:
    """Of a step that trains the language part alone.

    Args:
        sizes: of the model, with the item's picture.
        text_tokens: of an item, answer included.
        answer_tokens: of these.
        items: in the step.
    """
    tokens = sizes.tokens + text_tokens
    language = sizes.language
    forward = 2.0 * language.linear * tokens + attention(language, tokens, tokens)
    positions = answer_tokens + 1 if sizes.keeps_logits else tokens
    forward += 2.0 * language.hidden * sizes.vocabulary * positions
    seeing = 2.0 * sizes.vision.linear * sizes.patches
    seeing += attention(sizes.vision, sizes.patches, sizes.tile or sizes.patches)
    seeing += 2.0 * sizes.parameters["projector"] * sizes.tokens
    return items * (3 * forward + seeing)
