"""What a run's history holds of every epoch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from recorded import rising, watched

from rlkd_env.runs.run import DistillationRun


def test_the_history_sums_every_epoch_up(make_run: Callable[..., DistillationRun]) -> None:
    run = make_run(epochs=3)
    history, _, recorder = watched(run)
    run.reset(0)
    run.advance(rising)
    assert [(epoch["epoch"], epoch["step"]) for epoch in history.epochs] == [(1, 4), (2, 8), (3, 12)]
    for number, epoch in enumerate(history.epochs):
        results = recorder.results[4 * number : 4 * number + 4]
        temperature = np.concatenate([result.temperature.student.numpy() for result in results])
        assert epoch["temperature_mean"] == pytest.approx(temperature.mean(), rel=1e-5)
        quantiles = np.quantile(temperature, [0.05, 0.25, 0.5, 0.75, 0.95])
        assert epoch["temperature_quantiles"] == pytest.approx(quantiles, rel=1e-5)
        assert epoch["reward"] == pytest.approx(sum(float(result.reward) for result in results), abs=1e-5)
        right = [(result.outputs.student_logits.argmax(1) == result.outputs.labels).float() for result in results]
        assert epoch["training_accuracy"] == pytest.approx(float(torch.cat(right).mean()))
        assert 0.0 <= epoch["validation_accuracy"] <= 1.0
    evaluation = run.evaluate_validation()
    assert history.epochs[-1]["validation_accuracy"] == pytest.approx(float(evaluation.accuracy))
    assert history.epochs[-1]["validation_loss"] == pytest.approx(float(evaluation.loss), rel=1e-5)
    seconds = [epoch["seconds"] for epoch in history.epochs]
    assert 0.0 < seconds[0] < seconds[1] < seconds[2]


def test_an_epoch_without_a_finite_loss_has_no_validation_figures(make_run: Callable[..., DistillationRun]) -> None:
    run = make_run(epochs=3)
    history, *_ = watched(run)
    run.reset(0)
    run.advance(rising, 4)
    with torch.no_grad():
        next(run.student.parameters()).fill_(torch.nan)
    run.advance(rising, 4)
    assert history.epochs[0]["validation_accuracy"] is not None
    assert history.epochs[1]["validation_accuracy"] is None
    assert history.epochs[1]["validation_loss"] is None
    assert "student/validation_loss" not in history.scalars()
