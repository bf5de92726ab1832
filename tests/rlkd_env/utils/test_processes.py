"""Child processes leave signals to their parent and end with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PARENT = """
import multiprocessing, os, signal, time
from rlkd_env.utils.processes import end_with_parent, leave_signals_to_parent, starting_children

def work(lifeline):
    leave_signals_to_parent()
    end_with_parent(lifeline)
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    theirs, ours = context.Pipe(duplex=False)
    process = context.Process(target=work, args=({lifeline},), daemon=True)
    with starting_children():
        process.start()
    time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("lifeline", ["None", "theirs"])
def test_a_child_outlives_ctrl_c_but_not_its_parent(lifeline: str) -> None:
    command = [sys.executable, "-c", PARENT.format(lifeline=lifeline)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, signal.SIGINT)
    os.kill(child, signal.SIGHUP)
    time.sleep(0.7)
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 2
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


TRACKED = """
import os, signal
from multiprocessing import get_context, resource_tracker
from rlkd_env.utils.processes import keep_tracker_through_hangups

keep_tracker_through_hangups()
signal.signal(signal.SIGHUP, lambda signum, frame: None)
lock = get_context("spawn").Lock()
tracker = resource_tracker._resource_tracker._pid
os.killpg(os.getpid(), signal.SIGHUP)
print(os.waitpid(tracker, os.WNOHANG)[0] == 0 and signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there are no terminals that close")
def test_the_resource_tracker_outlives_the_terminal() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TRACKED]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment, start_new_session=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")
