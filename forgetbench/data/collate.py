"""Encode conversations as model inputs, one sample at a time.

Each sample is processed by itself, so an item's tokens and pixels never depend on the rest of its batch.

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
"""Side lengths in pixels of the blank pictures from which token counts, which may grow in steps, are estimated."""


@dataclass(frozen=True)
class Encoded:
    """A prompt as model inputs: the conversation up to the point where the model replies."""

    tokens: dict[str, Tensor]
    """Per-token inputs, each (T,): input_ids, attention_mask, token types."""
    pictures: dict[str, Tensor]
    """The processor's picture tensors, unchanged."""
    answer_type: int = 0
    """Token type of what follows the prompt."""
    replies: tuple[Reply, ...] = ()
    """Places of earlier replies that may be trained on."""
    replies_error: str = ""
    """Why earlier replies cannot be trained on; empty if they can."""

    @property
    def length(self) -> int:
        """Prompt tokens, picture tokens included."""
        return len(self.tokens["input_ids"])


@dataclass(frozen=True)
class Example:
    """A conversation to train on."""

    prompt: Encoded
    answer: tuple[int, ...]
    """Token ids of the last reply."""
    replies: tuple[tuple[int, int], ...] = ()
    """Start and stop positions of earlier replies in the prompt, which are trained on, too."""

    @property
    def trained(self) -> int:
        """Number of tokens in the loss."""
        return len(self.answer) + sum(stop - start for start, stop in self.replies)

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return self.prompt.length + len(self.answer)

    @property
    def ids_and_labels(self) -> tuple[Tensor, Tensor]:
        """Token ids (T + A,) of the whole conversation, and labels: the same ids, IGNORED outside the loss."""
        ids_T = self.prompt.tokens["input_ids"]
        labels_T = torch.full_like(ids_T, IGNORED)
        for start, stop in self.replies:
            labels_T[start:stop] = ids_T[start:stop]
        answer_A = torch.tensor(self.answer, dtype=ids_T.dtype)
        return torch.cat([ids_T, answer_A]), torch.cat([labels_T, answer_A])


class Encoder:
    """Encodes conversations with a processor's chat template and caches the results."""

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
            max_pixels: pictures are shrunk to this size first, and the image processor may not enlarge them beyond it.
            system_prompt: put before conversations that have no system turn; None leaves it to the template.
            cache_bytes: memory for encoded prompts; the least recently used are dropped first, the newest is kept.
        """
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.pad_id = next(i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0) if i is not None)
        self.template = ChatTemplate(processor, system_prompt)
        # A prefix model's token types mark prompt (0) and answer (1). In other models a type of 1 marks a picture.
        self.needs_pictures = self.template.is_prefix_model
        """Whether every item must show a picture."""
        self.answer_type = int(self.template.is_prefix_model)
        """Token type of answers."""
        self._tokens = ConversationTokenizer(self.tokenizer, [self.template.picture])
        self._marking_processor = copy.copy(processor)
        self._marking_processor.tokenizer = self._tokens
        self._max_pixels = max_pixels
        self.limits = {} if max_pixels is None else _limits(processor.image_processor, max_pixels)
        self._cache: LRUCache[tuple[Turn, ...], Encoded] = LRUCache(
            cache_bytes, getsizeof=lambda encoded: min(_size(encoded), cache_bytes)
        )
        self._counts_of_texts: LRUCache[tuple[Turn, ...], tuple[int, tuple[Reply, ...]]] = LRUCache(65536)
        self.answer_ids = lru_cache(maxsize=65536)(self._answer_ids)

    def prompt(self, sample: Sample) -> Encoded:
        """Encode a conversation up to its last reply, with a cache."""
        if sample.turns not in self._cache:
            self._cache[sample.turns] = self.encode(sample)
        return self._cache[sample.turns]

    def example(self, sample: Sample, train_on: TrainOn = TrainOn.all, train_after_end: bool = False) -> Example:
        """Encode a conversation for training.

        Args:
            sample: the conversation.
            train_on: whether earlier replies are trained on as well as the last reply.
            train_after_end: also train on the text that the template writes after a reply's end token.

        Raises:
            UserError: it cannot be encoded, or its earlier replies cannot be trained on; names the item.
        """
        prompt = self.prompt(sample)
        if prompt.replies_error and train_on is TrainOn.all:
            raise UserError(f"Item '{sample.id}': {prompt.replies_error}.")
        answer = self._reply_ids(sample, train_after_end)
        return Example(prompt, answer, _spans(prompt.replies, train_on, train_after_end))

    def counts(self, sample: Sample, train_on: TrainOn = TrainOn.all, train_after_end: bool = False) -> tuple[int, int]:
        """Number of text tokens of a conversation, and number of tokens in the loss; no picture is opened."""
        if sample.turns not in self._counts_of_texts:
            text, _ = self._marked_text(sample)
            n_tokens = len(self._tokens.ids(text))
            self._counts_of_texts[sample.turns] = n_tokens, self._tokens.replies
        n_tokens, replies = self._counts_of_texts[sample.turns]
        n_answer = len(self._reply_ids(sample, train_after_end))
        spans = _spans(replies, train_on, train_after_end)
        return n_tokens + n_answer, n_answer + sum(stop - start for start, stop in spans)

    def trained(self, sample: Sample, train_on: TrainOn = TrainOn.all, train_after_end: bool = False) -> int:
        """Number of a conversation's tokens in the loss; no picture is opened."""
        if sample.is_question or train_on is TrainOn.last:
            return len(self._reply_ids(sample, train_after_end))
        return self.counts(sample, train_on, train_after_end)[1]

    def estimated_length(self, sample: Sample) -> int:
        """Estimate the tokens of a conversation with its pictures; of a picture, only the header is read."""
        return self.counts(sample)[0] + sum(map(self._estimated_tokens, sample.images))

    def length_bound(self, sample: Sample) -> int:
        """A rough upper bound on a conversation's tokens, without tokenising: each byte of text counts as a token."""
        texts = sum(len(turn.text.encode()) for turn in sample.turns) + len(sample.answer.encode())
        pictures = 2 * sum(self._largest_tokens or self._estimated_tokens(image) for image in sample.images)
        return texts + pictures + self._turn_overhead * (len(sample.turns) + 1)

    @cached_property
    def _turn_overhead(self) -> int:
        """Tokens that the template adds around a turn."""
        return self.counts(Sample.question("", "", "", AnswerKind.text))[0]

    @cached_property
    def _largest_tokens(self) -> int:
        """Tokens of the largest picture that `max_pixels` allows; 0 if there is no limit."""
        return self._tokens_of_area(self._max_pixels) if self._max_pixels else 0

    def _estimated_tokens(self, image: ImageRef) -> int:
        if len(set(self._tokens_by_area.values())) == 1:
            return max(self._tokens_by_area.values())
        return self._tokens_of_area(min(count_pixels(image), self._max_pixels or MAX_PIXELS))

    def _tokens_of_area(self, pixels: int) -> int:
        """Tokens of a picture by its area: interpolated between blank pictures, extrapolated if still growing."""
        *_, (_, before), (largest, last) = self._tokens_by_area.items()
        if pixels > largest and last > before:
            return last * pixels // largest
        return round(float(np.interp(pixels, list(self._tokens_by_area), list(self._tokens_by_area.values()))))

    @cached_property
    def _tokens_by_area(self) -> dict[int, int]:
        """Area of a blank picture in pixels -> its tokens."""
        frame = self._turn_overhead - len(self.answer_ids(""))
        tokens_by_area = {}
        for side in _BLANK_SIDES:
            stream = io.BytesIO()
            Image.new("RGB", (side, side)).save(stream, "PNG")
            sample = Sample.question("", "", "", AnswerKind.text, (ImageRef("", f"blank {side}", stream.getvalue()),))
            tokens_by_area[side**2] = self.encode(sample).length - frame
        return tokens_by_area

    def encode(self, sample: Sample) -> Encoded:
        """Encode a conversation up to its last reply.

        Raises:
            UserError: the template refuses it, or a picture cannot be read; names the item.
        """
        if self.needs_pictures and not sample.images:
            raise UserError(f"Item '{sample.id}' shows no picture, and this kind of model needs one; leave it out.")
        text, replies_error = self._marked_text(sample)
        pictures = [decode_image(image, self._max_pixels) for image in sample.images]
        self._check_shapes(sample, pictures)
        try:
            features = self._marking_processor(
                text=[text],
                # A nested list: LLaVA-OneVision cuts a prompt's only picture into tiles, but not two pictures.
                images=[pictures] if pictures else None,
                return_tensors="pt",
                add_special_tokens=self._needs_first_token(text),
                **(self.limits if pictures else {}),
            )
        except Exception as error:  # processors raise many classes, for example on a picture of extreme shape
            raise UserError(
                f"{_describe(sample)}: the model's processor does not take it ({reason(error)})."
            ) from error
        features.pop("labels", None)  # some processors make labels, which mean nothing in a prompt
        shape = features["input_ids"].shape
        tokens = {key: value[0] for key, value in features.items() if value.shape == shape}
        pictures_in = {key: value for key, value in features.items() if key not in tokens}
        return Encoded(tokens, pictures_in, self.answer_type, self._tokens.replies, replies_error)

    def sent_ids(self, sample: Sample) -> list[int]:
        """Token ids up to the last reply, with one placeholder per picture, which the server's processor expands.

        Raises:
            UserError: the template refuses the conversation; names the item.
        """
        text, _ = self._marked_text(sample)
        token_ids: list[int] = self._tokens([text], add_special_tokens=self._needs_first_token(text))["input_ids"][0]
        return token_ids

    def _needs_first_token(self, text: str) -> bool:
        """Whether the tokenizer should add the first token; not if the template has written it."""
        bos = self.tokenizer.bos_token
        return not (bos and text.startswith(bos))

    def _check_shapes(self, sample: Sample, pictures: Sequence[Image.Image]) -> None:
        """Refuse pictures that the processor would enlarge too far: it scales the short side to a fixed length."""
        size = dict(getattr(self.processor.image_processor, "size", None) or {})
        edge = 0 if size.get("longest_edge") else size.get("shortest_edge") or 0
        for image, picture in zip(sample.images, pictures, strict=True):
            if edge * edge * max(picture.size) / min(picture.size) > MAX_PIXELS:
                raise UserError(
                    f"Item '{sample.id}': picture '{image.name}' is {picture.width} x {picture.height}, which the "
                    f"model's processor would enlarge to over {MAX_PIXELS:,} pixels; crop it, or leave the item out."
                )

    def _marked_text(self, sample: Sample) -> tuple[str, str]:
        """The rendered conversation with texts and replies marked, and why replies could not be marked (or "")."""
        try:
            turns = [self._normalised_reply(turn) for turn in sample.turns]
            protected = [replace(turn, parts=tuple(map(self._protected, turn.parts))) for turn in turns]
            try:
                return self.template.replies(turns, protected), ""
            except ChangedReplyError as error:
                return self.template.render(protected), str(error)
        except ValueError as error:
            raise UserError(f"Item '{sample.id}': {error}.") from error

    def _normalised_reply(self, turn: Turn) -> Turn:
        if turn.speaker is not Speaker.assistant or not self.template.trims_replies:
            return turn
        return replace(turn, parts=(turn.text.strip(),))

    def _protected(self, part: Part) -> Part:
        return self._tokens.protect(part) if isinstance(part, str) else part

    def _reply_ids(self, sample: Sample, train_after_end: bool) -> tuple[int, ...]:
        """Token ids of the last reply; a candidate is stripped of surrounding blanks."""
        answer = sample.answer.strip() if sample.candidates else sample.answer
        return self._checked_answer_ids(sample, answer, after=train_after_end)

    def candidate_ids(self, sample: Sample, end: bool = False) -> list[tuple[int, ...]]:
        """Token ids of each candidate, with or without the end token.

        Raises:
            UserError: the template cannot write a candidate; names the item.
        """
        return [self._checked_answer_ids(sample, text.strip(), end=end) for text in sample.candidates]

    def longest_answer(self, sample: Sample) -> int:
        """Number of tokens of the longest accepted answer or option, end token included.

        Raises:
            UserError: the template cannot write an answer; names the item.
        """
        texts = (*sample.references, *sample.options)
        return max((len(self._checked_answer_ids(sample, text.strip())) for text in texts), default=0)

    def _checked_answer_ids(
        self, sample: Sample, answer: str, end: bool = True, after: bool = False
    ) -> tuple[int, ...]:
        try:
            return self.answer_ids(answer, end=end, after=after)
        except ValueError as error:
            raise UserError(f"Item '{sample.id}': {error}.") from error

    def strip_reply(self, text: str) -> str:
        """Strip a generated text of blanks and of the text that the template puts between prompt and reply."""
        return text.strip().removeprefix(self._before_replies).strip()

    @cached_property
    def _before_replies(self) -> str:
        ids = self._tokens.ids(self.template.reply_form.before)
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    @cached_property
    def _prompt_head(self) -> tuple[str, list[int]]:
        """A prompt and its token ids; replies are tokenised after it."""
        head = self.template.render([Turn(Speaker.user, ("?",))])
        return head, self._tokens.ids(head)

    def _answer_ids(self, answer: str, end: bool = True, after: bool = False) -> tuple[int, ...]:
        """Token ids of a reply as the template writes it.

        The reply is tokenised after a prompt, whose ids are then cut off. Tokenizers that mark word starts would
        otherwise give the reply other ids than in running text.

        Args:
            answer: the reply.
            end: include the end token.
            after: include the text that the template writes after the end token, such as a line break.
        """
        form = self.template.reply_form
        if self.template.trims_replies or not self.template.has_template:
            answer = answer.strip()
        head, head_ids = self._prompt_head
        tail = self.template.last_reply(self._tokens.protect(answer))
        tail += (form.end + (form.after if after else "")) if end else ""
        whole_ids = self._tokens.ids(head + tail)
        if whole_ids[: len(head_ids)] == head_ids:
            return tuple(whole_ids[len(head_ids) :])
        return tuple(self._tokens.ids(tail))


def _describe(sample: Sample) -> str:
    """Name an item and its pictures, for messages."""
    pictures = ", ".join(f"'{image.name}'" for image in sample.images)
    return f"Item '{sample.id}'{f' with {pictures}' if pictures else ''}"


def _spans(replies: Sequence[Reply], train_on: TrainOn, train_after_end: bool) -> tuple[tuple[int, int], ...]:
    """Start and stop of each earlier reply that is trained on."""
    if train_on is TrainOn.last:
        return ()
    return tuple((reply.start, reply.after if train_after_end else reply.stop) for reply in replies)


def _limits(image_processor: Any, max_pixels: int) -> dict[str, Any]:
    """Image processor settings that limit tiles: without them, a shrunk picture is cut into as many tiles as before."""
    if getattr(image_processor, "crop_to_patches", None) is not None:  # InternVL
        tile = image_processor.size["height"] * image_processor.size["width"]
        return {"max_patches": max(1, min(image_processor.max_patches, max_pixels // tile))}
    if getattr(image_processor, "max_image_size", None) is not None:  # Idefics3, SmolVLM
        return {"size": {"longest_edge": min(image_processor.size["longest_edge"], math.isqrt(max_pixels))}}
    return {}


_shared: dict[str, Encoder] = {}


def shared_encoder(processor: Any, model: ModelConfig, digest: str) -> Encoder:
    """The process's encoder for one kind of inputs, so that the points of a sweep share its cache.

    Args:
        processor: as for Encoder.
        model: gives the largest size of pictures and the system prompt.
        digest: of everything that model inputs depend on; a new digest replaces the previous encoder.
    """
    if digest not in _shared:
        _shared.clear()
        _shared[digest] = Encoder(processor, model.max_pixels, model.system_prompt)
    return _shared[digest]


def _size(encoded: Encoded) -> int:
    tensors = (*encoded.tokens.values(), *encoded.pictures.values())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
