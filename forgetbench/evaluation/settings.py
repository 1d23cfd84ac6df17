"""How a dataset is asked: every setting that can move a prediction."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from forgetbench.core.records import Decoding

_LATER = ("answer_end", "block", "max_thought_tokens", "engine")


@dataclass(frozen=True)
class Settings:
    """The settings of one cell."""

    decoding: Decoding
    precision: str | None = None
    batch_size: int | None = None
    """Batches are composed over the whole dataset; the size can move the last bits of a log-probability."""
    max_new_tokens: int | None = None
    """None: as many as the longest accepted answer needs, and a few more; or nothing is generated."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer."""
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    source: str | None = None
    """The layout of predictions made elsewhere, whose settings are not known."""
    answer_end: bool | None = None
    """True where one option's text begins another's: such candidates are scored with the end of the turn."""
    block: int | None = None
    """So many draws have their batches to themselves (see `sets.BLOCK`); None where there are no more than that."""
    max_thought_tokens: int | None = None
    """Tokens of a thought, besides those of `max_new_tokens`, which count from its end; None: one cap for both."""

    engine: str | None = None
    """What ran the model, with its version, such as `vllm 0.32.0`; None for transformers in this process."""

    @property
    def total_tokens(self) -> int:
        """The most tokens that a reply can have; `max_new_tokens` must be a number."""
        assert self.max_new_tokens is not None
        return self.max_new_tokens + (self.max_thought_tokens or 0)

    @property
    def named(self) -> dict[str, Any]:
        """What a cell's name is made from; settings that came later are in it only where they apply."""
        return {key: value for key, value in asdict(self).items() if key not in _LATER or value is not None}

    def described(self) -> dict[str, Any]:
        """What applies, by name."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}

    @classmethod
    def read(cls, described: str) -> Settings:
        """From what a stored row says, the JSON of `described`."""
        known = json.loads(described)
        return cls(**known | {"decoding": Decoding(known["decoding"]), "stop": tuple(known.get("stop", ()))})
