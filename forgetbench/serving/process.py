"""A vLLM process that this command manages: start on a free port of this machine, wait, restart, stop."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from json import dumps
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError, reason
from forgetbench.core.secrets import without_secrets
from forgetbench.serving import supervisor
from forgetbench.serving.client import wait_until

_KEY, _DEV_MODE = "VLLM_API_KEY", "VLLM_SERVER_DEV_MODE"
_MODULE = "vllm.entrypoints.openai.api_server"
_VERSION = """
import importlib.metadata as m
names = m.packages_distributions().get("vllm", [])
print(m.version(names[0]) if names else "")
"""
_ERROR = re.compile(r"\b\w*(Error|Exception): \S")
_TAIL_LINES = 5
"""Last lines of the log that a message shows."""
_TAIL_BYTES = 200_000
_SHUTDOWN_S = 15.0
"""Time for a server to end after SIGTERM."""


class Server:
    """One vLLM process at a time, with one model; the address stays the same over restarts."""

    def __init__(self, python: str, log: Path, reloads: bool = False) -> None:
        """Choose a port and a key; nothing is started yet.

        Args:
            python: interpreter of an environment with vLLM.
            log: file for the server's output.
            reloads: whether weights are replaced while it runs, which vLLM allows only in its development mode.
        """
        self._python, self._log, self._reloads = python, log, reloads
        self._port = _free_port()
        self.key = secrets.token_hex(16)
        """API key: nobody else on this machine can ask this server, and no other server is mistaken for it."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def is_running(self) -> bool:
        """Whether the process is running; it may not answer yet."""
        return self._process is not None and self._process.poll() is None

    def start(self, arguments: Sequence[str]) -> None:
        """Start the process; an earlier one is stopped.

        Args:
            arguments: of vLLM's command line, without host and port.

        Raises:
            UserError: there is no such interpreter.
        """
        self.stop()
        host_arguments = ["--host", "127.0.0.1", "--port", str(self._port)]
        command = [self._python, "-m", _MODULE, *arguments, *host_arguments]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            log.write(f"$ {without_secrets(' '.join(command))}\n".encode())
            log.flush()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", supervisor.__file__, str(_SHUTDOWN_S), *command],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env={**_environment(), _KEY: self.key, **({_DEV_MODE: "1"} if self._reloads else {})},
                    start_new_session=True,  # Ctrl-C is for this command, which then stops the server
                )
            except OSError as error:
                raise UserError(f"engine.python={self._python} cannot be started ({reason(error)}).") from error

    def wait(self, is_up: Callable[[], bool], seconds: float) -> None:
        """Wait until the server takes requests.

        Args:
            is_up: whether it takes requests.
            seconds: maximum wait.

        Raises:
            UserError: it ended, or was not ready in time; shows the end of its log.
        """
        if not wait_until(lambda: not self.is_running or is_up(), seconds):
            raise UserError(
                f"vLLM is not ready after {seconds / 60:g} minutes (engine.start_minutes); {self.log_tail()}"
            )
        if not self.is_running:
            raise UserError(f"vLLM ended before it was ready; {self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of its log, as the end of a message."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - _TAIL_BYTES))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return f"its log is {self._log}."
        started = max((k for k, line in enumerate(lines) if line.startswith("$ ")), default=0)
        causes = [k for k in range(started, len(lines)) if _ERROR.search(lines[k])]  # the first error causes the others
        last = range(max(started, len(lines) - _TAIL_LINES), len(lines))
        shown = "\n".join(f"  {lines[k][:300]}" for k in sorted({*causes[:2], *last}))
        return without_secrets(f"{self._log} ends with:\n{shown}".replace(self.key, "<key>"))

    def stop(self) -> None:
        """End the process and its children; waits until its memory is free again."""
        if self._process is None:
            return
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2 * _SHUTDOWN_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None


def vllm_version(python: str) -> str:
    """The version of vLLM in an interpreter's environment; vLLM itself is not imported.

    Raises:
        UserError: there is no such interpreter, or no vLLM in its environment.
    """
    try:
        done = subprocess.run(
            [python, "-c", _VERSION], capture_output=True, text=True, timeout=60, check=False, env=_environment()
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"engine.python={python} cannot be run ({reason(error)}); give the interpreter of an environment with vLLM."
        ) from error
    if done.returncode or not done.stdout.strip():
        raise UserError(
            f"engine.python={python}: there is no vLLM in its environment; install it there (pip install vllm)."
        )
    return done.stdout.split()[-1]  # output of the environment's start-up comes before


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Settings of vLLM as command-line arguments.

    Args:
        settings: such as {max_model_len: 4096, enforce_eager: true, limit_mm_per_prompt: {image: 4}}.
    """
    arguments: list[str] = []
    for key, value in settings.items():
        option = f"--{str(key).replace('_', '-').lstrip('-')}"
        match value:
            case True:
                arguments.append(option)
            case False:
                arguments.append(f"--no-{option.removeprefix('--')}")
            case None:
                continue
            case dict() | list():
                arguments += [option, dumps(value)] if isinstance(value, dict) else [option, *map(str, value)]
            case _:
                arguments += [option, str(value)]
    return arguments


def _environment() -> dict[str, str]:
    """This command's environment variables, without those that point Python to this environment's packages."""
    return {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
