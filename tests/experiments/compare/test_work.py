"""A run of a comparison is the same whatever runs its process has made before."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cli import parse
from experiments.compare.plan import PlannedRun, make_plan
from experiments.compare.work import make_run, new_memo
from experiments.config import CompareConfig
from rlkd_env.data.sources import digits
from rlkd_env.utils.memo import Memo

ARMS = (
    *("--arms", "srrl", "{method: srrl, rule: fixed}", "more", "{train_images: 200, rule: fixed}"),
    *("ppo", "{agent: ppo}", "cnn", "{student: digits_cnn, rule: random}", "--student-alone"),
)


def runs(out: Path) -> list[PlannedRun]:
    options = ("--seeds", "1", "--epochs", "3", "--warmup-epochs", "1", "--device", "cpu", "--out", str(out))
    config = parse(["compare", *ARMS, *options])
    assert isinstance(config, CompareConfig)
    return make_plan(config).runs


def results(out: Path, memo: Memo | None) -> dict[str, object]:
    found: dict[str, object] = {}
    for run in runs(out):
        outcome = make_run(run, 1, lambda _: None, memo)
        assert outcome.summary is not None, outcome.error
        names = ("student_sha256", "student_last_sha256", "student_test_accuracy", "mean_temperature", "data")
        found[run.arm] = [outcome.summary[name] for name in names]
    return found


@pytest.mark.slow
def test_data_and_teachers_that_are_kept_change_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anew, made = results(tmp_path / "anew", None), list[int]()
    splits = digits.Digits.splits
    monkeypatch.setattr(digits.Digits, "splits", lambda self: made.append(1) or splits(self))
    memo = new_memo()
    assert results(tmp_path / "kept", memo) == anew
    assert results(tmp_path / "again", memo) == anew
    assert len(made) == 2  # one for each number of training images
