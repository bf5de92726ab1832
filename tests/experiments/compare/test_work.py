"""A run of a comparison is the same whatever runs its process has made before."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from experiments import signals
from experiments.cli import parse
from experiments.commands import compare as commands
from experiments.compare import together, work
from experiments.compare.plan import Plan, PlannedRun, make_plan
from experiments.compare.work import make_run, new_memo
from experiments.config import CompareConfig
from rlkd_env.data.sources import digits
from rlkd_env.utils.memo import Memo

ARMS = (
    *("--arms", "srrl", "{method: srrl, rule: fixed}", "more", "{train_images: 200, rule: fixed}"),
    *("ppo", "{agent: ppo}", "cnn", "{student: digits_cnn, rule: random}", "--student-alone"),
)


def runs(out: Path) -> list[PlannedRun]:
    return plan_of(out).runs


def plan_of(out: Path) -> Plan:
    options = ("--seeds", "1", "--epochs", "3", "--warmup-epochs", "1", "--device", "cpu", "--out", str(out))
    config = parse(["compare", *ARMS, *options])
    assert isinstance(config, CompareConfig)
    return make_plan(config)


def results(out: Path, memo: Memo | None) -> dict[str, object]:
    found: dict[str, object] = {}
    for run in runs(out):
        outcome = make_run(run, 1, lambda _: None, memo)
        assert outcome.summary is not None, outcome.error
        names = ("student_sha256", "student_last_sha256", "student_test_accuracy", "mean_temperature", "data")
        found[run.arm] = [outcome.summary[name] for name in names]
    return found


def test_a_stop_that_a_library_has_made_another_error_of_ends_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(config: object, memo: Memo | None) -> None:
        signals._told.append(signal.SIGTERM)
        raise ImportError("numpy failed to import")

    monkeypatch.setattr(signals, "_told", [])
    monkeypatch.setattr(work, "prepare", interrupted)
    with pytest.raises(signals.Stopped):
        make_run(runs(tmp_path)[0], 1, lambda _: None)
    monkeypatch.setattr(together, "prepare", interrupted)
    with pytest.raises(signals.Stopped):
        together.make_unit(tuple(runs(tmp_path)[:2]), 1, lambda _: None)
    monkeypatch.setattr(commands, "prepare", interrupted)
    with pytest.raises(signals.Stopped):
        commands._check_arms(plan_of(tmp_path), new_memo())


@pytest.mark.slow
def test_data_and_teachers_that_are_kept_change_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anew, made = results(tmp_path / "anew", None), list[int]()
    splits = digits.Digits.splits
    monkeypatch.setattr(digits.Digits, "splits", lambda self: made.append(1) or splits(self))
    memo = new_memo()
    assert results(tmp_path / "kept", memo) == anew
    assert results(tmp_path / "again", memo) == anew
    assert len(made) == 2  # one for each number of training images
