"""Trackers get settings, every epoch and the end; here modules of their names, which write down what they get."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.session.telling import tracking

RECORDER = """
import json, pathlib
told = {"epochs": [], "params": {}, "end": {}, "finished": False}
def write(): pathlib.Path("told.json").write_text(json.dumps(told))
class Run:
    class summary:
        update = staticmethod(lambda figures: told["end"].update(figures))
    def log(self, figures, step): told["epochs"].append([step, figures])
    def finish(self): told["finished"] = True; write()
def init(project, name, config, dir): told.update(params=config, name=name); return Run()
def set_experiment(name): pass
def start_run(run_name): told["name"] = run_name
def log_params(params): told["params"] = params
def log_metrics(figures, step=None):
    if step is None: told["end"].update(figures)
    else: told["epochs"].append([step, figures])
def end_run(): told["finished"] = True; write()
"""


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_gets_settings_epochs_and_the_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{name}_recorder.py").write_text(RECORDER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    kind = tracking.TRACKERS[name][0]  # type: ignore[index]
    monkeypatch.setitem(tracking.TRACKERS, name, (kind, f"{name}_recorder", name))
    run = ["distill", "--epochs", "3", "--out", "mine", "--no-progress", "--no-tensorboard", "--device", "cpu"]
    assert main([*run, "--track", name]) == 0
    told = json.loads((tmp_path / "told.json").read_text())
    summary = json.loads((tmp_path / "mine" / "summary.json").read_text())
    epochs = json.loads((tmp_path / "mine" / "history.json").read_text())["epochs"]
    assert told["name"] == "mine"
    assert told["finished"]
    assert str(told["params"]["epochs"]) == "3"
    assert [step for step, _ in told["epochs"]] == [epoch["step"] for epoch in epochs]
    for (_, figures), epoch in zip(told["epochs"], epochs, strict=True):
        assert figures["student/validation_accuracy"] == epoch["validation_accuracy"]
        assert figures["temperature/mean"] == epoch["temperature_mean"]
    assert told["end"]["student_test_accuracy"] == summary["student_test_accuracy"]
    assert told["end"]["teacher_test_accuracy"] == summary["teacher_test_accuracy"]


def test_a_tracker_that_is_missing_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(tracking.TRACKERS, "wandb", (tracking.WeightsAndBiases, "no_such_module", "wandb"))
    assert main(["distill", "--track", "wandb", "--out", str(tmp_path / "mine")]) == 2
    assert "--track wandb needs wandb: pip install wandb" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()
