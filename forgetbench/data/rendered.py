"""An item as a model gets it: the text with its special tokens, and how many tokens text and pictures are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from forgetbench.core.records import Sample
from forgetbench.data.collate import Encoder, Example

_REPEATED = re.compile(r"(<[^<>\s]+>)\1{3,}")
"""A special token that stands for a picture, once for each of its tokens."""


@dataclass(frozen=True)
class Rendered:
    """One conversation, rendered."""

    prompt: str
    """Up to the last reply, special tokens as they are; a token many times in a row once, with how often."""
    reply: str
    """What is trained on, its end token too."""
    text_tokens: int
    """Of the prompt, what is no picture's."""
    picture_tokens: int
    """Of the prompt, those that stand for pictures."""
    n_pictures: int
    reply_tokens: int

    @property
    def counted(self) -> str:
        """Its length in words."""
        total = self.text_tokens + self.picture_tokens + self.reply_tokens
        pictures = f"{self.picture_tokens} of {self.n_pictures} picture{'s' * (self.n_pictures != 1)}"
        return f"{total}: {self.text_tokens} of text, {pictures}, {self.reply_tokens} of the reply"


def render(encoder: Encoder, sample: Sample) -> Rendered:
    """An item as training gives it to a model.

    Raises:
        UserError: it cannot be encoded; names the item.
    """
    example = encoder.example(sample)
    pictures = _picture_tokens(encoder, sample, example)
    shown = encoder.tokenizer.decode(example.prompt.tokens["input_ids"], skip_special_tokens=False)
    return Rendered(
        prompt=_REPEATED.sub(lambda found: f"{found[1]} (x {len(found[0]) // len(found[1])})", shown),
        reply=str(encoder.tokenizer.decode(list(example.answer), skip_special_tokens=False)),
        text_tokens=example.prompt.length - pictures,
        picture_tokens=pictures,
        n_pictures=len(sample.images),
        reply_tokens=len(example.answer),
    )


def _picture_tokens(encoder: Encoder, sample: Sample, example: Example) -> int:
    """Those of the token that stands for pictures, or else what the pictures add to the prompt."""
    token = getattr(encoder.processor, "image_token_id", None)
    if token is not None:
        return int((example.prompt.tokens["input_ids"] == token).sum())
    blind = [replace(turn, parts=tuple(part for part in turn.parts if isinstance(part, str))) for turn in sample.turns]
    text = encoder.counts(replace(sample, turns=tuple(blind)))[0] - len(example.answer)
    return example.prompt.length - text
