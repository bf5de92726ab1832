"""Commands in processes of their own, to be stopped and killed, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Signals are heard also where the tests themselves run in the background, where shells switch some off.
ENTRY = """
import signal
for signum in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(signum, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from experiments.__main__ import run
if __name__ == "__main__":
    run()
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "experiments"]


def start(*arguments: str, shared: bool = False) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, as a terminal does; shared by torchrun's processes if asked."""
    return subprocess.Popen(
        [*(TORCHRUN if shared else [sys.executable, "-c", ENTRY]), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120.0) -> bool:
    """Wait until something holds; return False if the process ends before."""
    deadline = time.monotonic() + seconds
    while not holds():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "a command hangs"
        time.sleep(0.01)
    return True


def signalled(process: subprocess.Popen[str], signum: int, times: int = 1) -> tuple[int, str]:
    """Send a signal to a process and all that it has started; return its exit code and what it told."""
    for _ in range(times):
        if process.poll() is None:
            os.killpg(process.pid, signum)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=90)
    return process.returncode, errors


def killed(process: subprocess.Popen[str]) -> None:
    """Kill a process, and check that all that it has started ends within 2 s."""
    started = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    all_end(started)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def all_end(pids: list[int]) -> None:
    """Check that processes end within 2 s."""
    deadline = time.monotonic() + 2.0
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have started."""
    with suppress(OSError):
        threads = Path(f"/proc/{pid}/task").glob("*/children")
        found = [int(child) for thread in threads for child in thread.read_text().split()]
        return [*found, *(child for one in found for child in children(one))]
    return []


def is_alive(pid: int) -> bool:
    """Return whether a process is there and not only waits for its parent to take notice of its end."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
