"""Ask a model one batch of a dataset: likelihoods over the candidates, or text.

Shapes: B items, T tokens, C candidates of some items, S tokens of a candidate without its last, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from forgetbench.core.errors import UserError
from forgetbench.core.records import THOUGHT_MARKS, Decoding, Prediction, Sample
from forgetbench.data.batching import append_tokens, batch_prompts, has_own_positions
from forgetbench.data.collate import IGNORED, Encoded, Encoder
from forgetbench.evaluation.batches import BatchedSet, differ_in_last_token
from forgetbench.evaluation.features import FeatureCache
from forgetbench.evaluation.replies import ReplyDecoder
from forgetbench.evaluation.sampling import ItemNoise
from forgetbench.evaluation.settings import Settings
from forgetbench.evaluation.stopping import ThoughtThenAnswer
from forgetbench.methods.task_router import task_router
from forgetbench.models.features import PictureEncoder
from forgetbench.models.load import LoadedModel
from forgetbench.scoring.reply import Marks

T = TypeVar("T")
Candidate = tuple[int, tuple[int, ...]]
"""(Row of the item in the batch, token ids of the candidate)."""


@dataclass(frozen=True)
class _Batch:
    """One batch, ready for the model."""

    samples: Sequence[Sample]
    prompts: Sequence[Encoded]
    candidates: Sequence[Sequence[tuple[int, ...]]]
    features: Mapping[str, Any]
    """Picture features as model inputs; empty if the prompts contain pixels."""


class Engine:
    """Asks one loaded model; its weights may be swapped between calls."""

    def __init__(
        self,
        loaded: LoadedModel,
        encoder: Encoder,
        feature_bytes: int = 1 << 31,
        marks: Marks = THOUGHT_MARKS,
        device: str | None = None,
    ) -> None:
        """Use a model in evaluation mode and without gradients.

        Args:
            loaded: the model.
            encoder: of the same model.
            feature_bytes: memory for picture features; 0 encodes every picture every time.
            marks: begin and end marks of thoughts; kept in the text even if they are special tokens.
            device: to run it on; None for a GPU if there is one.
        """
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # Frozen weights must give the same bits: torch sums in another order for weights with gradients.
        self._model = loaded.model.to(self._device).requires_grad_(False)
        self._keeps_logits, self._reuses_prefix = loaded.keeps_logits, loaded.reuses_prefix
        self._encoder = encoder
        ends = end_tokens(encoder, loaded.model.generation_config, loaded.model.config)
        self._replies = ReplyDecoder(encoder, marks, ends)
        self._generation = GenerationConfig(
            do_sample=False,
            num_beams=1,
            use_cache=True,
            pad_token_id=encoder.pad_id,
            bos_token_id=encoder.tokenizer.bos_token_id,
            eos_token_id=ends,
        )
        self._features = FeatureCache(PictureEncoder(loaded.model), feature_bytes)
        self._router = task_router(loaded.model)

    def set_picture_state(self, picture_state: str) -> None:
        """Tell the engine that the weights were swapped.

        Args:
            picture_state: digest of the changed weights of vision tower and projector; empty at the base.
        """
        self._features.set_state(picture_state)

    def answer(self, dataset: BatchedSet, number: int, settings: Settings) -> list[Prediction]:
        """The predictions for one batch, in its order; `max_new_tokens` must be a number if text is wanted."""
        items = dataset.batches[number]
        choice = settings.decoding is Decoding.choice
        repeats = choice and not self._reuses_prefix and not differ_in_last_token(dataset.candidates[items[0]])
        self._model.eval()
        bf16 = settings.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
            features = {} if repeats else self._features.inputs(dataset, number, self._to_device)
            batch = _Batch(
                samples=[dataset.samples[item] for item in items],
                prompts=[dataset.prompts.prompt(item, pixels=not features) for item in items],
                candidates=[dataset.candidates[item] for item in items],
                features=features,
            )
            if self._router:
                inputs = batch_prompts(batch.prompts, self._encoder.pad_id)
                run = partial(self._forward, inputs, features, keep=1)
                self._router.decide(self._model, run, inputs["attention_mask"])
            return self._score_candidates(batch) if choice else self._generate(batch, settings)

    def _score_candidates(self, batch: _Batch) -> list[Prediction]:
        """Log-probability of every candidate of every item.

        If the candidates of an item differ in their last token only (letters; yes and no), one forward pass scores
        them all. Other candidates are scored as the sum over their tokens.
        """
        if differ_in_last_token(batch.candidates[0]):
            return [
                _refuse_nan(prediction, sample)
                for prediction, sample in zip(self._score_last_tokens(batch), batch.samples, strict=True)
            ]
        flat = [(row, ids) for row, candidates in enumerate(batch.candidates) for ids in candidates]
        totals = (
            self._score_with_cached_prefix(batch, flat)
            if self._reuses_prefix
            else self._score_full_sequences(batch, flat)
        )
        sums: list[list[float]] = [[] for _ in batch.samples]
        for (row, _), total in zip(flat, totals, strict=True):
            sums[row].append(total)
        predictions = [Prediction(option_logprobs=tuple(logprobs)) for logprobs in sums]
        return [_refuse_nan(prediction, sample) for prediction, sample in zip(predictions, batch.samples, strict=True)]

    def _score_last_tokens(self, batch: _Batch) -> list[Prediction]:
        """Score candidates that share all tokens but the last, in one forward pass."""
        shared = [len(ids[0]) - 1 for ids in batch.candidates]
        prompts = [
            append_tokens(prompt, ids[0][:n])
            for prompt, ids, n in zip(batch.prompts, batch.candidates, shared, strict=True)
        ]
        inputs = batch_prompts(prompts, self._encoder.pad_id)
        logprobs_BV = self._forward(inputs, batch.features, keep=1).logits[:, -1].float().log_softmax(-1)
        return [
            Prediction(option_logprobs=tuple(logprobs_V[[candidate[n] for candidate in ids]].tolist()))
            for logprobs_V, ids, n in zip(logprobs_BV.cpu(), batch.candidates, shared, strict=True)
        ]

    def _score_with_cached_prefix(self, batch: _Batch, flat: Sequence[Candidate]) -> list[float]:
        """Sums over candidates' tokens: picture and question are read once, each candidate continues from the cache."""
        inputs = batch_prompts(batch.prompts, self._encoder.pad_id)
        prefix = self._forward(inputs, batch.features, keep=1, use_cache=True)
        first_BV = prefix.logits[:, -1].float().log_softmax(-1).cpu()
        totals = [float(first_BV[row, ids[0]]) for row, ids in flat]
        mask_BT = inputs["attention_mask"]
        next_B = mask_BT.sum(-1)
        if has_3d_positions := has_own_positions(inputs):  # they count a picture's rows, not its tokens
            next_B = next_B + self._model.model.rope_deltas[:, 0].cpu()
        longer = [k for k, (_, ids) in enumerate(flat) if len(ids) > 1]
        for part in _chunks(longer, len(batch.samples)):
            rows = torch.tensor([flat[k][0] for k in part])
            ids_CS = pad_sequence([torch.tensor(flat[k][1][:-1]) for k in part], True, self._encoder.pad_id)
            next_CS = pad_sequence([torch.tensor(flat[k][1][1:]) for k in part], True, IGNORED)
            places_CS = next_B[rows][:, None] + torch.arange(ids_CS.shape[1])
            cache = copy.deepcopy(prefix.past_key_values)
            cache.batch_select_indices(rows.to(self._device))
            if self._router:
                self._router.select(rows.tolist())
            logits_CSV = self._model(
                **self._to_device(
                    {
                        "input_ids": ids_CS,
                        "attention_mask": torch.cat([mask_BT[rows], (next_CS != IGNORED).long()], 1),
                        "position_ids": places_CS.expand(3, -1, -1) if has_3d_positions else places_CS,
                    }
                ),
                past_key_values=cache,
                use_cache=True,
            ).logits
            for k, total in zip(part, _sum_label_logprobs(logits_CSV, next_CS.to(self._device)), strict=True):
                totals[k] += total
        return totals

    def _score_full_sequences(self, batch: _Batch, flat: Sequence[Candidate]) -> list[float]:
        """Sums over candidates' tokens; picture and question are read again for each candidate."""
        totals: list[float] = []
        for part in _chunks(flat, len(batch.samples)):
            inputs = batch_prompts(
                [batch.prompts[row] for row, _ in part], self._encoder.pad_id, [ids for _, ids in part]
            )
            labels_CA = inputs.pop("labels").to(self._device)
            if self._router:
                self._router.select([row for row, _ in part])
            width = labels_CA.shape[1]
            logits_CAV = self._forward(inputs, {}, keep=width + 1).logits[:, -width - 1 : -1]
            totals += _sum_label_logprobs(logits_CAV, labels_CA)
        return totals

    def _generate(self, batch: _Batch, settings: Settings) -> list[Prediction]:
        inputs = batch_prompts(batch.prompts, self._encoder.pad_id)
        inputs.pop("position_ids", None)
        noise = []
        if settings.decoding is Decoding.sample:
            assert settings.temperature is not None
            assert settings.top_p is not None
            assert settings.seed is not None
            ids = [sample.id for sample in batch.samples]
            noise = [ItemNoise(ids, settings.temperature, settings.top_p, settings.seed)]
        start, stopping = inputs["input_ids"].shape[1], dict[str, Any]()
        if settings.max_thought_tokens is not None:  # stop texts count only after the thought
            criterion = ThoughtThenAnswer(self._replies, settings, start, len(batch.samples))
            stopping = {"stopping_criteria": StoppingCriteriaList([criterion])}
        elif settings.stop:
            stopping = {"stop_strings": list(settings.stop), "tokenizer": self._encoder.tokenizer}
        with _using_generation_config(self._model, self._generation):
            ids_BT = self._model.generate(
                **self._to_device(inputs),
                **batch.features,
                logits_processor=LogitsProcessorList(noise),
                max_new_tokens=settings.total_tokens,
                **stopping,
            )
        return self._replies.predictions(ids_BT[:, start:].tolist(), settings)

    def _forward(
        self, inputs: Mapping[str, Tensor], features: Mapping[str, Any], keep: int, use_cache: bool = False
    ) -> Any:
        extra: dict[str, Any] = {"logits_to_keep": keep} if self._keeps_logits else {}
        return self._model(**self._to_device(inputs), **features, **extra, use_cache=use_cache)

    def _to_device(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value.to(self._device) for key, value in batch.items()}


def _refuse_nan(prediction: Prediction, sample: Sample) -> Prediction:
    """The prediction. Refuses NaN, which would make the first candidate the answer."""
    if any(math.isnan(logprob) for logprob in prediction.option_logprobs or ()):
        raise UserError(
            f"The model's log-probabilities of item '{sample.id}' are not numbers; are its weights whole, and does its "
            "precision (matrix.precision) hold them?"
        )
    return prediction


def _sum_label_logprobs(logits_CAV: Tensor, labels_CA: Tensor) -> list[float]:
    """Sums of the log-probabilities of the labels that are not padding."""
    logprobs_CA = logits_CAV.float().log_softmax(-1).gather(-1, labels_CA.clamp(min=0)[..., None])[..., 0]
    sums: list[float] = (logprobs_CA * (labels_CA != IGNORED)).sum(-1).tolist()
    return sums


@contextmanager
def _using_generation_config(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """Generate with these settings only: transformers would fill gaps from the checkpoint's generation config."""
    previous = model.generation_config
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = previous


def end_tokens(encoder: Encoder, generation_config: Any, config: Any) -> list[int]:
    """Tokens that end a reply: every eos token of the model's files, and the end token of its chat template."""
    written = encoder.tokenizer.encode(encoder.template.reply_form.end, add_special_tokens=False)
    ends = set(written if len(written) == 1 else ())
    for holder in (generation_config, config, config.get_text_config(), encoder.tokenizer):
        ids = getattr(holder, "eos_token_id", None)
        ends |= set(ids if isinstance(ids, list) else [ids])
    return sorted(ends - {None})


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
