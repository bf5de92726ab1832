"""Checkpoints that are whole or not there, and the safe points at which they are written."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.recording.timing import PartTimer
from experiments.session.checkpoints import (
    LATEST,
    PREVIOUS,
    RunInterrupted,
    SafePoints,
    load_checkpoint,
    save_checkpoint,
)
from rlkd_env.errors import UsageError


class Counter:
    """A part of a run whose state is a number."""

    def __init__(self, step_count: int = 0) -> None:
        self.step_count = step_count

    def state_dict(self) -> dict[str, Any]:
        return {"step_count": self.step_count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step_count = state["step_count"]


def safe_points(folder: Path | None, run: Counter, interval: float = 0.0, seed: int = 0) -> SafePoints:
    return SafePoints(folder, interval, {"seed": seed}, {"run": run}, PartTimer())


def test_the_latest_state_comes_back_and_the_one_before_is_kept(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, {"run": {"step_count": step}, "tensor": torch.full((3,), float(step))})
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["run"] == {"step_count": 3}
    assert state["tensor"].tolist() == [3.0] * 3
    (tmp_path / LATEST).unlink()
    older = load_checkpoint(tmp_path)  # as after a crash between the two renamings
    assert older is not None
    assert older["run"] == {"step_count": 2}


@pytest.mark.parametrize("place", [30, 60, -1], ids=["the digest", "the beginning", "the end"])
def test_a_flipped_bit_is_noticed(place: int, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"run": {"step_count": 1}, "tensor": torch.zeros(1000)})
    content = bytearray((tmp_path / LATEST).read_bytes())
    content[place] ^= 1
    (tmp_path / LATEST).write_bytes(bytes(content))
    with pytest.raises(UsageError, match=r"is damaged$"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(("state", "moment"), [({"step_count": 7}, "update 7"), ({"epoch": 2}, "epoch 2")])
def test_the_older_checkpoint_is_offered_with_how_far_it_is(state: dict[str, int], moment: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"run": state})
    save_checkpoint(tmp_path, {"run": state})
    (tmp_path / LATEST).write_bytes((tmp_path / PREVIOUS).read_bytes()[:-1])
    with pytest.raises(UsageError, match=rf"is damaged; delete it to go on from the older .*\({moment}\)"):
        load_checkpoint(tmp_path)


def test_all_parts_and_all_generators_go_on_from_a_safe_point(tmp_path: Path) -> None:
    safe_points(tmp_path, Counter(5)).reach()

    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    expected = draws()
    run = Counter()
    assert safe_points(tmp_path, run).restore()
    assert run.step_count == 5
    assert draws() == expected


def test_a_run_of_other_settings_is_not_restored(tmp_path: Path) -> None:
    safe_points(tmp_path, Counter(5)).reach()
    run = Counter()
    with pytest.raises(UsageError, match="belongs to a run with other settings"):
        safe_points(tmp_path, run, seed=1).restore()
    assert run.step_count == 0


def test_checkpoints_are_no_more_frequent_than_asked_for(tmp_path: Path) -> None:
    points = safe_points(tmp_path, Counter(), interval=1000.0)
    points.reach()
    assert not points.restore()
    points.stop.ask()  # then what there is is saved at once
    with pytest.raises(RunInterrupted):
        points.reach()
    assert points.restore()


def test_without_a_folder_nothing_is_saved_or_restored() -> None:
    points = safe_points(None, Counter())
    points.reach()
    assert not points.restore()


def test_the_first_interrupt_asks_to_stop_and_the_second_stops(tmp_path: Path) -> None:
    points = safe_points(tmp_path, Counter())
    before = signal.getsignal(signal.SIGINT)
    with points.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert points.stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
