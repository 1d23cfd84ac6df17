"""Run a program as long as standard input stays open, then end it and all its child processes.

forgetbench starts a server through this file and holds the pipe. When forgetbench ends, even by a kill, the pipe
closes and the server ends. The file is run by its path and imports nothing of the package.

    python supervisor.py SECONDS PROGRAM [ARGUMENT ...]

A program that ignores SIGTERM for SECONDS is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the given command line; returns its exit code."""
    seconds, *command = sys.argv[1:]
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        sys.exit(f"OSError: {command[0]} cannot be started ({error.strerror})")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: end(child, float(seconds)))
    threading.Thread(target=wait_for_end, args=(child, float(seconds)), daemon=True).start()
    code = child.wait()
    signal_group(child, signal.SIGKILL)  # processes that it started and left behind
    return code


def wait_for_end(child: subprocess.Popen[bytes], seconds: float) -> None:
    """End the program when standard input closes."""
    while sys.stdin.buffer.read(1):
        pass
    end(child, seconds)


def end(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Send SIGTERM, and SIGKILL after `seconds`."""
    signal_group(child, signal.SIGTERM)
    threading.Timer(seconds, signal_group, (child, signal.SIGKILL)).start()


def signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the program and all processes of its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code if code >= 0 else 128 - code)  # a timer may be waiting still
