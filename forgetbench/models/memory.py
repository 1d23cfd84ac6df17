"""What training needs of a GPU's memory, by what takes it: arithmetic on sizes, before any weight is read.

Weights, gradients and moments are counted to the byte. Activations are what the backward pass reads again, token by
token and layer by layer (after Korthikanti et al. 2022, arXiv:2205.05198, for layers without dropout whose attention
scores are never written out), under bf16 autocast. Beside h (hidden), f (inner) and q (all queries) of a layer:

    always                  4 n h  inputs of the n norms in fp32
                         4 (q + k)  those of the norms of queries and keys (k wide), where there are some
                              8 q  queries, keys and values (repeated to as many heads), attention's output
                          6 f, 2 f  gate, its activation, the other projection; without a gate one of them
                           4 a + 2 T  of a heads and T tokens that it sees: a sum per head, a row of the mask
    its weights or adapters  10 h  a copy of its input for each of q, k, v, gate, up; without a gate 8 h; 4 h in all
    train                          where the residual stream is bf16 already and only weights train
                         2 q + 2 f  inputs of the output projection and of the last one
                             14 r  between the two matrices of seven adapters of rank r
    its RMSNorms train      4 n h  what they multiply (2 n h in a bf16 stream); 4 (q + k) again

`python -m benchmarks.activations` holds them against the bytes that torch keeps.
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
"""Assumed of an item, besides its picture."""
_NF4_BYTES = 0.516
"""4 bits, and 0.127 of constants that are packed themselves (Dettmers et al. 2023, arXiv:2305.14314)."""
_LOGIT_BYTES = 16
"""Of one logit in fp32: as put out, as read by the loss, its log-probability, its gradient."""
RESERVE_SHARE, RESERVE = 0.1, 1.0
"""Left free: a tenth for fragments and what a step holds for a moment, and 1 GiB for the CUDA context."""


@dataclass(frozen=True)
class Setting:
    """A recipe, as far as memory goes."""

    trained_words: frozenset[str]
    """What trains with its own weights: parts, modules or layers of them."""
    adapted_words: frozenset[str]
    """What has adapters."""
    rank: int
    micro_batch: int
    """Items in one pass on one device."""
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
    """fp32 values that the method keeps for each weight that trains."""
    guarded: bool = False
    """A copy of what changes is asked while it trains (`models.copies.SharedCopy`)."""
    text_tokens: int = PROMPT_TOKENS + ANSWER_TOKENS
    answer_tokens: int = ANSWER_TOKENS

    @property
    def trained(self) -> frozenset[str]:
        """Parts of which something trains; their activations are counted as if all of them did."""
        return frozenset(part_word(word).part for word in self.trained_words)

    @property
    def adapted(self) -> frozenset[str]:
        """Parts with adapters."""
        return frozenset(part_word(word).part for word in self.adapted_words)


@dataclass(frozen=True)
class Estimate:
    """Bytes on each device."""

    weights: float
    gradients: float
    moments: float
    copies: float
    """bf16 copies that autocast makes of fp32 weights, and what the method keeps beside each that trains."""
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.moments + self.copies + self.activations + self.logits

    def fits(self, gib: float) -> bool:
        """Whether a device of this memory holds it, the reserve left free."""
        return self.total / GIB <= gib * (1 - RESERVE_SHARE) - RESERVE


def setting_of(config: FinetuneConfig, devices: int = 1) -> Setting:
    """What of a configuration decides its memory; stages are taken to be trained as the recipe says."""
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
    """Memory of one training step at its largest.

    Raises:
        UserError: more of the last layers are to train than there are.
    """
    if (setting.last_layers or 0) > sizes.language.count:
        raise UserError(
            f"recipe.language_last_layers={setting.last_layers}, but the language model has {sizes.language.count} "
            "layers."
        )
    trains = dict.fromkeys(PARTS, 0)
    for word, count in trained_parameters(sizes, setting).items():
        trains[part_word(word).part] += count
    adapters = setting.rank * sum(_sides(sizes, part_word(word)) for word in setting.adapted_words)
    frozen = {part: sizes.parameters[part] - trains[part] for part in PARTS}
    packed = min(sizes.language.linear, frozen["language"]) if setting.packed else 0
    wide = sum(trains.values()) + adapters
    width = 2 if setting.dtype is Dtype.bf16 else 4
    weights = 4 * wide + width * (sum(frozen.values()) - packed) + _NF4_BYTES * packed
    gradients, moments = 4.0 * wide, (2.03 if setting.eight_bit else 8.0) * wide
    slices = setting.devices if setting.sharded else 1
    if setting.devices > 1 and not setting.sharded:
        gradients *= 2  # DDP's buckets
    # FSDP2 gathers a layer at a time, and the next one while it computes.
    gathered = 8 * sizes.language.linear / sizes.language.count if slices > 1 else 0
    held = {part: sizes.linear[part] if setting.dtype is Dtype.fp32 else 0 for part in _passed(setting)}
    held |= {part: min(sizes.linear[part], trains[part]) for part in setting.trained}
    if "language" in held and (setting.dtype is Dtype.fp32 or _trains_tables(setting)):
        held["language"] += sizes.vocabulary * sizes.language.hidden
    if setting.packed:
        held.pop("language", None)
    copied = width * _copied(sizes, setting) + 4 * adapters if setting.guarded else 0
    return Estimate(
        weights=weights / slices + gathered + copied,
        gradients=gradients / slices,
        moments=moments / slices,
        copies=(4 * setting.kept * wide + (2 * (sum(held.values()) + adapters) if setting.autocast else 0)) / slices,
        activations=setting.micro_batch * _activations(sizes, setting),
        logits=setting.micro_batch * _LOGIT_BYTES * sizes.vocabulary * _positions(sizes, setting),
    )


def _copied(sizes: Sizes, setting: Setting) -> int:
    """Parameters that a guard's copy does not share with the model that trains; its adapters come on top."""
    if setting.sharded and setting.devices > 1:
        return sum(sizes.parameters.values())
    return sum(trained_parameters(sizes, setting).values())


def _trains_tables(setting: Setting) -> bool:
    """Whether the language part's embeddings or head train."""
    words = map(part_word, setting.trained_words)
    return any(word.part == "language" and word.modules & {"embeddings", "head"} for word in words)


def trained_parameters(sizes: Sizes, setting: Setting) -> dict[str, int]:
    """Parameters of its own that each word trains, about: biases are not told apart from norms."""
    found = {word: _parameters(sizes, part_word(word)) for word in sorted(setting.trained_words)}
    if "language" in found and setting.last_layers is not None:
        found["language"] = sizes.language.linear * setting.last_layers // sizes.language.count
    return found


def _parameters(sizes: Sizes, word: PartWord) -> int:
    """Of a model, those that a word covers."""
    whole, layers = sizes.parameters[word.part], _stack(sizes, word.part)
    if word.part == "projector":
        return whole if word.module in (None, "mlp") else 0
    if word.layers:
        norms = layers.norms * layers.hidden * layers.count
        inside = {**layers.entries, "norms": norms}
        return sum(inside.get(module, 0) for module in word.modules) * _depth(word, layers) // layers.count
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


def _sides(sizes: Sizes, word: PartWord) -> int:
    """Inputs plus outputs over the linear layers that get adapters; a projector's are not worth telling."""
    if word.part == "projector":
        return 0
    layers = _stack(sizes, word.part)
    return sum(layers.sides.get(module, 0) for module in word.modules) * _depth(word, layers) // layers.count


def _depth(word: PartWord, layers: Layers) -> int:
    """How many layers it covers.

    Raises:
        UserError: it names more than there are.
    """
    if word.layers is None:
        return layers.count
    if word.layers[1] >= layers.count:
        raise UserError(
            f"recipe.parts: '{word}': this model's {word.part} part has {layers.count} layers, from 0 to "
            f"{layers.count - 1}."
        )
    return word.layers[1] - word.layers[0] + 1


def _lowest(words: Iterable[str]) -> int:
    """The first language layer that gradients reach, if nothing before the language part trains."""
    read = [part_word(word) for word in words]
    return min((word.layers[0] if word.layers else 0) for word in read)


def _stack(sizes: Sizes, part: str) -> Layers:
    return sizes.vision if part == "vision" else sizes.language


def _passed(setting: Setting) -> Collection[str]:
    """Parts that gradients pass through: the first that trains and all after it."""
    first = min(PARTS.index(part) for part in setting.trained | setting.adapted)
    return PARTS[first:]


def _positions(sizes: Sizes, setting: Setting) -> int:
    return setting.answer_tokens + 1 if sizes.keeps_logits else sizes.tokens + setting.text_tokens


def _activations(sizes: Sizes, setting: Setting) -> float:
    """Bytes of one item."""
    passed, tokens = _passed(setting), sizes.tokens + setting.text_tokens
    layers = sizes.language
    if passed == ("language",) and setting.last_layers is not None:
        layers = replace(layers, count=setting.last_layers)
    elif passed == ("language",):
        layers = replace(layers, count=layers.count - _lowest(setting.trained_words | setting.adapted_words))
    found = _of_layers(layers, tokens, tokens, setting, "language") + 8 * layers.hidden * tokens  # and of the last norm
    if "vision" in passed:
        found += _of_layers(sizes.vision, sizes.patches, sizes.tile or sizes.patches, setting, "vision")
    if "projector" in passed:
        found += 8 * sizes.language.hidden * sizes.tokens  # two layers and what is between them
    return found


def _of_layers(layers: Layers, tokens: int, seen: int, setting: Setting, part: str) -> float:
    """Bytes of all layers; each token sees so many."""
    whole = tokens * _per_token(layers, seen, setting, part)
    if not setting.checkpointing:
        return layers.count * whole
    narrow = setting.dtype is Dtype.bf16 and part not in setting.trained
    return layers.count * tokens * layers.hidden * (2 if narrow else 4) + whole


def _per_token(layers: Layers, tokens: int, setting: Setting, part: str) -> float:
    """Bytes of a token in one layer: the table above."""
    h, f, q, k = layers.hidden, layers.inner, layers.query, layers.key_value
    gated, narrow = layers.gated, layers.narrow and part not in setting.adapted
    in_fp32 = 4.0 * layers.norms * h + (4 * (q + k) if layers.head_norms else 0)
    found = in_fp32 + 8 * q + (6 if gated else 2) * f + 4 * layers.heads + 2 * tokens
    if part in setting.trained | setting.adapted:
        found += (4 if narrow else 10 if gated else 8) * h + 2 * q + 2 * f
    if part in setting.adapted:
        found += 14 * setting.rank
    if part in setting.trained and gated:
        found += in_fp32 / 2 if narrow else in_fp32
    if setting.eager:
        found += 6 * layers.heads * tokens  # the scores' softmax in fp32, and in bf16
    return found if setting.autocast else 2 * found - in_fp32
