"""Signals that ask to stop: as a wish, as an exception, and at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.signals import Stopped, StopRequest, exit_code
from rlkd_env.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_wish_and_the_second_has_its_usual_effect(
    signum: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usual(number: int, frame: object) -> None:
        raise Stopped(number)

    before = signal.signal(signum, usual)
    try:
        stop = StopRequest()
        with stop.listening():
            os.kill(os.getpid(), signum)
            assert stop
            assert exit_code(stop.error()) == 128 + signum
            with pytest.raises(Stopped):
                os.kill(os.getpid(), signum)
        assert signal.getsignal(signum) is usual
        patient = StopRequest()
        with patient.listening(is_patient=True):
            for _ in range(3):
                os.kill(os.getpid(), signum)
        assert patient.signum == signum
    finally:
        signal.signal(signum, before)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        stop = StopRequest()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("end_on_signals(); os.kill(os.getpid(), signal.SIGTERM)", 143),
        ("raise_on_signals()\ntry:\n os.kill(os.getpid(), 15)\nfinally:\n os.kill(os.getpid(), 1)", 129),
        ("raise_on_signals()\nclass A:\n def __del__(self): os.kill(os.getpid(), 15)\nA()\nprint('goes on')", 143),
    ],
    ids=["before anything is there", "a second one while the first is raised", "where Python ignores exceptions"],
)
def test_a_process_ends_at_once_in_a_line(code: str, expected: int) -> None:
    script = f"import os, signal\nfrom experiments.signals import end_on_signals, raise_on_signals\n{code}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (expected, "", "rlkd: interrupted\n")


def test_a_process_that_has_told_of_its_stop_ends_at_once_without_another_line() -> None:
    script = "import os, signal\nfrom experiments.signals import end_on_signals, tell_stop\n"
    script += "end_on_signals(); tell_stop('saved'); os.kill(os.getpid(), signal.SIGINT)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "saved\n")


def test_a_command_that_is_stopped_says_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(arguments: list[str]) -> int:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr("experiments.cli._run", stop)
    assert main(["bench"]) == 143
    assert capsys.readouterr().err == "rlkd: interrupted\n"


@pytest.mark.parametrize("error", [UsageError("a module cannot be imported"), OSError("no file"), RecursionError()])
def test_what_others_make_of_a_signal_is_a_stop(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr("experiments.signals._told", [signal.SIGTERM])
    monkeypatch.setattr("experiments.cli._run", stop)
    assert main(["bench"]) == 143
    assert capsys.readouterr().err == "rlkd: interrupted\n"
