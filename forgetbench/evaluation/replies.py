"""What a model wrote, as text: without special tokens, save those that tell its thought from its answer."""

from __future__ import annotations

from collections.abc import Sequence

from forgetbench.core.records import Speaker, Turn
from forgetbench.data.collate import Encoder
from forgetbench.scoring.reply import Marks


class ReplyDecoder:
    """Writes replies of one model."""

    def __init__(self, encoder: Encoder, marks: Marks) -> None:
        """Look at the model's tokens and template.

        Args:
            encoder: of the model.
            marks: what thoughts stand between.
        """
        self._tokenizer = encoder.tokenizer
        special = {i: str(token) for i, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        written = [text for pair in marks for text in pair]
        kept = {i for i, token in special.items() if any(token in text for text in written)}
        self._dropped = set(special) - kept if kept else None
        # A template may begin the thought itself; then the reply has its end only, or neither when it is cut off.
        head = encoder.template.render([Turn(Speaker.user, ("?",))]).rstrip()
        self._opening = next((opening for opening, _ in marks if head.endswith(opening)), "")

    def texts(self, replies: Sequence[Sequence[int]]) -> list[str]:
        """The replies as text, from the beginning of their thought."""
        if self._dropped is None:
            texts = self._tokenizer.batch_decode(replies, skip_special_tokens=True)
        else:
            ids = [[token for token in reply if token not in self._dropped] for reply in replies]
            texts = self._tokenizer.batch_decode(ids, skip_special_tokens=False)
        return [self._opening + text for text in texts]
