"""How the stand-in server is set up, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Knobs:
    """How the server is set up, and what is wrong with it."""

    owner: str = "vllm"
    """`vllm`, or `sglang` or `lmdeploy`: no vLLM extension, and fields that they do not know are ignored."""
    version: str = "0.32.0"
    key: str = ""
    max_model_len: int = 0
    """0: as many as the checkpoint has positions."""
    max_logprobs: int = 20
    scale_out: bool = True
    """The token endpoint answers."""
    dev_mode: bool = True
    """/collective_rpc is there (VLLM_SERVER_DEV_MODE=1)."""
    runtime_lora: bool = True
    """/v1/load_lora_adapter is there (VLLM_ALLOW_RUNTIME_LORA_UPDATING=1)."""
    max_lora_rank: int = 16
    lacks: tuple[str, ...] = ()
    """Fields of requests that are ignored, such as `prompt_logprobs`, `return_token_ids`, `logprob_token_ids`."""
    cache_drift: bool = True
    """As vLLM: a picture of a request that the engine refused makes the next request with it fail with 500."""

    delay_s: float = 0.0
    """Before each answer."""
    start_delay_s: float = 0.0
    """Of the program, before its port is open."""
    start_error: str = ""
    """The program says this and ends with 1."""
    stubborn: bool = False
    """The program ignores SIGTERM."""
    every: int = 0
    """Each n-th scoring request fails; 0: none."""
    after: int = 0
    """Scoring requests before failures begin."""
    failure: str = "500"
    """`500`, `503`, `drop`, `json`, `hang`, `nan`, `null`: the last two are log-probabilities."""
    die_after: int = 0
    """Scoring requests answered before the server dies; 0: it does not."""
    deaths: int = 1_000_000
    """Starts of the program that die; those after them live."""
    lie: str = ""
    """About the prompt: `template`, `system` (chat only), `first_token`, `shrink` (of pictures)."""
    offset: float = 0.0
    """Added to log-probabilities."""
    noise: float = 0.0
    """As offset, but drawn for each prompt from (-noise, noise)."""
    share: float = 1.0
    """Of prompts whose log-probabilities are off."""
    stale: float = 0.0
    """Share of prompts that are answered with the weights before, once they were loaded anew."""


SOUND = Knobs()
"""vLLM as it is."""
