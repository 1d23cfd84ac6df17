"""Turn conversations into model inputs, one by one.

Every sample is processed alone, so what a batch contains can never change an item's tokens or pixels.

Shapes: B items, T prompt tokens, A answer tokens.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache
from PIL import Image
from torch import Tensor

from forgetbench.config import ModelConfig, TrainOn
from forgetbench.core.errors import UserError, reason
from forgetbench.core.records import AnswerKind, ImageRef, Part, Sample, Speaker, Turn
from forgetbench.data.pictures import MAX_PIXELS, count_pixels, decode_image
from forgetbench.models.chat_template import ChangedReplyError, ChatTemplate
from forgetbench.models.conversation_tokens import ConversationTokenizer, Reply

IGNORED = -100
PIXELS = ("pixel_values", "pixel_attention_mask")
"""Picture tensors that only a vision tower reads; by far the largest."""
_BLANK_SIDES = (224, 448, 896, 1344)
"""Pixels of the sides of pictures that lengths are estimated by; families that cut tiles grow in steps."""


@dataclass(frozen=True)
class Encoded:
    """One prompt, ready for a model: a conversation up to where the model replies."""

    tokens: dict[str, Tensor]
    """Per-token inputs, each (T,): input_ids, attention_mask, token types."""
    pictures: dict[str, Tensor]
    """The processor's picture tensors, as they came."""
    answer_type: int = 0
    """Token type of what follows the prompt."""
    replies: tuple[Reply, ...] = ()
    """Places of earlier replies that may be trained on."""
    against_replies: str = ""
    """Why they cannot be; empty where they can."""

    @property
    def length(self) -> int:
        """Prompt tokens, picture tokens included."""
        return len(self.tokens["input_ids"])


@dataclass(frozen=True)
class Example:
    """One conversation to train on."""

    prompt: Encoded
    answer: tuple[int, ...]
    """Token ids of the last reply."""
    replies: tuple[tuple[int, int], ...] = ()
    """Tokens of the prompt that are trained on, too: beginning and end of earlier replies."""

    @property
    def trained(self) -> int:
        """Tokens that the loss is taken on."""
        return len(self.answer) + sum(stop - start for start, stop in self.replies)

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return self.prompt.length + len(self.answer)

    @property
    def ids_and_labels(self) -> tuple[Tensor, Tensor]:
        """Token ids (T + A,) of the whole conversation, and the same with IGNORED where no loss is taken."""
        ids_T = self.prompt.tokens["input_ids"]
        labels_T = torch.full_like(ids_T, IGNORED)
        for start, stop in self.replies:
            labels_T[start:stop] = ids_T[start:stop]
        answer_A = torch.tensor(self.answer, dtype=ids_T.dtype)
        return torch.cat([ids_T, answer_A]), torch.cat([labels_T, answer_A])


class Encoder:
    """Renders conversations through a processor's chat template and remembers what it encoded."""

    def __init__(
        self,
        processor: Any,
        max_pixels: int | None = None,
        system_prompt: str | None = None,
        cache_bytes: int = 1 << 30,
    ) -> None:
        """Wrap a processor.

        Args:
            processor: any ProcessorMixin with a tokenizer and an image processor.
            max_pixels: shrink larger pictures first, and keep the image processor from enlarging them beyond it.
            system_prompt: goes before conversations without a system turn of their own; None leaves it to the template.
            cache_bytes: memory for encoded prompts, the least recently used dropped first; the last one stays.
        """
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.pad_id = next(i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0) if i is not None)
        self.template = ChatTemplate(processor, system_prompt)
        # A prefix model's token types tell prompt (0) from answer (1). Elsewhere a token type of 1 means a picture.
        self.needs_pictures = self.template.is_prefix_model
        """Whether every item must show a picture."""
        self.answer_type = int(self.template.is_prefix_model)
        """Token type of answers."""
        self._tokens = ConversationTokenizer(self.tokenizer, [self.template.picture])
        self._marking = copy.copy(processor)
        self._marking.tokenizer = self._tokens
        self._max_pixels = max_pixels
        self.limits = {} if max_pixels is None else _limits(processor.image_processor, max_pixels)
        self._cache: LRUCache[tuple[Turn, ...], Encoded] = LRUCache(
            cache_bytes, getsizeof=lambda encoded: min(_size(encoded), cache_bytes)
        )
        self._texts: LRUCache[tuple[Turn, ...], tuple[int, tuple[Reply, ...]]] = LRUCache(65536)
        self.answer_ids = lru_cache(maxsize=65536)(self._answer_ids)

    def prompt(self, sample: Sample) -> Encoded:
        """A conversation up to its last reply, remembered."""
        if sample.turns not in self._cache:
            self._cache[sample.turns] = self.encode(sample)
        return self._cache[sample.turns]

    def example(self, sample: Sample, train_on: TrainOn = TrainOn.all, train_after_end: bool = False) -> Example:
        """A conversation as it is trained on.

        Args:
            sample: what is said.
            train_on: whether earlier replies are trained on as well as the last one.
            train_after_end: train on what the template writes after a reply's end token, too.

        Raises:
            UserError: it cannot be encoded, or its earlier replies not be trained on; names the item.
        """
        prompt = self.prompt(sample)
        if prompt.against_replies and train_on is TrainOn.all:
            raise UserError(f"Item '{sample.id}': {prompt.against_replies}.")
        answer = self._reply_ids(sample, train_after_end)
        return Example(prompt, answer, _spans(prompt.replies, train_on, train_after_end))

    def counts(self, sample: Sample, train_on: TrainOn = TrainOn.all, train_after_end: bool = False) -> tuple[int, int]:
        """Tokens of a conversation without its pictures', and those that the loss is taken on; no picture is opened."""
        if sample.turns not in self._texts:
            text, _ = self._text(sample)
            n_tokens = len(self._tokens.ids(text))
            self._texts[sample.turns] = n_tokens, self._tokens.replies
        n_tokens, replies = self._texts[sample.turns]
        n_answer = len(self._reply_ids(sample, train_after_end))
        spans = _spans(replies, train_on, train_after_end)
        return n_tokens + n_answer, n_answer + sum(stop - start for start, stop in spans)

    def trained(self, sample: Sample, train_on: TrainOn = TrainOn.all, train_after_end: bool = False) -> int:
        """Tokens of a conversation that the loss is taken on; no picture is opened."""
        if sample.is_question or train_on is TrainOn.last:
            return len(self._reply_ids(sample, train_after_end))
        return self.counts(sample, train_on, train_after_end)[1]

    def estimated_length(self, sample: Sample) -> int:
        """About how many tokens a conversation has, pictures included; their headers are read, no more."""
        return self.counts(sample)[0] + sum(map(self._estimated_tokens, sample.images))

    def length_bound(self, sample: Sample) -> int:
        """A length in tokens that a conversation hardly exceeds, found without tokenising it: a byte is a token."""
        texts = sum(len(turn.text.encode()) for turn in sample.turns) + len(sample.answer.encode())
        pictures = 2 * sum(self._largest_tokens or self._estimated_tokens(image) for image in sample.images)
        return texts + pictures + self._frame * (len(sample.turns) + 1)

    @cached_property
    def _frame(self) -> int:
        """Tokens that the template writes around one turn."""
        return self.counts(Sample.question("", "", "", AnswerKind.text))[0]

    @cached_property
    def _largest_tokens(self) -> int:
        """Tokens of the largest picture that `max_pixels` allows; 0 where it allows all."""
        return self._tokens_of(self._max_pixels) if self._max_pixels else 0

    def _estimated_tokens(self, image: ImageRef) -> int:
        if len(set(self._blanks.values())) == 1:
            return max(self._blanks.values())
        return self._tokens_of(min(count_pixels(image), self._max_pixels or MAX_PIXELS))

    def _tokens_of(self, pixels: int) -> int:
        """Tokens of a picture by its area, between those of blank ones; beyond these they grow on if they did."""
        *_, (_, before), (largest, last) = self._blanks.items()
        if pixels > largest and last > before:
            return last * pixels // largest
        return round(float(np.interp(pixels, list(self._blanks), list(self._blanks.values()))))

    @cached_property
    def _blanks(self) -> dict[int, int]:
        """Pixels of blank pictures -> their tokens."""
        bare = self._frame - len(self.answer_ids(""))
        found = {}
        for side in _BLANK_SIDES:
            stream = io.BytesIO()
            Image.new("RGB", (side, side)).save(stream, "PNG")
            shown = Sample.question("", "", "", AnswerKind.text, (ImageRef("", f"blank {side}", stream.getvalue()),))
            found[side**2] = self.encode(shown).length - bare
        return found

    def encode(self, sample: Sample) -> Encoded:
        """Encode a conversation up to its last reply.

        Raises:
            UserError: the template does not take it, or a picture cannot be read; names the item.
        """
        if self.needs_pictures and not sample.images:
            raise UserError(f"Item '{sample.id}' shows no picture, and this kind of model needs one; leave it out.")
        text, against_replies = self._text(sample)
        pictures = [decode_image(image, self._max_pixels) for image in sample.images]
        self._check_shapes(sample, pictures)
        try:
            features = self._marking(
                text=[text],
                # Nested, as conversations give them: LLaVA-OneVision cuts one picture of a prompt into tiles, not two.
                images=[pictures] if pictures else None,
                return_tensors="pt",
                add_special_tokens=self._needs_first_token(text),
                **(self.limits if pictures else {}),
            )
        # Such as a picture two hundred times as wide as high, or one that becomes 0 pixels high.
        except Exception as error:  # nor are the classes known that processors raise on settings of another kind
            raise UserError(f"{_named(sample)}: the model's processor does not take it ({reason(error)}).") from error
        features.pop("labels", None)  # some processors make them; those of a prompt say nothing
        shape = features["input_ids"].shape
        tokens = {key: value[0] for key, value in features.items() if value.shape == shape}
        pictures_in = {key: value for key, value in features.items() if key not in tokens}
        return Encoded(tokens, pictures_in, self.answer_type, self._tokens.replies, against_replies)

    def sent_ids(self, sample: Sample) -> list[int]:
        """Token ids up to the last reply, with one placeholder for each picture: a server's processor puts in the rest.

        Raises:
            UserError: the template does not take the conversation; names the item.
        """
        text, _ = self._text(sample)
        found: list[int] = self._tokens([text], add_special_tokens=self._needs_first_token(text))["input_ids"][0]
        return found

    def _needs_first_token(self, text: str) -> bool:
        """Whether the tokenizer adds it: a template that writes its own must not be given a second one."""
        bos = self.tokenizer.bos_token
        return not (bos and text.startswith(bos))

    def _check_shapes(self, sample: Sample, pictures: Sequence[Image.Image]) -> None:
        """Refuse what a processor would enlarge beyond all bounds, as it brings the short side to a set length."""
        size = dict(getattr(self.processor.image_processor, "size", None) or {})
        edge = 0 if size.get("longest_edge") else size.get("shortest_edge") or 0
        for image, picture in zip(sample.images, pictures, strict=True):
            if edge * edge * max(picture.size) / min(picture.size) > MAX_PIXELS:
                raise UserError(
                    f"Item '{sample.id}': picture '{image.name}' is {picture.width} x {picture.height}, which the "
                    f"model's processor would enlarge to over {MAX_PIXELS:,} pixels; crop it, or leave the item out."
                )

    def _text(self, sample: Sample) -> tuple[str, str]:
        """The conversation as the template writes it, texts and replies marked; and why replies are not."""
        try:
            turns = [self._as_written(turn) for turn in sample.turns]
            protected = [replace(turn, parts=tuple(map(self._protected, turn.parts))) for turn in turns]
            try:
                return self.template.replies(turns, protected), ""
            except ChangedReplyError as error:
                return self.template.render(protected), str(error)
        except ValueError as error:
            raise UserError(f"Item '{sample.id}': {error}.") from error

    def _as_written(self, turn: Turn) -> Turn:
        if turn.speaker is not Speaker.assistant or not self.template.trims_replies:
            return turn
        return replace(turn, parts=(turn.text.strip(),))

    def _protected(self, part: Part) -> Part:
        return self._tokens.protect(part) if isinstance(part, str) else part

    def _reply_ids(self, sample: Sample, train_after_end: bool) -> tuple[int, ...]:
        """Token ids of the last reply; a candidate is asked for without the blanks around it."""
        answer = sample.answer.strip() if sample.candidates else sample.answer
        return self._ids_of(sample, answer, after=train_after_end)

    def candidate_ids(self, sample: Sample, end: bool = False) -> list[tuple[int, ...]]:
        """Token ids of each candidate, with or without its end.

        Raises:
            UserError: one cannot be written; names the item.
        """
        return [self._ids_of(sample, text.strip(), end=end) for text in sample.candidates]

    def longest_answer(self, sample: Sample) -> int:
        """Tokens of the longest answer that is accepted or offered, its end included.

        Raises:
            UserError: one cannot be written; names the item.
        """
        texts = (*sample.references, *sample.options)
        return max((len(self._ids_of(sample, text.strip())) for text in texts), default=0)

    def _ids_of(self, sample: Sample, answer: str, end: bool = True, after: bool = False) -> tuple[int, ...]:
        try:
            return self.answer_ids(answer, end=end, after=after)
        except ValueError as error:
            raise UserError(f"Item '{sample.id}': {error}.") from error

    def said(self, text: str) -> str:
        """What a model wrote, without what the template writes between the prompt and a reply, and blanks around it."""
        return text.strip().removeprefix(self._before_replies).strip()

    @cached_property
    def _before_replies(self) -> str:
        ids = self._tokens.ids(self.template.reply_form.before)
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    @cached_property
    def _head(self) -> tuple[str, list[int]]:
        """A prompt, and its token ids, that replies are tokenised after."""
        head = self.template.render([Turn(Speaker.user, ("?",))])
        return head, self._tokens.ids(head)

    def _answer_ids(self, answer: str, end: bool = True, after: bool = False) -> tuple[int, ...]:
        """Token ids of a reply as the template would write it.

        Tokenised after a prompt, then the prompt's ids are cut off: tokenisers that mark word starts would otherwise
        give an answer other ids than in running text.

        Args:
            answer: the reply.
            end: with its end token.
            after: with what the template writes after that, such as a line break.
        """
        form = self.template.reply_form
        if self.template.trims_replies or not self.template.has_template:
            answer = answer.strip()
        head, head_ids = self._head
        tail = self.template.last_reply(self._tokens.protect(answer))
        tail += (form.end + (form.after if after else "")) if end else ""
        whole_ids = self._tokens.ids(head + tail)
        if whole_ids[: len(head_ids)] == head_ids:
            return tuple(whole_ids[len(head_ids) :])
        return tuple(self._tokens.ids(tail))


def _named(sample: Sample) -> str:
    """An item and its pictures, for messages."""
    pictures = ", ".join(f"'{image.name}'" for image in sample.images)
    return f"Item '{sample.id}'{f' with {pictures}' if pictures else ''}"


def _spans(replies: Sequence[Reply], train_on: TrainOn, train_after_end: bool) -> tuple[tuple[int, int], ...]:
    """Beginning and end of what is trained on before the last reply."""
    if train_on is TrainOn.last:
        return ()
    return tuple((one.start, one.after if train_after_end else one.stop) for one in replies)


def _limits(image_processor: Any, max_pixels: int) -> dict[str, Any]:
    """Settings of an image processor that would cut even a shrunk picture into as many tiles as ever."""
    if getattr(image_processor, "crop_to_patches", None) is not None:  # InternVL
        tile = image_processor.size["height"] * image_processor.size["width"]
        return {"max_patches": max(1, min(image_processor.max_patches, max_pixels // tile))}
    if getattr(image_processor, "max_image_size", None) is not None:  # Idefics3, SmolVLM
        return {"size": {"longest_edge": min(image_processor.size["longest_edge"], math.isqrt(max_pixels))}}
    return {}


_shared: dict[str, Encoder] = {}


def shared_encoder(processor: Any, model: ModelConfig, digest: str) -> Encoder:
    """The process's encoder of one kind of inputs: points of a sweep train on what the first of them encoded.

    Args:
        processor: as for Encoder.
        model: says how large pictures may be, and the system prompt.
        digest: of all that decides inputs; another one takes the place of the encoder before it.
    """
    if digest not in _shared:
        _shared.clear()
        _shared[digest] = Encoder(processor, model.max_pixels, model.system_prompt)
    return _shared[digest]


def _size(encoded: Encoded) -> int:
    tensors = (*encoded.tokens.values(), *encoded.pictures.values())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
