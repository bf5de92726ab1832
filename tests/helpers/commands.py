"""Commands in processes of their own, to be stopped and killed, and what is left of them.

A process is started anew (:func:`start`), or forked from one that has imported everything (:func:`fork`), which saves
the seconds of imports and is the same from then on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

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
    """Start a command in a process group of its own, as a terminal does; shared by torchrun's processes if asked.

    Return as soon as rlkd's first line has been read, before which signals meet Python alone.
    """
    process = subprocess.Popen(
        [*(TORCHRUN if shared else [sys.executable, "-c", ENTRY]), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    wait_until(lambda: catches(process.pid, signal.SIGTERM), process)
    return process


def catches(pid: int, signum: int) -> bool:
    """Return whether a process has a function for a signal."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1]
        return bool(int(caught, 16) >> (signum - 1) & 1)
    return False


class Command(Protocol):
    """A process that makes a command, as ``subprocess`` describes one."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str]: ...


class Forked:
    """A command in a process that was forked after all imports; what it tells goes to a file."""

    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(
        [
            "experiments.commands.distill",
            "experiments.commands.compare",
            "experiments.session.phases.learning",
            "sb3_contrib",
        ]
    )

    def __init__(self, *arguments: str) -> None:
        self._told = Path(tempfile.mkdtemp()) / "errors"
        self._process = self._context.Process(target=_run, args=(list(arguments), str(self._told)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        while not self._told.exists():  # from then on it is in a group of its own, and heeds signals
            assert self._process.exitcode is None
            time.sleep(0.005)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str]:
        self._process.join(timeout)
        assert self.returncode is not None, "a command hangs"
        return None, self._told.read_text()


fork = Forked


def _run(arguments: list[str], told: str) -> None:
    """Run a command as a process of its own does."""
    os.setsid()
    os.chdir(ROOT)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    from experiments.__main__ import run
    from experiments.signals import end_on_signals

    end_on_signals()
    sys.argv = ["rlkd", *arguments]
    with open(told, "w") as errors, open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    run()


def wait_until(holds: Callable[[], bool], process: Command, seconds: float = 120.0) -> bool:
    """Wait until something holds; return False if the process ends before."""
    deadline = time.monotonic() + seconds
    while not holds():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "a command hangs"
        time.sleep(0.01)
    return True


def wait_for_writes(folder: Path, number: int, process: Command) -> bool:
    """Wait until something in a folder has been written so often; return False if the process ends before.

    A moment that is counted in writes lies in the same place of a command on a fast machine as on a slow one.
    """
    return all(wait_until(partial(_is_newer, folder, _newest(folder)), process) for _ in range(number))


def _newest(folder: Path) -> int:
    """Return when something in a folder was last written, in nanoseconds; 0 if nothing is there."""
    newest = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # a half-written file, which has got its name meanwhile
            newest = max(newest, path.stat().st_mtime_ns)
    return newest


def _is_newer(folder: Path, moment: int) -> bool:
    return _newest(folder) > moment


def signalled(process: Command, signum: int, times: int = 1) -> tuple[int, str]:
    """Send a signal to a process and all that it has started; return its exit code and what it told."""
    for _ in range(times):
        if process.poll() is None:
            os.killpg(process.pid, signum)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=90)
    return process.returncode, errors


def killed(process: Command) -> None:
    """Kill a process, and check that all that it has started ends within 2 s."""
    started = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    all_end(started)
    process.communicate()


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
