"""Damaged folders of runs are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from made_reports import (
    assert_refused,
)

from experiments.report.run.loading import RunRecord
from rlkd_env.utils.files import write_tensors


def break_file(name: str, content: str) -> Any:
    return lambda folder: (folder / name).write_text(content)


BAD_RUNS = {
    "no history": (break_file("history.json", "[]"), "history.json is damaged"),
    "half a history": (break_file("history.json", '{"version": 1, "epo'), "history.json cannot be read as JSON"),
    "another version": (break_file("history.json", '{"version": 9, "epochs": []}'), "not a history of version 1"),
    "an epoch of text": (
        break_file("history.json", '{"version": 1, "epochs": ["a"]}'),
        "epochs[0] is damaged: 'a' is not names and values",
    ),
    "a summary of text": (break_file("summary.json", '{"seconds": "long"}'), "'long' is not a number"),
    "no config": (break_file("config.json", "7"), "config.json is damaged"),
    "no tensors": (break_file("trace.safetensors", "x"), "trace.safetensors is damaged or no safetensors file"),
    "another credit": (break_file("credit.json", '{"gradient": 3}'), "gradient is damaged: 3 is not names and values"),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_damaged_runs_get_one_line_and_no_report(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, message = BAD_RUNS[name]
    damage(run)
    assert_refused(run, message, capsys)


def test_temperatures_are_from_whom_the_command_has_told(run: Path) -> None:
    told = json.loads((run / "summary.json").read_text()) | {"temperature_from": "ppo-around-anneal"}
    (run / "summary.json").write_text(json.dumps(told))
    assert RunRecord.read(run).chooser == "ppo-around-anneal"


def test_traces_of_unequal_columns_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tensors(run / "trace.safetensors", {"step": torch.zeros(3), "reward": torch.zeros(4)})
    assert_refused(run, "it needs equally long columns", capsys)
