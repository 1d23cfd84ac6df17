"""The limit of scoring through vLLM: its server and requests that are ready, with nothing read from the answers.

    python benchmarks/baselines/bare_vllm.py PYTHON REQUESTS.jsonl IN_FLIGHT ARGUMENT ...

PYTHON is the interpreter of an environment with vLLM, ARGUMENT ... its server's command line. Each line of the file is
the body of one request to `/inference/v1/generate`; those of one model come before those of the next, and the next
begins when the last is answered, as checkpoints are scored. It knows nothing of forgetbench. Prints one JSON line.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

PATH = "/inference/v1/generate"
_held = threading.local()


def main() -> None:
    """Start the server, post everything, stop it."""
    python, requests, in_flight, *arguments = sys.argv[1:]
    lines = Path(requests).read_text("utf-8").splitlines()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    started = time.perf_counter()
    server = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not is_up(port):
            if server.poll() is not None:
                raise SystemExit("vLLM ended before it was ready.")
            time.sleep(0.25)
        ready = time.perf_counter()
        with ThreadPoolExecutor(int(in_flight)) as pool:
            for _, bodies in groupby(lines, key=lambda line: json.loads(line)["model"]):
                for status in pool.map(lambda body: post(port, body), list(bodies)):
                    if status != http.client.OK:
                        raise SystemExit(f"vLLM answered HTTP {status}.")
        print(json.dumps({"start_s": ready - started, "asking_s": time.perf_counter() - ready}))
    finally:
        server.terminate()
        server.wait()


def is_up(port: int) -> bool:
    """Whether it takes requests."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False


def post(port: int, body: str) -> int:
    """One request, on a connection that its thread keeps."""
    if not hasattr(_held, "connection"):
        _held.connection = http.client.HTTPConnection("127.0.0.1", port)
    _held.connection.request("POST", PATH, body, {"Content-Type": "application/json"})
    answer = _held.connection.getresponse()
    answer.read()
    return int(answer.status)


if __name__ == "__main__":
    main()
