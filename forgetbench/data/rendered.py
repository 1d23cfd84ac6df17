"""Render an item as the model reads it: the text with special tokens, and the token counts of text and pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from forgetbench.core.records import Sample
from forgetbench.data.collate import Encoder, Example

_REPEATED = re.compile(r"(<[^<>\s]+>)\1{3,}")
"""A special token that is repeated for each token of a picture."""


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation."""

    prompt: str
    """Text up to the last reply, with special tokens; a repeated token is shown once, with its count."""
    reply: str
    """The reply that is trained on, with its end token."""
    text_tokens: int
    """Tokens of the prompt that do not stand for pictures."""
    picture_tokens: int
    """Tokens of the prompt that stand for pictures."""
    n_pictures: int
    reply_tokens: int

    @property
    def counted(self) -> str:
        """The token counts as a sentence."""
        total = self.text_tokens + self.picture_tokens + self.reply_tokens
        pictures = f"{self.picture_tokens} of {self.n_pictures} picture{'s' * (self.n_pictures != 1)}"
        return f"{total}: {self.text_tokens} of text, {pictures}, {self.reply_tokens} of the reply"


def render(encoder: Encoder, sample: Sample) -> Rendered:
    """Render an item as it is given to the model in training.

    Raises:
        UserError: it cannot be encoded; names the item.
    """
    example = encoder.example(sample)
    pictures = _picture_tokens(encoder, sample, example)
    text = encoder.tokenizer.decode(example.prompt.tokens["input_ids"], skip_special_tokens=False)
    return Rendered(
        prompt=_REPEATED.sub(lambda match: f"{match[1]} (x {len(match[0]) // len(match[1])})", text),
        reply=str(encoder.tokenizer.decode(list(example.answer), skip_special_tokens=False)),
        text_tokens=example.prompt.length - pictures,
        picture_tokens=pictures,
        n_pictures=len(sample.images),
        reply_tokens=len(example.answer),
    )


def _picture_tokens(encoder: Encoder, sample: Sample, example: Example) -> int:
    """Number of picture tokens in the prompt, or (without such a token) the tokens that pictures add to it."""
    token = getattr(encoder.processor, "image_token_id", None)
    if token is not None:
        return int((example.prompt.tokens["input_ids"] == token).sum())
    blind = [replace(turn, parts=tuple(part for part in turn.parts if isinstance(part, str))) for turn in sample.turns]
    text = encoder.counts(replace(sample, turns=tuple(blind)))[0] - len(example.answer)
    return example.prompt.length - text
