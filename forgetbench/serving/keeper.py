"""Run a program for as long as somebody holds this one's standard input open, and end it with everything it started.

forgetbench starts a server through this file and holds the pipe. However forgetbench ends, a kill included, the pipe
closes, and the server goes. It is run by its path: it imports nothing of the package.

    python keeper.py SECONDS PROGRAM [ARGUMENT ...]

What ignores SIGTERM for so many seconds is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the command line that follows; its exit code."""
    seconds, *command = sys.argv[1:]
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        sys.exit(f"OSError: {command[0]} cannot be started ({error.strerror})")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: end(child, float(seconds)))
    threading.Thread(target=wait_for_end, args=(child, float(seconds)), daemon=True).start()
    code = child.wait()
    signal_group(child, signal.SIGKILL)  # what it started and left behind
    return code


def wait_for_end(child: subprocess.Popen[bytes], seconds: float) -> None:
    """End the program when nobody holds the pipe any more."""
    while sys.stdin.buffer.read(1):
        pass
    end(child, seconds)


def end(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask it to end, then make it."""
    signal_group(child, signal.SIGTERM)
    threading.Timer(seconds, signal_group, (child, signal.SIGKILL)).start()


def signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    """Signal the program and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code if code >= 0 else 128 - code)  # a timer may be waiting still
