"""The stand-in server: it answers as the model does, in the shapes of vLLM 0.32, and fails as it is told."""

from __future__ import annotations

import base64
import copy
import json
import math
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from forgetbench.config import MatrixConfig, ModelConfig
from forgetbench.core.records import Sample
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import Encoder
from forgetbench.data.pictures import read_image
from forgetbench.evaluation.sets import load_sets
from forgetbench.models.load import LoadedModel, load_model
from tests.support.server import FakeVllm
from tests.support.server_app import CHAT, GENERATE, StandIn
from tests.support.server_knobs import SOUND, Knobs

GONE = (urllib.error.URLError, RemoteDisconnected, ConnectionError)
# peft 0.21 reads a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@dataclass(frozen=True)
class Reply:
    status: int
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    @property
    def choice(self) -> Any:
        return self.body["choices"][0]


def ask(url: str, path: str, body: dict[str, Any] | None = None, key: str = "", timeout: float = 30.0) -> Reply:
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url + path, content, headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return Reply(reply.status, reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read())


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(ModelConfig(path="embedded:tiny"))


@pytest.fixture(scope="module")
def encoder(loaded: LoadedModel) -> Encoder:
    return Encoder(loaded.processor)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(load_sets(MatrixConfig(datasets=["fashion_naming"], limit=12), Catalogue([]))[0].samples)


def standin(loaded: LoadedModel, knobs: Knobs = SOUND) -> StandIn:
    return StandIn("embedded:tiny", knobs, loaded=loaded)


def uri(sample: Sample) -> str:
    return "data:image/png;base64," + base64.b64encode(read_image(sample.images[0])).decode()


def by_tokens(encoder: Encoder, sample: Sample, model: str = "base", **asked: Any) -> dict[str, Any]:
    """A request with token ids: one placeholder for the picture's tokens."""
    ids = encoder.prompt(sample).tokens["input_ids"].tolist()
    picture = encoder.tokenizer.convert_tokens_to_ids(encoder.template.picture)
    first, n = ids.index(picture), ids.count(picture)
    return {
        "model": model,
        "token_ids": ids[: first + 1] + ids[first + n :],
        "content_parts": [{"type": "image_url", "url": uri(sample)}],
        "return_token_ids": True,
        "sampling_params": {"temperature": 0, "max_tokens": 1, **asked},
    }


def by_chat(sample: Sample, *replies: str, **asked: Any) -> dict[str, Any]:
    """A request with a conversation."""
    text = "".join(part for part in sample.turns[0].parts if isinstance(part, str))
    parts = [{"type": "image_url", "image_url": {"url": uri(sample)}}, {"type": "text", "text": text}]
    messages = [{"role": "user", "content": parts}, *({"role": "assistant", "content": reply} for reply in replies)]
    return {"model": "base", "messages": messages, "temperature": 0, "max_tokens": 1, **asked}


def own_logprobs(model: Any, encoder: Encoder, sample: Sample) -> torch.Tensor:
    prompt = encoder.prompt(sample)
    with torch.inference_mode():
        inputs = {key: value[None] for key, value in prompt.tokens.items()} | prompt.pictures
        return model(**inputs).logits[0, -1].float().log_softmax(-1)


def letters(url: str, encoder: Encoder, sample: Sample, model: str = "base") -> dict[int, float]:
    """The log-probability of each candidate's first token; the last is asked for twice, as one may be pushed out."""
    ids = [ids_of_option[0] for ids_of_option in encoder.candidate_ids(sample)]
    ids.append(ids[-1])
    reply = ask(url, GENERATE, by_tokens(encoder, sample, model, logprobs=len(ids), logprob_token_ids=ids))
    top = reply.choice["logprobs"]["content"][0]["top_logprobs"]
    return {entry["token_id"]: entry["logprob"] for entry in top if entry["token_id"] in ids}


def assert_close(logprobs: dict[int, float], logp_V: torch.Tensor) -> None:
    assert logprobs == pytest.approx({token: float(logp_V[token]) for token in logprobs}, abs=1e-4)


def test_its_letters_and_prompts_are_our_own(loaded: LoadedModel, encoder: Encoder, samples: list[Sample]) -> None:
    with standin(loaded) as server:
        for sample in samples[:3]:
            logprobs = letters(server.url, encoder, sample)
            assert set(logprobs) == {option_ids[0] for option_ids in encoder.candidate_ids(sample)}
            assert_close(logprobs, own_logprobs(loaded.model, encoder, sample))
            ids = encoder.prompt(sample).tokens["input_ids"].tolist()
            assert ask(server.url, GENERATE, by_tokens(encoder, sample)).body["prompt_token_ids"] == ids
            assert ask(server.url, CHAT, by_chat(sample, return_token_ids=True)).body["prompt_token_ids"] == ids


def test_its_greedy_replies_end_as_asked(loaded: LoadedModel, encoder: Encoder, samples: list[Sample]) -> None:
    with standin(loaded) as server:

        def chatted(**asked: Any) -> Any:
            return ask(server.url, CHAT, by_chat(samples[0], return_token_ids=True, **asked)).choice

        whole, cut = chatted(max_tokens=9), chatted(ignore_eos=True, max_tokens=4)
        first = int(own_logprobs(loaded.model, encoder, samples[0]).argmax())
        assert whole["token_ids"] == [first, encoder.tokenizer.eos_token_id]
        assert (whole["finish_reason"], whole["stop_reason"], cut["finish_reason"]) == ("stop", None, "length")
        text = whole["message"]["content"]
        assert text == encoder.tokenizer.decode([first])
        by_text, by_id = chatted(stop=[text[-1]], max_tokens=9), chatted(stop_token_ids=[first], max_tokens=9)
        assert (by_text["stop_reason"], by_text["message"]["content"]) == (text[-1], text[:-1])
        assert (by_id["stop_reason"], by_id["message"]["content"]) == (first, "")


def test_a_continued_reply_gets_the_log_probability_of_every_prompt_token(
    loaded: LoadedModel, encoder: Encoder, samples: list[Sample]
) -> None:
    sample, letter = samples[0], samples[0].candidates[1]
    with standin(loaded) as server:
        more = {"add_generation_prompt": False, "continue_final_message": True, "prompt_logprobs": 0}
        chatted = ask(server.url, CHAT, by_chat(sample, letter, **more)).body["prompt_logprobs"]
        body = by_tokens(encoder, sample, prompt_logprobs=0)
        body["token_ids"] += encoder.candidate_ids(sample)[1]
        assert ask(server.url, GENERATE, body).body["prompt_logprobs"] == chatted
    assert (chatted[0], len(chatted)) == (None, encoder.prompt(sample).length + 1)
    [[token, last]] = chatted[-1].items()
    assert_close({int(token): last["logprob"]}, own_logprobs(loaded.model, encoder, sample))


def test_the_engines_own_token_pushes_out_the_last_id_that_was_asked_for(
    loaded: LoadedModel, encoder: Encoder, samples: list[Sample]
) -> None:
    best = int(own_logprobs(loaded.model, encoder, samples[0]).argmax())
    others = [token for token in range(300, 303) if token != best]
    with standin(loaded) as server:
        body = by_tokens(encoder, samples[0], logprobs=len(others), logprob_token_ids=others)
        top = ask(server.url, GENERATE, body).choice["logprobs"]["content"][0]["top_logprobs"]
    assert [entry["token_id"] for entry in top] == [best, *others[:-1]]


def test_what_vllm_refuses_is_refused(loaded: LoadedModel, encoder: Encoder, samples: list[Sample]) -> None:
    sample = samples[0]
    with standin(loaded, Knobs(key="secret", scale_out=False, max_model_len=60)) as server:

        def refused(path: str, body: dict[str, Any]) -> tuple[int, str]:
            reply = ask(server.url, path, body, "secret")
            return reply.status, reply.body["error"]["message"]

        assert ask(server.url, "/v1/models").status == 401
        assert ask(server.url, "/health").status == 200
        assert ask(server.url, "/v1/models", key="secret").body["data"][0]["max_model_len"] == 60
        assert "disabled" in refused(GENERATE, by_tokens(encoder, sample))[1]
        assert refused(CHAT, by_chat(sample, logprobs=True, top_logprobs=21))[0] == 400
        assert "context length is 60" in refused(CHAT, by_chat(sample, max_tokens=30))[1]
        assert refused(CHAT, by_chat(sample) | {"model": "other"})[0] == 404


def test_a_picture_of_a_refused_request_fails_once_more(
    loaded: LoadedModel, encoder: Encoder, samples: list[Sample]
) -> None:
    with standin(loaded) as server:
        bad = by_tokens(encoder, samples[0], logprobs=0, logprob_token_ids=[259, 287])
        asked = [bad, *[by_tokens(encoder, samples[0])] * 2]
        assert [ask(server.url, GENERATE, body).status for body in asked] == [400, 500, 200]


def test_a_plain_server_has_letters_but_nothing_of_vllms_own(
    loaded: LoadedModel, encoder: Encoder, samples: list[Sample]
) -> None:
    with standin(loaded, Knobs(owner="sglang")) as server:
        assert ask(server.url, "/version").status == 404
        assert ask(server.url, GENERATE, by_tokens(encoder, samples[0])).status == 404
        assert ask(server.url, "/v1/models").body["data"][0]["owned_by"] == "sglang"
        more = {"return_token_ids": True, "prompt_logprobs": 0, "return_tokens_as_token_ids": True}
        reply = ask(server.url, CHAT, by_chat(samples[0], logprobs=True, top_logprobs=3, **more))
    assert not {"prompt_token_ids", "prompt_logprobs"} & reply.body.keys()
    assert reply.body["usage"]["prompt_tokens"] == encoder.prompt(samples[0]).length
    top = reply.choice["logprobs"]["content"][0]["top_logprobs"]
    assert [bytes(entry["bytes"]).decode() for entry in top] == [entry["token"] for entry in top]
    logp_V = own_logprobs(loaded.model, encoder, samples[0])
    assert [entry["token"] for entry in top] == [encoder.tokenizer.decode([i]) for i in logp_V.topk(3).indices.tolist()]


@pytest.mark.parametrize("failure", ["500", "503", "drop", "json", "hang", "nan", "null"])
def test_each_nth_request_fails_as_told(
    loaded: LoadedModel, encoder: Encoder, samples: list[Sample], failure: str
) -> None:
    body = by_tokens(encoder, samples[0], logprobs=1)
    with standin(loaded, Knobs(every=2, failure=failure)) as server:
        outcomes = []
        for _ in range(2):
            try:
                reply = ask(server.url, GENERATE, body, timeout=1.0 if failure == "hang" else 30.0)
                outcomes.append(str(reply.status))
                value = reply.choice["logprobs"]["content"][0]["logprob"] if reply.status == 200 else 0.0
                outcomes[-1] = "null" if value is None else "nan" if math.isnan(value) else outcomes[-1]
            except TimeoutError:
                outcomes.append("hang")
            except json.JSONDecodeError:
                outcomes[-1] = "json"
            except GONE:
                outcomes.append("drop")
        assert (outcomes, server.seen["failed"]) == (["200", failure], 1)


def test_fields_that_it_lacks_are_ignored(loaded: LoadedModel, encoder: Encoder, samples: list[Sample]) -> None:
    with standin(loaded, Knobs(lacks=("prompt_logprobs", "return_token_ids"))) as server:
        answer = ask(server.url, GENERATE, by_tokens(encoder, samples[0], prompt_logprobs=0)).body
    assert (answer["prompt_logprobs"], answer["prompt_token_ids"]) == (None, None)


def test_it_says_how_many_requests_came_at_once(loaded: LoadedModel, encoder: Encoder, samples: list[Sample]) -> None:
    with standin(loaded, Knobs(delay_s=0.3)) as server, ThreadPoolExecutor(5) as pool:
        bodies = [by_tokens(encoder, sample) for sample in samples[:5]]
        assert [response.status for response in pool.map(lambda body: ask(server.url, GENERATE, body), bodies)] == [
            200
        ] * 5
        assert (server.seen["at once"], server.seen[GENERATE]) == (5, 5)


def test_a_server_that_dies_answers_no_more(loaded: LoadedModel, encoder: Encoder, samples: list[Sample]) -> None:
    with standin(loaded, Knobs(die_after=1)) as server:
        assert ask(server.url, GENERATE, by_tokens(encoder, samples[0])).status == 200
        for _ in range(2):
            with pytest.raises(GONE):
                ask(server.url, GENERATE, by_tokens(encoder, samples[0]))


@pytest.mark.parametrize(("lie", "path"), [("template", CHAT), ("system", CHAT), ("first_token", GENERATE)])
def test_a_lie_about_the_prompt_shows_in_its_ids(
    loaded: LoadedModel, encoder: Encoder, samples: list[Sample], lie: str, path: str
) -> None:
    bodies = {GENERATE: by_tokens(encoder, samples[0]), CHAT: by_chat(samples[0], return_token_ids=True)}
    with standin(loaded, Knobs(lie=lie)) as server:
        answer = ask(server.url, path, bodies[path]).body
    assert answer["prompt_token_ids"] != encoder.prompt(samples[0]).tokens["input_ids"].tolist()
    assert answer["usage"]["prompt_tokens"] == len(answer["prompt_token_ids"])


def test_a_share_of_prompts_has_log_probabilities_that_are_off(
    loaded: LoadedModel, encoder: Encoder, samples: list[Sample]
) -> None:
    with standin(loaded) as sound, standin(loaded, Knobs(offset=-0.5, share=0.5)) as server:
        token = encoder.candidate_ids(samples[0])[0][0]
        pairs = [[letters(served.url, encoder, sample)[token] for served in (sound, server)] for sample in samples]
    assert {round(there - here, 4) for here, there in pairs} == {0.0, -0.5}


def test_adapters_are_served_beside_the_base(
    loaded: LoadedModel, encoder: Encoder, samples: list[Sample], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=8, init_lora_weights=False, target_modules=r".*language_model.*\.q_proj")
    tuned = get_peft_model(copy.deepcopy(loaded.model), config).eval()
    tuned.save_pretrained(str(tmp_path / "adapter"))
    with standin(loaded) as server:
        load = {"lora_name": "ft", "lora_path": str(tmp_path / "adapter")}
        assert [ask(server.url, "/v1/load_lora_adapter", load).status for _ in range(2)] == [200, 400]
        assert ask(server.url, "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "/none"}).status == 404
        cards = ask(server.url, "/v1/models").body["data"]
        assert [(card["id"], card["parent"]) for card in cards] == [("base", None), ("ft", "base")]
        adapted, base = (letters(server.url, encoder, samples[0], name) for name in ("ft", "base"))
    assert_close(adapted, own_logprobs(tuned, encoder, samples[0]))
    assert_close(base, own_logprobs(loaded.model, encoder, samples[0]))
    assert max(abs(adapted[token] - base[token]) for token in base) > 0.05


def test_after_a_reload_a_share_of_answers_is_stale(
    loaded: LoadedModel, encoder: Encoder, samples: list[Sample], tmp_path: Path
) -> None:
    other = copy.deepcopy(loaded.model)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "q_proj" in name:
                parameter.mul_(1.5)
    other.save_pretrained(str(tmp_path))
    loaded.processor.save_pretrained(str(tmp_path))
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path)}}
    with standin(loaded, Knobs(stale=0.5)) as server:
        assert ask(server.url, "/collective_rpc", body).status == 200
        came = [letters(server.url, encoder, sample) for sample in samples]
        n_stale = server.seen["stale"]
    wanted = [[own_logprobs(model, encoder, sample) for model in (loaded.model, other)] for sample in samples]
    distances = [
        [max(abs(value - float(logp_V[token])) for token, value in logprobs.items()) for logp_V in both]
        for logprobs, both in zip(came, wanted, strict=True)
    ]
    stale = [before < after for before, after in distances]
    assert all(min(pair) < 1e-4 for pair in distances)
    assert 0 < sum(stale) == n_stale < len(samples)


def test_it_runs_as_vllms_own_program_and_dies_on_its_first_start(
    encoder: Encoder, samples: list[Sample], tmp_path: Path
) -> None:
    fake = FakeVllm(tmp_path / "fake", Knobs(die_after=1, deaths=1))
    asked = [fake.python, "-c", "import importlib.metadata as m; print(m.version('vllm'))"]
    assert subprocess.check_output(asked, text=True).strip() == SOUND.version
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--model", "embedded:tiny", "--served-model-name", "tiny", "--port", str(port), "--dtype", "float32"]
    url = f"http://127.0.0.1:{port}"
    command = [fake.python, "-m", "vllm.entrypoints.openai.api_server", *options, "--enable-scale-out"]
    process = subprocess.Popen(command, env=os.environ | {"VLLM_API_KEY": "secret"}, stdout=subprocess.DEVNULL)
    try:
        await_server(url, process)
        assert ask(url, "/v1/models", key="secret").body["data"][0]["id"] == "tiny"
        body = by_tokens(encoder, samples[0], model="tiny")
        assert ask(url, GENERATE, body).status == 401
        assert ask(url, GENERATE, body, "secret").status == 200
        assert ask(url, "/seen").body[GENERATE] == 2
        with pytest.raises(GONE):
            ask(url, GENERATE, body, "secret")
        assert process.wait(10) == 9
    finally:
        process.kill()
        process.wait()
    assert fake.starts == [[*options, "--enable-scale-out"]]


def await_server(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None
        try:
            ask(url, "/health")
        except GONE:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server did not start")
