"""How a dataset is asked: every setting that can change a prediction."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from forgetbench.core.records import Decoding

_LATER_FIELDS = ("answer_end", "block", "max_thought_tokens", "engine")


@dataclass(frozen=True)
class Settings:
    """The settings of one cell."""

    decoding: Decoding
    precision: str | None = None
    batch_size: int | None = None
    """Batches are composed over the whole dataset; the size can move the last bits of a log-probability."""
    max_new_tokens: int | None = None
    """None: the length of the longest accepted answer and a few more; or nothing is generated."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer."""
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    source: str | None = None
    """Layout of predictions that were made elsewhere, with unknown settings."""
    answer_end: bool | None = None
    """True if the text of one option is a prefix of another: then candidates are scored with the end of the turn."""
    block: int | None = None
    """Draws in a block (see `sets.BLOCK`); None if the dataset is one block."""
    max_thought_tokens: int | None = None
    """Cap on a thought; `max_new_tokens` then counts from its end. None: one cap for thought and answer."""

    engine: str | None = None
    """Name and version of the program that ran the model, as in `vllm 0.32.0`; None: transformers in this process."""

    @property
    def total_tokens(self) -> int:
        """The most tokens that a reply can have; `max_new_tokens` must be a number."""
        assert self.max_new_tokens is not None
        return self.max_new_tokens + (self.max_thought_tokens or 0)

    @property
    def named(self) -> dict[str, Any]:
        """The fields that make a cell's name; fields that were added later are included only if they are set."""
        return {key: value for key, value in asdict(self).items() if key not in _LATER_FIELDS or value is not None}

    def described(self) -> dict[str, Any]:
        """The fields that are set, by name."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}

    @classmethod
    def read(cls, described: str) -> Settings:
        """Parse the JSON of `described`, as stored rows have it."""
        known = json.loads(described)
        return cls(**known | {"decoding": Decoding(known["decoding"]), "stop": tuple(known.get("stop", ()))})
