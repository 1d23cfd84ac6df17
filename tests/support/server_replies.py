"""What the stand-in server reads from requests and writes in replies, as vLLM 0.32 and as plainer servers do."""

from __future__ import annotations

import base64
import binascii
import io
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from PIL import Image, UnidentifiedImageError
from torch import Tensor

from tests.support.server_model import Answer, Prompt, RefusedError, Sampling, ServedModel, refused

VERSION = "0.32.0"
Entry = tuple[int, float | None, int]
"""Token id, log-probability, rank."""


def card(model: ServedModel, name: str, owner: str) -> dict[str, Any]:
    """One entry of /v1/models."""
    plain = {"id": name, "object": "model", "created": int(time.time()), "owned_by": owner}
    is_base = name == model.base
    if owner == "lmdeploy":
        return plain | {"root": name, "parent": None}
    length = model.max_model_len if is_base else None
    if owner != "vllm":
        return plain | {"root": model.path, "parent": None, "max_model_len": length}
    permission = {"id": _named("modelperm"), "object": "model_permission", "created": int(time.time())}
    permission |= {"allow_create_engine": False, "allow_sampling": True, "allow_logprobs": True}
    permission |= {"allow_search_indices": False, "allow_view": True, "allow_fine_tuning": False}
    permission |= {"organization": "*", "group": None, "is_blocking": False}
    return plain | {
        "root": model.path if is_base else model.adapters[name],
        "parent": None if is_base else model.base,
        "max_model_len": length,
        "permission": [permission],
    }


def error(refusal: RefusedError, owner: str) -> dict[str, Any]:
    """A refusal's body."""
    found = {"message": refusal.message, "type": refusal.kind, "param": refusal.param, "code": refusal.code}
    return {"error": found} if owner == "vllm" else {"object": "error", **found}


def missing(name: str) -> RefusedError:
    message = f"1 validation error:\n  {{'type': 'missing', 'loc': 'body.{name}', 'msg': 'Field required'}}"
    return RefusedError(message, f"body.{name}", kind="Bad Request")


def pictures(uris: Sequence[str | None]) -> list[Image.Image]:
    """The pictures of data URIs.

    Raises:
        RefusedError: one is none.
    """
    found = []
    for i, uri in enumerate(uris):
        if not uri:
            where = f"multi_modal_data['image'][{i}] is empty but multi_modal_uuids['image'][{i}] is missing."
            raise RefusedError(where)
        try:
            content = base64.b64decode(uri.partition(",")[2])
            found.append(Image.open(io.BytesIO(content)).convert("RGB"))
        except (binascii.Error, UnidentifiedImageError):
            message = "Failed to load image: cannot identify image file <_io.BytesIO object>"
            raise RefusedError(message) from None
    return found


def sampling(asked: dict[str, Any], default_tokens: int) -> Sampling:
    """What a request asks of the model, by the names that both endpoints share.

    Raises:
        RefusedError: a value is out of bounds.
    """
    tokens = asked.get("max_completion_tokens") or asked.get("max_tokens")
    tokens = default_tokens if tokens is None else tokens
    if tokens < 1:
        raise refused(f"max_tokens must be at least 1, got {tokens}.", "max_tokens", tokens)
    if (temperature := asked.get("temperature") or 0.0) < 0:
        raise refused(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    assert temperature == 0, "the stand-in is greedy"
    stop = asked.get("stop") or ()
    return Sampling(
        tokens,
        stop=[stop] if isinstance(stop, str) else stop,
        stop_token_ids=asked.get("stop_token_ids") or (),
        ignore_eos=asked.get("ignore_eos", False),
        skip_special_tokens=asked.get("skip_special_tokens", True),
        allowed_token_ids=asked.get("allowed_token_ids") or (),
        prompt_logprobs=asked.get("prompt_logprobs") is not None,
    )


def check_logprobs(model: ServedModel, asked: dict[str, Any], n: int | None, limit: int) -> None:
    """Refuse, as the engine does, more log-probabilities than it gives.

    Raises:
        RefusedError: says which.
    """
    ids = asked.get("logprob_token_ids")
    if ids is not None and n is not None and n != len(ids):
        message = "When both logprobs and logprob_token_ids are set, logprobs must equal len(logprob_token_ids)."
        message += f" Got logprobs={n}, len(logprob_token_ids)={len(ids)}."
        raise refused(message, "logprob_token_ids", len(ids), late=True)
    for kind, param, given in (("sample", "logprobs", n), ("prompt", "prompt_logprobs", asked.get("prompt_logprobs"))):
        value = model.vocabulary if given == -1 else given
        if value is not None and value > limit:
            message = f"Requested {kind} logprobs of {value}, which is greater than max allowed: {limit}"
            raise refused(message, param, value, late=True)
    if strange := [one for one in ids or () if one >= model.vocabulary]:
        message = f"token_id(s) {strange} in logprob_token_ids contain out-of-vocab token ids."
        message += f" Vocabulary size: {model.vocabulary}"
        raise refused(message, "logprob_token_ids", strange, late=True)


def check_length(model: ServedModel, n_tokens: int, max_tokens: int = 0) -> None:
    """Refuse a prompt that the context cannot hold.

    Raises:
        RefusedError: says both lengths.
    """
    limit = model.max_model_len
    if max_tokens > limit:
        message = f"max_tokens={max_tokens} cannot be greater than max_model_len={limit}. "
        raise refused(message + "Please request fewer output tokens.", "max_tokens", max_tokens)
    if n_tokens + max(max_tokens, 1) > limit:
        message = f"This model's maximum context length is {limit} tokens. However, "
        tail = "which exceeds this limit even without any output tokens."
        if n_tokens < limit:
            message += f"you requested {max_tokens} output tokens and "
            tail = f"for a total of at least {n_tokens + max_tokens} tokens."
        message += f"your prompt contains {n_tokens} input tokens, {tail} "
        raise refused(message + "Please reduce the length of the input prompt.", "input_tokens", n_tokens)


def entries(logp_V: Tensor, token: int, n: int, ids: Sequence[int] | None = None) -> list[Entry]:
    """A token, then the best n or the ids asked for, as the engine orders and ranks them."""
    value = logp_V[token]
    found = {token: (token, float(value), int((logp_V > value).sum()) + 1)}
    best = logp_V.topk(n).indices.tolist() if ids is None else ids
    for rank, one in enumerate(best, 1):
        if ids is not None or one != token:
            found[one] = (one, float(logp_V[one]), rank)
    return list(found.values())


def generated(
    model: ServedModel, name: str, prompt: Prompt, answer: Answer, steps: list[list[Entry]], body: dict[str, Any]
) -> dict[str, Any]:
    """The body of /inference/v1/generate."""
    asked, with_ids = body["sampling_params"], body.get("return_token_ids")
    n = asked.get("logprobs")
    content = []
    for step in steps if n is not None else ():
        # The engine's token comes first and counts: it can push out the last of the ids that were asked for.
        top = [{"token_id": one, "logprob": value, "rank": rank} for one, value, rank in step[: max(n, 1)]]
        content.append({**top[0], "top_logprobs": top})
    choice = {
        "index": 0,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "token_ids": answer.ids,
        "routed_experts": None,
        "sampling_mask": None,
        "weight_versions": [{"version": "default", "start": 0, "end": len(answer.ids)}],
        "logprobs": None if n is None else {"content": content},
    }
    places = [{"offset": start, "length": size} for start, size in prompt.places]
    return {
        "request_id": _named("generate-tokens"),
        "model": name,
        "created": int(time.time()),
        "usage": _usage(prompt, answer),
        "prompt_logprobs": prompt_logprobs(model, prompt, answer, asked.get("prompt_logprobs")),
        "prompt_token_id_logprobs": None,
        "prompt_token_ids": prompt.ids if with_ids else None,
        "mm_placeholders": {"image": places} if with_ids and places else None,
        **dict.fromkeys(("metrics", "kv_transfer_params", "ec_transfer_params")),
        "output_mode": "tokens",
        "choices": [choice],
    }


def chatted(
    model: ServedModel, name: str, prompt: Prompt, answer: Answer, steps: list[list[Entry]], body: dict[str, Any]
) -> dict[str, Any]:
    """The body of /v1/chat/completions."""
    with_ids = body.get("return_token_ids")
    nothing = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text, **nothing},
        "logprobs": chat_logprobs(model, steps, body) if body.get("logprobs") else None,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "token_ids": answer.ids if with_ids else None,
        "routed_experts": None,
    }
    return {
        "id": _named("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [choice],
        "service_tier": None,
        "system_fingerprint": f"vllm-{VERSION}-00000000",
        "usage": _usage(prompt, answer),
        "prompt_logprobs": prompt_logprobs(model, prompt, answer, body.get("prompt_logprobs")),
        "prompt_token_ids": prompt.ids if with_ids else None,
        "prompt_text": prompt.text if body.get("return_prompt_text") else None,
        **dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics")),
    }


def plainly_chatted(
    model: ServedModel, name: str, prompt: Prompt, answer: Answer, steps: list[list[Entry]], body: dict[str, Any]
) -> dict[str, Any]:
    """The same without anything of vLLM's own."""
    message = {"role": "assistant", "content": answer.text, "reasoning_content": None, "tool_calls": None}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    choice["logprobs"] = chat_logprobs(model, steps, body) if body.get("logprobs") else None
    head = {"id": uuid.uuid4().hex, "object": "chat.completion", "created": int(time.time()), "model": name}
    usage = {key: value for key, value in _usage(prompt, answer).items() if key.endswith("_tokens")}
    return head | {"choices": [choice], "usage": usage}


def chat_logprobs(model: ServedModel, steps: list[list[Entry]], body: dict[str, Any]) -> dict[str, Any]:
    """Log-probabilities of a reply's tokens, which are named by their text or as `token_id:7`."""
    as_ids, ids = body.get("return_tokens_as_token_ids"), body.get("logprob_token_ids")
    n = body.get("top_logprobs") or 0
    content = []
    for step in steps:
        top = []
        for token, value, _ in step if ids is not None else step[:n]:
            written = f"token_id:{token}" if as_ids else model.decoded([token])
            top.append({"token": written, "logprob": value, "bytes": list(written.encode())})
        token, value, _ = step[0]
        written = model.decoded([token])
        shown = f"token_id:{token}" if as_ids else written
        content.append({"token": shown, "logprob": value, "bytes": list(written.encode()), "top_logprobs": top})
    return {"content": content}


def prompt_logprobs(
    model: ServedModel, prompt: Prompt, answer: Answer, n: int | None
) -> list[dict[str, Any] | None] | None:
    """Of every prompt token but the first, by its id as a string."""
    if n is None or answer.prompt is None:
        return None
    found: list[dict[str, Any] | None] = [None]
    for logp_V, token in zip(answer.prompt, prompt.ids[1:], strict=False):
        found.append(
            {
                str(one): {"logprob": value, "rank": rank, "decoded_token": model.decoded([one])}
                for one, value, rank in entries(logp_V, token, n)
            }
        )
    return found


def written(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _usage(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    n, more = len(prompt.ids), len(answer.ids)
    counts = {"prompt_tokens": n, "total_tokens": n + more, "completion_tokens": more}
    return counts | {"prompt_tokens_details": None, "completion_tokens_details": None}


def _named(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:16]}"
