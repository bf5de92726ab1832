"""Sessions that are made as one computation leave what they leave alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from experiments.config import DistillConfig
from experiments.session.lockstep import execute_together, pays_off
from experiments.session.prepare import prepare
from experiments.session.session import DistillSession
from experiments.session.summary import complete, write_summary
from rlkd_env.errors import UsageError
from rlkd_env.runs.hooks import RunHook

CHOICES: dict[str, dict[str, Any]] = {
    "fixed": {"rule": "fixed", "fixed_temperature": 2.0},
    "anneal": {"rule": "anneal"},
    "lskd": {"rule": "lskd"},
    "random": {"rule": "random"},
}
QUICK: dict[str, Any] = {"epochs": 5, "device": "cpu", "progress": False, "tensorboard": False, "seed": 3}


def session(folder: Path, **options: Any) -> DistillSession:
    return prepare(DistillConfig.from_keywords(**QUICK, **options, out=str(folder)))


def summary(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return content


def test_every_folder_is_that_of_the_run_alone(tmp_path: Path) -> None:
    for name, options in CHOICES.items():
        complete(session(tmp_path / "alone" / name, **options))
    sessions = [session(tmp_path / "together" / name, **options) for name, options in CHOICES.items()]
    execute_together(sessions)
    for one in sessions:
        write_summary(one, together=len(sessions))
    for name in CHOICES:
        alone, together = tmp_path / "alone" / name, tmp_path / "together" / name
        assert {path.name for path in alone.iterdir()} == {".lock", *(path.name for path in together.iterdir())}
        assert (alone / "config.json").read_bytes() == (together / "config.json").read_bytes()
        for file in ("student.safetensors", "student_last.safetensors"):
            torch.testing.assert_close(load_file(alone / file), load_file(together / file), rtol=1e-3, atol=1e-4)
        told, expected = summary(together), summary(alone)
        assert told.keys() - expected.keys() == {"together"}
        assert told["together"] == 4
        for key in ("config_hash", "steps", "epochs", "student_epoch", "diverged", "temperature_from"):
            assert told[key] == expected[key]
        assert told["mean_temperature"] == pytest.approx(expected["mean_temperature"], rel=1e-4)
        assert told["student_last_test_accuracy"] == pytest.approx(expected["student_last_test_accuracy"], abs=3 / 697)


def test_times_are_equal_shares(tmp_path: Path) -> None:
    sessions = [session(tmp_path / name, **CHOICES[name]) for name in ("fixed", "anneal")]
    execute_together(sessions)
    first, second = (write_summary(one, together=2) for one in sessions)
    assert first["seconds"] == second["seconds"] > 0.0
    assert first["cpu_seconds"] == pytest.approx(second["cpu_seconds"], rel=0.5)
    epochs = json.loads((tmp_path / "fixed" / "history.json").read_text())["epochs"]
    seconds = [epoch["seconds"] for epoch in epochs]
    assert 0.0 < seconds[0] < seconds[-1] <= first["seconds"]


def test_watchers_follow_the_computation(tmp_path: Path) -> None:
    class Counter(RunHook):
        count = 0

        def on_epoch_end(self, run: object) -> None:
            self.count += 1

    sessions = [session(tmp_path / name, **CHOICES[name]) for name in ("fixed", "anneal")]
    watchers = [Counter() for _ in sessions]
    for one, watcher in zip(sessions, watchers, strict=True):
        one.watchers.append(watcher)
    execute_together(sessions)
    assert [watcher.count for watcher in watchers] == [5, 5]


def test_what_cannot_be_stacked_does_not_pay_and_is_refused(tmp_path: Path) -> None:
    cannot = {"curriculum_phases": 3}  # by which every student chooses its own images
    sessions = [session(tmp_path / name, **CHOICES[name], **cannot) for name in ("fixed", "anneal")]
    assert not pays_off(sessions)
    with pytest.raises(UsageError, match="cannot be stacked"):
        execute_together(sessions)


def test_a_rule_that_learns_along_is_refused(tmp_path: Path) -> None:
    sessions = [session(tmp_path / name, rule=name) for name in ("anneal", "ctkd")]
    with pytest.raises(UsageError, match="learned along"):
        execute_together(sessions)
