"""The model behind the stand-in server: one request at a time, in fp32."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from forgetbench.config import ModelConfig
from forgetbench.data.collate import Encoder
from forgetbench.models.load import LoadedModel, load_model

_CACHES = {"llava", "llava_onevision", "idefics3", "smolvlm", "internvl", "gemma3"}
"""Go on from their cache; positions of the others depend on the pictures before."""
OTHER_TEMPLATE = (
    "{% for message in messages %}### {{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}PICTURE{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:{% endif %}"
)
OTHER_SYSTEM = {"role": "system", "content": [{"type": "text", "text": "You are a helpful assistant."}]}


class RefusedError(Exception):
    """A request that is answered with an error, as vLLM words it."""

    def __init__(
        self, message: str, param: str | None = None, code: int = 400, kind: str = "BadRequestError", late: bool = False
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.kind = message, param, code, kind
        self.late = late
        """Found by the engine, when the frontend already counts the request's pictures as sent."""


def refused(message: str, param: str, value: Any, late: bool = False) -> RefusedError:
    return RefusedError(f"{message} (parameter={param}, value={value})", param, late=late)


@dataclass(frozen=True)
class Prompt:
    """What goes into the model."""

    ids: list[int]
    """With every picture's placeholder replaced by its tokens."""
    inputs: dict[str, Tensor]
    places: list[tuple[int, int]]
    """First token and number of tokens of every picture."""
    pictures: list[str]
    """A digest of each."""
    text: str | None = None
    """The conversation as the template wrote it."""

    @property
    def share(self) -> float:
        """Where in [0, 1) this prompt falls, the same in every process."""
        return int(hashlib.sha256(json.dumps([self.ids, self.pictures]).encode()).hexdigest()[:12], 16) / 16**12


@dataclass(frozen=True)
class Sampling:
    """What a request asks of the model; all of it is greedy."""

    max_tokens: int
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    allowed_token_ids: Sequence[int] = ()
    prompt_logprobs: bool = False


@dataclass
class Answer:
    ids: list[int] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)
    """Log-probabilities (V,) at every token."""
    text: str = ""
    finish_reason: str = "length"
    stop_reason: int | str | None = None
    prompt: Tensor | None = None
    """Log-probabilities (T, V) of what follows each prompt token, where asked for."""


class ServedModel:
    """A base and its adapters, by the names under which they are served."""

    def __init__(self, path: str, name: str, loaded: LoadedModel | None = None, max_model_len: int = 0) -> None:
        self.path, self.base = path, name
        self._loaded = loaded or load_model(ModelConfig(path=path))
        self.processor, self.tokenizer = self._loaded.processor, self._loaded.processor.tokenizer
        self.lock = RLock()
        self.models = {name: self._loaded.model}
        self.adapters: dict[str, str] = {}
        self.before: Any = None
        """The base's model before its weights were loaded anew."""
        self.vocabulary = self._loaded.model.get_input_embeddings().weight.shape[0]
        text = self._loaded.model.config.get_text_config()
        self.max_model_len = max_model_len or text.max_position_embeddings
        encoder = Encoder(self.processor)
        self.picture, self._answer_type = encoder.template.picture, encoder.answer_type
        self.picture_id = int(self.tokenizer.convert_tokens_to_ids(self.picture))
        self._caches = self._loaded.model.config.model_type in _CACHES
        self._ends = _ends(self._loaded.model) - {self.tokenizer.eos_token_id}

    def add_adapter(self, name: str, path: str, max_rank: int) -> None:
        """Serve a folder that PEFT reads, beside the base.

        Raises:
            RefusedError: it is not there, or its rank is too high.
        """
        settings = Path(path) / "adapter_config.json"
        if not settings.is_file():
            raise RefusedError(f"Loading lora {name} failed: No adapter found for {path}", None, 404, "NotFoundError")
        if (rank := json.loads(settings.read_text())["r"]) > max_rank:
            message = f"LoRA rank {rank} is greater than max_lora_rank {max_rank}."
            raise RefusedError(message, None, 500, "InternalServerError")
        from peft import PeftModel  # a second or two, for servers with adapters

        with self.lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of peft, on names that transformers changed
            tuned = PeftModel.from_pretrained(copy.deepcopy(self.models[self.base]), path)
            self.models[name] = tuned.merge_and_unload().eval()
        self.adapters[name] = path

    def reload(self, path: str) -> None:
        """Take the base's weights from another folder."""
        with self.lock:
            self.before, self.models[self.base] = self.models[self.base], load_model(ModelConfig(path=path)).model

    def conversation(self, body: dict[str, Any], pictures: list[Image.Image], lie: str) -> Prompt:
        """A chat request's messages as the checkpoint's template writes them."""
        messages = [{"role": one["role"], "content": _parts(one["content"])} for one in body["messages"]]
        template = OTHER_TEMPLATE.replace("PICTURE", self.picture) if lie == "template" else None
        if lie == "system":
            messages.insert(0, OTHER_SYSTEM)
        text = self.processor.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
        )
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.prompt(ids, pictures, lie, text)

    def prompt(self, ids: Sequence[int], pictures: list[Image.Image], lie: str, text: str | None = None) -> Prompt:
        """Put every picture's tokens in the place of its placeholder; a second placeholder stays a token.

        Raises:
            RefusedError: there are more pictures than placeholders.
        """
        if lie == "shrink":
            pictures = [one.resize((max(1, one.width // 2), max(1, one.height // 2))) for one in pictures]
        ids = [self._first_id, *ids] if lie == "first_token" else list(ids)
        if not pictures:
            return Prompt(ids, self._inputs(ids, {}), [], [], text)
        features = self._processed(pictures)
        joint = features["input_ids"][0].tolist()
        tokens = {key: value for key, value in features.items() if value.shape == features["input_ids"].shape}
        whole, places, waiting = list[int](), list[tuple[int, int]](), self._pieces(pictures, joint)
        for token in ids:
            if token == self.picture_id and waiting:
                piece = waiting.pop(0)
                places.append((len(whole), len(piece)))
                whole += piece
            else:
                whole.append(token)
        if waiting:
            message = f"Failed to apply prompt replacement for mm_items['image'][{len(places)}]"
            raise RefusedError(message, None, 500, "InternalServerError")
        types = {
            key: dict(zip(joint, value[0].tolist(), strict=True)) for key, value in tokens.items() if "type" in key
        }
        tensors = {key: value for key, value in features.items() if key not in tokens}
        own = {i for start, size in places for i in range(start, start + size)}
        # The model takes every picture token for one of a picture; the server, only those of placeholders.
        shown = [one if one != self.picture_id or i in own else self._first_id for i, one in enumerate(whole)]
        digests = [hashlib.sha256(one.tobytes()).hexdigest() for one in pictures]
        return Prompt(whole, self._inputs(shown, types) | tensors, places, digests, text)

    def answer(self, model: Any, prompt: Prompt, sampling: Sampling) -> Answer:
        """Read a prompt and go on greedily."""
        with self.lock, torch.inference_mode():
            found, inputs, cache = Answer(), dict(prompt.inputs), None
            for _ in range(min(sampling.max_tokens, self.max_model_len - len(prompt.ids))):
                out = model(**inputs, past_key_values=cache, use_cache=self._caches)
                logits_TV, cache = out.logits[0].float(), out.past_key_values
                if sampling.prompt_logprobs and found.prompt is None:
                    found.prompt = logits_TV.log_softmax(-1)
                logp_V = logits_TV[-1].log_softmax(-1)
                token = _best(logp_V, sampling.allowed_token_ids)
                found.ids.append(token)
                found.steps.append(logp_V)
                if self._stops(found, sampling):
                    break
                inputs = self._next(inputs, token)
        return found

    def decoded(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
            )
        )

    def _stops(self, found: Answer, sampling: Sampling) -> bool:
        """Whether the last token ends the answer, whose text is what comes before an end."""
        token = found.ids[-1]
        is_eos = token == self.tokenizer.eos_token_id
        if not sampling.ignore_eos and (is_eos or token in self._ends):
            found.finish_reason, found.stop_reason = "stop", None if is_eos else token
        elif token in sampling.stop_token_ids:
            found.finish_reason, found.stop_reason = "stop", token
        else:
            found.text = self.decoded(found.ids, sampling.skip_special_tokens)
            if ends := [(found.text.index(one), one) for one in sampling.stop if one in found.text]:
                place, found.stop_reason = min(ends)
                found.text, found.finish_reason = found.text[:place], "stop"
        return found.finish_reason == "stop"

    def _processed(self, pictures: list[Image.Image]) -> dict[str, Tensor]:
        text = [self.picture * len(pictures)]
        return dict(self.processor(text=text, images=[pictures], return_tensors="pt", add_special_tokens=False))

    def _pieces(self, pictures: list[Image.Image], joint: list[int]) -> list[list[int]]:
        """Tokens of each picture; a processor that cuts one picture into tiles may leave several whole."""
        alone = [self._processed([one])["input_ids"][0].tolist() for one in pictures]
        if [token for one in alone for token in one] == joint:
            return alone
        size, rest = divmod(len(joint), len(pictures))
        assert rest == 0
        return [joint[start : start + size] for start in range(0, len(joint), size)]

    def _inputs(self, ids: list[int], types: dict[str, dict[int, int]]) -> dict[str, Tensor]:
        made = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        return made | {key: torch.tensor([[of.get(one, 0) for one in ids]]) for key, of in types.items()}

    def _next(self, inputs: dict[str, Tensor], token: int) -> dict[str, Tensor]:
        """What the model reads next: what its cache lacks, or everything."""
        added = {"input_ids": token, "attention_mask": 1, "token_type_ids": self._answer_type, "mm_token_type_ids": 0}
        new = {key: torch.tensor([[value]]) for key, value in added.items() if key in inputs}
        whole = {key: torch.cat([inputs[key], value], 1) for key, value in new.items()}
        return new | {"attention_mask": whole["attention_mask"]} if self._caches else inputs | whole

    @property
    def _first_id(self) -> int:
        known = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return next(one for one in known if one is not None)


def _best(logp_V: Tensor, allowed: Sequence[int]) -> int:
    if allowed:
        return max(allowed, key=lambda token: float(logp_V[token]))
    return int(logp_V.argmax())


def _ends(model: Any) -> set[int]:
    found = model.generation_config.eos_token_id
    return set(found if isinstance(found, list) else [found]) - {None}


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [
        {"type": "image"} if one["type"] == "image_url" else {"type": "text", "text": one["text"]} for one in content
    ]
