"""Estimate the GPU memory of training by category, from a model's sizes, without reading weights.

Weights, gradients and moments are counted exactly. Activations are the tensors that the backward pass reads, per token
and layer, under bf16 autocast (after Korthikanti et al. 2022, arXiv:2205.05198, for layers without dropout that never
store attention scores). In bytes, with h (hidden), f (inner) and q (all queries) of a layer:

    always                  4 n h  inputs of the n norms in fp32
                         4 (q + k)  inputs of the norms of queries and keys (k wide), if there are any
                              8 q  queries, keys and values (repeated to as many heads), attention's output
                          6 f, 2 f  gate, its activation, the other projection; without a gate a single projection
                           4 a + 2 T  for a heads and T visible tokens: a sum per head, a row of the mask
    its weights or adapters  10 h  a copy of its input for each of q, k, v, gate, up; without a gate 8 h; 4 h in all
    train                          if the residual stream is bf16 already and only weights train
                         2 q + 2 f  inputs of the attention's output projection and of the last projection
                             14 r  between the two matrices of seven adapters of rank r
    its RMSNorms train      4 n h  their normalised inputs (2 n h in a bf16 stream); 4 (q + k) again

`python -m benchmarks.activations` compares the estimate with the bytes that torch keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from forgetbench.config import Dtype, FinetuneConfig, Optimiser, Quantisation, Sharding
from forgetbench.core.errors import UserError
from forgetbench.core.part_words import PartWord, part_word
from forgetbench.core.records import PARTS, Precision
from forgetbench.models.sizes import Layers, Sizes

GIB = 1 << 30
PROMPT_TOKENS, ANSWER_TOKENS = 64, 8
"""Assumed tokens of an item, besides its picture."""
_NF4_BYTES = 0.516
"""Bytes per weight: 4 bits, plus 0.127 bits of double-quantised constants (Dettmers et al. 2023, arXiv:2305.14314)."""
_LOGIT_BYTES = 16
"""Bytes per logit in fp32: the output, its copy in the loss, its log-probability, its gradient."""
RESERVE_SHARE, RESERVE = 0.1, 1.0
"""Memory left free: a tenth for fragmentation and temporary tensors, and 1 GiB for the CUDA context."""


@dataclass(frozen=True)
class Setting:
    """The settings of a recipe that determine its memory."""

    trained_words: frozenset[str]
    """Parts, modules or layers whose weights train."""
    adapted_words: frozenset[str]
    """Parts, modules or layers with adapters."""
    rank: int
    micro_batch: int
    """Items per pass and device."""
    dtype: Dtype
    packed: bool
    eight_bit: bool
    checkpointing: bool
    autocast: bool
    eager: bool
    last_layers: int | None = None
    devices: int = 1
    sharded: bool = False
    kept: float = 0.0
    """fp32 values that the method keeps for each trained weight."""
    guarded: bool = False
    """A guard scores a second copy of the changing weights during training (`models.copies.SharedCopy`)."""
    text_tokens: int = PROMPT_TOKENS + ANSWER_TOKENS
    answer_tokens: int = ANSWER_TOKENS

    @property
    def trained(self) -> frozenset[str]:
        """Parts with trained weights; their activations are counted as if the whole part trained."""
        return frozenset(part_word(word).part for word in self.trained_words)

    @property
    def adapted(self) -> frozenset[str]:
        """Parts with adapters."""
        return frozenset(part_word(word).part for word in self.adapted_words)


@dataclass(frozen=True)
class Estimate:
    """Bytes per device."""

    weights: float
    gradients: float
    moments: float
    copies: float
    """bf16 copies that autocast makes of fp32 weights, and the method's values per trained weight."""
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """Sum of all categories."""
        return self.weights + self.gradients + self.moments + self.copies + self.activations + self.logits

    def fits(self, gib: float) -> bool:
        """Whether it fits on a device with this memory, with the reserve left free."""
        return self.total / GIB <= gib * (1 - RESERVE_SHARE) - RESERVE


def setting_of(config: FinetuneConfig, devices: int = 1) -> Setting:
    """The memory settings of a configuration; all stages are assumed to train as the recipe says."""
    recipe, adapted = config.recipe, frozenset(config.method.adapted_parts())
    passes = recipe.gradient_accumulation * devices
    return Setting(
        trained_words=frozenset(recipe.parts) - adapted,
        adapted_words=adapted,
        rank=int(getattr(config.method, "rank", 0)),
        micro_batch=max(1, -(-recipe.batch_size // passes)),
        dtype=config.model.dtype,
        packed=config.model.quantisation is Quantisation.nf4,
        eight_bit=recipe.optimiser is Optimiser.adamw_8bit,
        checkpointing=recipe.gradient_checkpointing,
        autocast=recipe.precision is Precision.bf16,
        eager=config.model.attention == "eager",
        last_layers=recipe.language_last_layers,
        devices=devices,
        sharded=config.sharding is Sharding.fsdp2,
        kept=config.method.copies(),
        guarded=config.guard.is_on,
    )


def estimate(sizes: Sizes, setting: Setting) -> Estimate:
    """Peak memory of a training step.

    Raises:
        UserError: `recipe.language_last_layers` exceeds the number of layers.
    """
    if (setting.last_layers or 0) > sizes.language.count:
        raise UserError(
            f"recipe.language_last_layers={setting.last_layers}, but the language model has {sizes.language.count} "
            "layers."
        )
    trained_of_part = dict.fromkeys(PARTS, 0)
    for word, count in trained_parameters(sizes, setting).items():
        trained_of_part[part_word(word).part] += count
    adapters = setting.rank * sum(_adapter_width(sizes, part_word(word)) for word in setting.adapted_words)
    frozen = {part: sizes.parameters[part] - trained_of_part[part] for part in PARTS}
    packed = min(sizes.language.linear, frozen["language"]) if setting.packed else 0
    n_trained = sum(trained_of_part.values()) + adapters
    width = 2 if setting.dtype is Dtype.bf16 else 4
    weights = 4 * n_trained + width * (sum(frozen.values()) - packed) + _NF4_BYTES * packed
    gradients, moments = 4.0 * n_trained, (2.03 if setting.eight_bit else 8.0) * n_trained
    slices = setting.devices if setting.sharded else 1
    if setting.devices > 1 and not setting.sharded:
        gradients *= 2  # DDP's buckets
    # FSDP2 gathers a layer at a time, and prefetches the next layer during computation.
    gathered = 8 * sizes.language.linear / sizes.language.count if slices > 1 else 0
    cast_weights = {
        part: sizes.linear[part] if setting.dtype is Dtype.fp32 else 0 for part in _parts_with_gradients(setting)
    }
    cast_weights |= {part: min(sizes.linear[part], trained_of_part[part]) for part in setting.trained}
    if "language" in cast_weights and (setting.dtype is Dtype.fp32 or _trains_embeddings(setting)):
        cast_weights["language"] += sizes.vocabulary * sizes.language.hidden
    if setting.packed:
        cast_weights.pop("language", None)
    copied = width * _copied(sizes, setting) + 4 * adapters if setting.guarded else 0
    return Estimate(
        weights=weights / slices + gathered + copied,
        gradients=gradients / slices,
        moments=moments / slices,
        copies=(4 * setting.kept * n_trained + (2 * (sum(cast_weights.values()) + adapters) if setting.autocast else 0))
        / slices,
        activations=setting.micro_batch * _activations(sizes, setting),
        logits=setting.micro_batch * _LOGIT_BYTES * sizes.vocabulary * _positions(sizes, setting),
    )


def _copied(sizes: Sizes, setting: Setting) -> int:
    """Number of parameters that a guard's copy does not share with the training model, without its adapters."""
    if setting.sharded and setting.devices > 1:
        return sum(sizes.parameters.values())
    return sum(trained_parameters(sizes, setting).values())


def _trains_embeddings(setting: Setting) -> bool:
    """Whether the language part's embeddings or head train."""
    words = map(part_word, setting.trained_words)
    return any(word.part == "language" and word.modules & {"embeddings", "head"} for word in words)


def trained_parameters(sizes: Sizes, setting: Setting) -> dict[str, int]:
    """Approximate number of trained weights for each word; biases are counted as norms."""
    counts = {word: _parameters(sizes, part_word(word)) for word in sorted(setting.trained_words)}
    if "language" in counts and setting.last_layers is not None:
        counts["language"] = sizes.language.linear * setting.last_layers // sizes.language.count
    return counts


def _parameters(sizes: Sizes, word: PartWord) -> int:
    """Number of a model's parameters that a word covers."""
    whole, layers = sizes.parameters[word.part], _stack(sizes, word.part)
    if word.part == "projector":
        return whole if word.module in (None, "mlp") else 0
    if word.layers:
        norms = layers.norms * layers.hidden * layers.count
        inside = {**layers.entries, "norms": norms}
        return sum(inside.get(module, 0) for module in word.modules) * _n_layers(word, layers) // layers.count
    if word.module is None:
        return whole
    rest = whole - layers.linear
    if word.part == "language":
        table = sizes.vocabulary * layers.hidden
        outside = {"embeddings": table, "head": table if rest >= 2 * table else 0}
        outside["norms"] = rest - sum(outside.values())
    else:
        outside = {"norms": layers.norms * layers.hidden * layers.count}
        outside["embeddings"] = rest - outside["norms"]
    inside = {**layers.entries, **outside}
    return sum(inside.get(module, 0) for module in word.modules)


def _adapter_width(sizes: Sizes, word: PartWord) -> int:
    """Inputs plus outputs of the linear layers that get adapters; a projector's few are neglected."""
    if word.part == "projector":
        return 0
    layers = _stack(sizes, word.part)
    return sum(layers.sides.get(module, 0) for module in word.modules) * _n_layers(word, layers) // layers.count


def _n_layers(word: PartWord, layers: Layers) -> int:
    """Number of layers that a word covers.

    Raises:
        UserError: it names layers that the model does not have.
    """
    if word.layers is None:
        return layers.count
    if word.layers[1] >= layers.count:
        raise UserError(
            f"recipe.parts: '{word}': this model's {word.part} part has {layers.count} layers, from 0 to "
            f"{layers.count - 1}."
        )
    return word.layers[1] - word.layers[0] + 1


def _first_layer(words: Iterable[str]) -> int:
    """The first language layer that gradients reach, if no part before the language part trains."""
    parsed = [part_word(word) for word in words]
    return min((word.layers[0] if word.layers else 0) for word in parsed)


def _stack(sizes: Sizes, part: str) -> Layers:
    return sizes.vision if part == "vision" else sizes.language


def _parts_with_gradients(setting: Setting) -> Collection[str]:
    """Parts that gradients pass through: the first trained part and all later parts."""
    first = min(PARTS.index(part) for part in setting.trained | setting.adapted)
    return PARTS[first:]


def _positions(sizes: Sizes, setting: Setting) -> int:
    return setting.answer_tokens + 1 if sizes.keeps_logits else sizes.tokens + setting.text_tokens


def _activations(sizes: Sizes, setting: Setting) -> float:
    """Bytes of activations per item."""
    parts, tokens = _parts_with_gradients(setting), sizes.tokens + setting.text_tokens
    layers = sizes.language
    if parts == ("language",) and setting.last_layers is not None:
        layers = replace(layers, count=setting.last_layers)
    elif parts == ("language",):
        layers = replace(layers, count=layers.count - _first_layer(setting.trained_words | setting.adapted_words))
    n_bytes = (
        _layer_activations(layers, tokens, tokens, setting, "language") + 8 * layers.hidden * tokens
    )  # 8 h: the last norm
    if "vision" in parts:
        n_bytes += _layer_activations(sizes.vision, sizes.patches, sizes.tile or sizes.patches, setting, "vision")
    if "projector" in parts:
        n_bytes += 8 * sizes.language.hidden * sizes.tokens  # two layers and the activation between them
    return n_bytes


def _layer_activations(layers: Layers, tokens: int, visible: int, setting: Setting, part: str) -> float:
    """Bytes of activations in all layers; each token attends to `visible` tokens."""
    per_layer = tokens * _bytes_per_token(layers, visible, setting, part)
    if not setting.checkpointing:
        return layers.count * per_layer
    is_bf16 = setting.dtype is Dtype.bf16 and part not in setting.trained
    return layers.count * tokens * layers.hidden * (2 if is_bf16 else 4) + per_layer


def _bytes_per_token(layers: Layers, visible: int, setting: Setting, part: str) -> float:
    """Bytes of activations per token and layer, by the table above."""
    h, f, q, k = layers.hidden, layers.inner, layers.query, layers.key_value
    has_gate, is_bf16 = layers.gated, layers.narrow and part not in setting.adapted
    in_fp32 = 4.0 * layers.norms * h + (4 * (q + k) if layers.head_norms else 0)
    n_bytes = in_fp32 + 8 * q + (6 if has_gate else 2) * f + 4 * layers.heads + 2 * visible
    if part in setting.trained | setting.adapted:
        n_bytes += (4 if is_bf16 else 10 if has_gate else 8) * h + 2 * q + 2 * f
    if part in setting.adapted:
        n_bytes += 14 * setting.rank
    if part in setting.trained and has_gate:
        n_bytes += in_fp32 / 2 if is_bf16 else in_fp32
    if setting.eager:
        n_bytes += 6 * layers.heads * visible  # softmax of the attention scores in fp32 and in bf16
    return n_bytes if setting.autocast else 2 * n_bytes - in_fp32
